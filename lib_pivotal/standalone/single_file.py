"""Checkpoints of SD1, SD2 and SDXL, read offline: a .safetensors in ldm's or sgm's layout, or a diffusers folder.

A single file goes through diffusers' own converters (`diffusers.loaders.single_file_utils`), with configurations taken
from the shapes of its tensors (`shapes`). Two things of diffusers' `from_single_file` are done here instead:

- It fills the models without a look: a tensor that is missing stays empty, one that has no place is dropped with a line
  in the log. Here every place must be filled and nothing be left over (`_filled`).
- OpenCLIP's converter knows the layer of SD2 that nothing reads by its number, 23. Here it is the last one, so that
  text encoders of any depth can be read. CLIP's weights have transformers' names already.

Prediction type and schedule come from the checkpoint as the web UI sees it: the yaml beside the file; else SD2 is asked
for its answer to a fixed input (sd_models_config.py, `is_using_v_parameterization_for_sd2`), and SDXL has marker
tensors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lib_pivotal.bundle.safetensors_file import read_header
from lib_pivotal.errors import BundleError, HostError
from lib_pivotal.plain_json import parse_json
from lib_pivotal.standalone import shapes
from lib_pivotal.standalone.families import (
    INPAINTING_CHANNELS,
    SCALE_FACTORS,
    TEXT_PARTS,
    TITLES,
    UNET,
    V_MARKER,
    VAE,
    ZERO_SNR_MARKER,
    Family,
    TextPart,
    check_channels,
    family_of,
    family_of_folder,
    read_yaml,
    renamed,
    renaming,
    says_v,
)
from lib_pivotal.standalone.tokenizer import clip_tokenizer
from lib_pivotal.training.schedule import rescale_zero_terminal_snr

TEXT_METADATA = "pivotal.text_model"
"""Metadata key of the text model's `config.json`; files without it have CLIP ViT-L/14's proportions (64 a head)."""
STORED_ALPHAS = "alphas_cumprod"
"""ldm's name of ᾱ among the tensors of an SD1 or SD2 file."""
LINEAR_START, LINEAR_END, TIMESTEPS = 0.00085, 0.012, 1000
"""The noise schedule of SD1, SD2 and SDXL."""
_POSITION_IDS = "text_model.embeddings.position_ids"
_LAYER = re.compile(r"transformer\.resblocks\.(\d+)\.")
"""Of OpenCLIP."""


def scaled_linear_alphas(
    linear_start: float = LINEAR_START, linear_end: float = LINEAR_END, *, timesteps: int = TIMESTEPS
) -> Tensor:
    """SD's ᾱ `(timesteps,)` fp32: √β evenly spaced from √linear_start to √linear_end, computed in fp64 as ldm does."""
    betas = torch.linspace(linear_start**0.5, linear_end**0.5, timesteps, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0).float()


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A loaded checkpoint: diffusers' U-Net and autoencoder, transformers' text model (SDXL: two) and tokenizer."""

    text_model: Any
    unet: Any
    vae: Any
    tokenizer: Any
    scale_factor: float = SCALE_FACTORS["sd1"]
    prediction_type: str = "epsilon"
    """`epsilon` or `v_prediction`."""
    linear_start: float = LINEAR_START
    linear_end: float = LINEAR_END
    timesteps: int = TIMESTEPS
    name: str = ""
    family: Family = "sd1"
    text_model_2: Any = None
    zero_terminal_snr: bool = False
    stored_alphas: Tensor | None = None
    """ᾱ as the file has it, in place of the one that the other numbers give."""

    def models(self) -> list[nn.Module]:
        """Text models, U-Net, autoencoder."""
        return [model for model in (self.text_model, self.text_model_2, self.unet, self.vae) if model is not None]

    @property
    def alphas_cumprod(self) -> Tensor:
        """ᾱ `(timesteps,)` fp32: the file's, else the computed one; rescaled where it is of zero terminal SNR."""
        if self.stored_alphas is not None:
            alphas = self.stored_alphas.float()
        else:
            alphas = scaled_linear_alphas(self.linear_start, self.linear_end, timesteps=self.timesteps)
        return rescale_zero_terminal_snr(alphas) if self.zero_terminal_snr else alphas

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Checkpoint:
        """Move the models (in place); returns itself."""
        for model in self.models():
            model.to(device=device, dtype=dtype)
        return self


def load_checkpoint(
    path: str | Path, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Checkpoint:
    """The checkpoint at `path`, frozen and in evaluation mode.

    A .safetensors is read as ldm's layout; the yaml of the same stem beside it, where there is one, gives the number of
    heads, the schedule and the scale of latents; all sizes come from the tensors. A folder is read as diffusers
    writes it.
    """
    path = Path(path)
    if path.is_dir():
        checkpoint = _load_folder(path)
    elif path.suffix == ".safetensors" and path.is_file():
        checkpoint = _load_file(path)
    else:
        raise HostError(f"{path}: not a checkpoint; give a .safetensors file or a folder that diffusers saved")
    for model in checkpoint.models():
        model.eval().requires_grad_(False)
    return checkpoint.to(device, dtype)


def _load_file(path: Path) -> Checkpoint:
    try:
        header = read_header(path)
        pairs = renaming({name: entry.shape for name, entry in header.tensors.items()})
        family = family_of({renamed(name, pairs): entry.shape for name, entry in header.tensors.items()}, path)
        tensors = {renamed(name, pairs): tensor for name, tensor in load_file(str(path)).items()}
    except (BundleError, OSError) as error:
        raise HostError(f"{path}: cannot be read ({error}); copy or download the file again") from error
    settings = read_yaml(path.with_suffix(".yaml"))
    stored = _table(header.metadata[TEXT_METADATA], path) if TEXT_METADATA in header.metadata else None
    try:
        unet = _unet(tensors, settings, family, path)
        vae = _autoencoder(tensors, settings, family, path)
        text_models = [_text_model(tensors, part, family, path, stored) for part in TEXT_PARTS[family]]
    except KeyError as error:
        lacking = f"no tensor {error}, which {TITLES[family]} always has"
        raise HostError(f"{path}: {lacking}; choose a full {TITLES[family]} checkpoint") from error
    predicts_v = says_v(family, settings, marked=V_MARKER in tensors)
    if family == "sd2" and not settings and unet.config.in_channels != INPAINTING_CHANNELS:
        predicts_v = _answers_v(unet)
    return Checkpoint(
        text_models[0],
        unet,
        vae,
        clip_tokenizer(),
        scale_factor=float(settings.get("scale_factor", SCALE_FACTORS[family])),
        prediction_type="v_prediction" if predicts_v else "epsilon",
        linear_start=float(settings.get("linear_start", LINEAR_START)),
        linear_end=float(settings.get("linear_end", LINEAR_END)),
        timesteps=int(settings.get("timesteps", TIMESTEPS)),
        name=path.stem,
        family=family,
        text_model_2=text_models[1] if len(text_models) > 1 else None,
        zero_terminal_snr=ZERO_SNR_MARKER in tensors,
        stored_alphas=_stored_alphas(tensors, family, int(settings.get("timesteps", TIMESTEPS))),
    )


def _answers_v(unet: Any) -> bool:
    """Whether SD2's answer to a fixed input is a velocity, as the web UI finds it out."""
    with torch.no_grad():
        noisy = torch.full((1, 4, 8, 8), 0.5)
        context = torch.full((1, 2, unet.config.cross_attention_dim), 0.5)
        answer = unet.eval()(noisy, torch.tensor([999]), encoder_hidden_states=context, return_dict=False)[0]
    return bool((answer - noisy).mean() < -1)


def _stored_alphas(tensors: Mapping[str, Tensor], family: Family, timesteps: int) -> Tensor | None:
    """ldm keeps ᾱ among the weights, and the web UI loads it with them (sd_models.py:440, 467), so that a file which
    was halved as a whole has a rounded schedule. sgm computes SDXL's anew."""
    found = tensors.get(STORED_ALPHAS)
    return found if family != "sdxl" and found is not None and tuple(found.shape) == (timesteps,) else None


def _table(text: str | bytes, path: Path) -> dict[str, Any]:
    """A JSON object that stands in `path`."""
    try:
        found = parse_json(text)
    except ValueError as error:
        raise HostError(f"{path}: what it says of itself is no JSON ({error}); save or download it again") from None
    if not isinstance(found, dict):
        raise HostError(f"{path}: what it says of itself is no JSON object; save or download it again")
    return found


def _unet(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], family: Family, path: Path) -> Any:
    from diffusers import UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    weights = _part(tensors, UNET, path)
    config = shapes.unet_config(weights, settings, family)
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
    converted = convert_ldm_unet_checkpoint({UNET + name: tensor for name, tensor in weights.items()}, config)
    return _filled(unet, converted, UNET, path, strange=_dropped(weights, converted))


def _autoencoder(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], family: Family, path: Path) -> Any:
    from diffusers import AutoencoderKL
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    weights = _part(tensors, VAE, path)
    config = shapes.vae_config(weights, settings, family)
    with torch.device("meta"):
        vae = AutoencoderKL(**config)
    converted = convert_ldm_vae_checkpoint(weights, config)
    return _filled(vae, converted, VAE, path, strange=_dropped(weights, converted))


def _text_model(
    tensors: Mapping[str, Tensor], part: TextPart, family: Family, path: Path, stored: Mapping[str, Any] | None
) -> Any:
    """transformers' model; `stored` is SD1's configuration from the file's metadata."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    weights, strange = _part(tensors, part.prefix, path), list[str]()
    if part.layout == "clip":
        weights.pop(_POSITION_IDS, None)
        config = CLIPTextConfig(**(stored or shapes.clip_config(weights, path)))
        kind = CLIPTextModel
    else:
        config = CLIPTextConfig(**shapes.openclip_config(weights, layers_left_out=1 if family == "sd2" else 0))
        kind = CLIPTextModel if family == "sd2" else CLIPTextModelWithProjection
    with torch.device("meta"):
        model = kind(config)
    if part.layout == "openclip":
        weights, strange = _from_openclip(weights, model)
    model.text_model.embeddings.position_ids = torch.arange(config.max_position_embeddings)[None]
    return _filled(model, weights, part.prefix, path, strange=strange)


def _from_openclip(weights: Mapping[str, Tensor], model: Any) -> tuple[dict[str, Tensor], list[str]]:
    """OpenCLIP's weights under transformers' names without what `model` does not have, and names without a place."""
    from diffusers.loaders.single_file_utils import DIFFUSERS_TO_LDM_MAPPING, convert_open_clip_checkpoint

    layers = model.config.num_hidden_layers
    kept = {name: w for name, w in weights.items() if not (found := _LAYER.match(name)) or int(found[1]) < layers}
    converted = convert_open_clip_checkpoint(model, kept, prefix="")
    if not hasattr(model, "text_projection"):
        converted.pop("text_projection.weight", None)
    known = {*DIFFUSERS_TO_LDM_MAPPING["openclip"]["layers"].values(), "logit_scale", "attn_mask"}
    return converted, [name for name in kept if name not in known and not name.startswith("transformer.")]


def _dropped(weights: Mapping[str, Tensor], converted: Mapping[str, Tensor | None]) -> list[str]:
    """Names of tensors that a converter passed over: what it takes is the same memory under another name."""
    taken = {tensor.data_ptr() for tensor in converted.values() if tensor is not None}
    return [name for name, tensor in weights.items() if tensor.data_ptr() not in taken]


def _part(tensors: Mapping[str, Tensor], prefix: str, path: Path) -> dict[str, Tensor]:
    part = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    if not part:
        raise HostError(f"{path}: no tensor begins with {prefix}; choose a full checkpoint (SD1, SD2 or SDXL)")
    return part


def _filled(
    model: nn.Module, weights: Mapping[str, Tensor | None], prefix: str, path: Path, *, strange: Sequence[str]
) -> nn.Module:
    """`model` (without memory of its own) with copies of these weights in fp32.

    Every place must be filled with the right shape, and nothing be left over.
    """
    ours = {name: tensor for name, tensor in weights.items() if tensor is not None}
    wanted = {name: tensor for name, tensor in model.state_dict().items() if name != _POSITION_IDS}
    strange = [*strange, *(name for name in ours if name not in wanted)]
    missing = [name for name in wanted if name not in ours]
    if missing or strange:
        what = f"lacks {missing[0]}" if missing else f"has {prefix}{strange[0]}, for which there is no place"
        count = f" ({len(missing)} missing, {len(strange)} too many)"
        raise HostError(f"{path}: {what}{count}; no known architecture, or another's yaml beside it")
    for name, tensor in ours.items():
        if tensor.shape != wanted[name].shape:
            shapes_text = f"{tuple(tensor.shape)}, expected {tuple(wanted[name].shape)}"
            raise HostError(f"{path}: {prefix}{name} has shape {shapes_text}; check the yaml beside the file")
    # copies: the tensors of the file are views into it
    copies = {
        name: tensor.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        for name, tensor in ours.items()
    }
    model.load_state_dict(copies, strict=False, assign=True)
    return model


def _load_folder(path: Path) -> Checkpoint:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    def load(part: str, loader: Callable[..., Any]) -> Any:
        if not (path / part).is_dir():
            raise HostError(f"{path}: no sub-folder {part}; a diffusers checkpoint has text_encoder, unet and vae")
        try:
            return loader(str(path / part), local_files_only=True)
        except (OSError, ValueError) as error:
            raise HostError(f"{path / part}: cannot be loaded ({error}); save the pipeline again") from error

    if (path / "text_encoder_2").is_dir() and not (path / "text_encoder").is_dir():
        raise HostError(
            f"{path}: this is SDXL's refiner, which only finishes pictures. Choose the base checkpoint to train."
        )
    schedule_path = path / "scheduler" / "scheduler_config.json"
    schedule = _table(schedule_path.read_bytes(), schedule_path) if schedule_path.is_file() else {}
    vae = load("vae", AutoencoderKL.from_pretrained)
    text_model = load("text_encoder", CLIPTextModel.from_pretrained)
    unet = load("unet", UNet2DConditionModel.from_pretrained)
    check_channels(unet.config.in_channels, path)
    family = family_of_folder(unet.config, text_model.config.to_dict())
    return Checkpoint(
        text_model,
        unet,
        vae,
        load("tokenizer", CLIPTokenizer.from_pretrained) if (path / "tokenizer").is_dir() else clip_tokenizer(),
        scale_factor=float(vae.config.scaling_factor),
        prediction_type=schedule.get("prediction_type", "epsilon"),
        linear_start=float(schedule.get("beta_start", LINEAR_START)),
        linear_end=float(schedule.get("beta_end", LINEAR_END)),
        timesteps=int(schedule.get("num_train_timesteps", TIMESTEPS)),
        name=path.name,
        family=family,
        text_model_2=load("text_encoder_2", CLIPTextModelWithProjection.from_pretrained) if family == "sdxl" else None,
        zero_terminal_snr=bool(schedule.get("rescale_betas_zero_snr", False)),
    )
