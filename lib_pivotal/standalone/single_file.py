"""Checkpoints of SD1, SD2 and SDXL, read offline: a .safetensors in ldm's or sgm's layout, or a diffusers folder.

Prediction type and schedule come from the checkpoint as the web UI sees it: the yaml beside the file; else SD2 is asked
for its answer to a fixed input (sd_models_config.py, `is_using_v_parameterization_for_sd2`), and SDXL has marker
tensors. SD1 can be written, too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lib_pivotal.bundle.safetensors_file import read_header
from lib_pivotal.errors import BundleError, HostError
from lib_pivotal.plain_json import parse_json
from lib_pivotal.standalone import compvis, openclip, shapes
from lib_pivotal.standalone.families import (
    INPAINTING_CHANNELS,
    SCALE_FACTORS,
    TEXT_PARTS,
    TITLES,
    V_MARKER,
    ZERO_SNR_MARKER,
    Family,
    check_channels,
    family_of,
    renamed,
    renaming,
)
from lib_pivotal.standalone.tokenizer import clip_tokenizer, write_tokenizer
from lib_pivotal.training.schedule import rescale_zero_terminal_snr

_SD1_TEXT = TEXT_PARTS["sd1"][0].prefix
TEXT_METADATA = "pivotal.text_model"
"""Metadata key of the text model's `config.json`; files without it have CLIP ViT-L/14's proportions (64 a head)."""
STORED_ALPHAS = "alphas_cumprod"
"""ldm's name of ᾱ among the tensors of an SD1 or SD2 file."""
_POSITION_IDS = "text_model.embeddings.position_ids"


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
    linear_start: float = 0.00085
    linear_end: float = 0.012
    timesteps: int = 1000
    name: str = ""
    family: Family = "sd1"
    text_model_2: Any = None
    zero_terminal_snr: bool = False
    stored_alphas: Tensor | None = None
    """ᾱ as the file has it, in place of the one that the other numbers give."""

    @property
    def inpainting(self) -> bool:
        """Whether the U-Net takes the hole and the holed picture beside the noise."""
        return bool(self.unet.config.in_channels == INPAINTING_CHANNELS)

    def models(self) -> list[nn.Module]:
        """Text models, U-Net, autoencoder."""
        return [model for model in (self.text_model, self.text_model_2, self.unet, self.vae) if model is not None]

    @property
    def alphas_cumprod(self) -> Tensor:
        """ᾱ `(timesteps,)` fp32: the file's; else √β runs evenly from √linear_start to √linear_end (fp64, as ldm).

        Rescaled where the checkpoint is of zero terminal SNR.
        """
        if self.stored_alphas is not None:
            alphas = self.stored_alphas.float()
        else:
            start, end = self.linear_start**0.5, self.linear_end**0.5
            betas = torch.linspace(start, end, self.timesteps, dtype=torch.float64) ** 2
            alphas = torch.cumprod(1 - betas, 0).float()
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


def save_checkpoint(
    path: str | Path, checkpoint: Checkpoint, *, text_version: str, dtype: torch.dtype = torch.float16
) -> None:
    """Write `path` (.safetensors, compvis layout) and its yaml; SD1 only.

    `text_version` goes into the yaml as FrozenCLIPEmbedder's `version`: "openai/clip-vit-large-patch14", or a folder
    made by `write_text_folder`, as seen from where the web UI starts.
    """
    path = Path(path)
    if checkpoint.family != "sd1":
        raise HostError(f"{path}: only SD1 checkpoints are written, this one is {TITLES[checkpoint.family]}")
    unet, vae, text = checkpoint.unet, checkpoint.vae, checkpoint.text_model
    tensors: dict[str, Tensor] = {}
    for prefix, model, names in (
        (compvis.UNET, unet, shapes.unet_names(unet.config)),
        (compvis.VAE, vae, shapes.vae_names(vae.config)),
    ):
        for name, tensor in compvis.to_compvis(model.state_dict(), names).items():
            tensors[prefix + name] = tensor.detach().to("cpu", dtype).contiguous()
    for name, tensor in text.state_dict().items():
        if name != _POSITION_IDS:
            tensors[_SD1_TEXT + name] = tensor.detach().to("cpu", dtype).contiguous()
    tensors[_SD1_TEXT + _POSITION_IDS] = torch.arange(text.config.max_position_embeddings)[None]
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"format": "pt", TEXT_METADATA: json.dumps(shapes.text_config(text.config), sort_keys=True)}
    save_file(tensors, str(path), metadata=metadata)
    schedule = {
        "linear_start": checkpoint.linear_start,
        "linear_end": checkpoint.linear_end,
        "timesteps": checkpoint.timesteps,
        "scale_factor": checkpoint.scale_factor,
        "parameterization": "v" if checkpoint.prediction_type == "v_prediction" else "eps",
    }
    text_yaml = shapes.ldm_yaml(unet.config, vae.config, schedule, text_version=text_version)
    path.with_suffix(".yaml").write_text(text_yaml, encoding="utf-8")


def write_text_folder(folder: str | Path, checkpoint: Checkpoint) -> Path:
    """What transformers' `from_pretrained` needs of the text model besides weights: config and tokenizer.

    The stock web UI takes the architecture of the text model from this folder and its weights from the checkpoint.
    """
    folder = write_tokenizer(Path(folder))
    config = {"architectures": ["CLIPTextModel"], **shapes.text_config(checkpoint.text_model.config)}
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True), encoding="utf-8")
    return folder


def _load_file(path: Path) -> Checkpoint:
    from diffusers import AutoencoderKL, UNet2DConditionModel

    try:
        header = read_header(path)
        pairs = renaming({name: entry.shape for name, entry in header.tensors.items()})
        family = family_of({renamed(name, pairs): entry.shape for name, entry in header.tensors.items()}, path)
        tensors = {renamed(name, pairs): tensor for name, tensor in load_file(str(path)).items()}
    except (BundleError, OSError) as error:
        raise HostError(f"{path}: cannot be read ({error}); copy or download the file again") from error
    unet_weights, vae_weights = (_part(tensors, prefix, path) for prefix in (compvis.UNET, compvis.VAE))
    settings = shapes.read_yaml(path.with_suffix(".yaml"))
    try:
        unet = UNet2DConditionModel(**shapes.unet_config(unet_weights, settings, family))
        vae = AutoencoderKL(**shapes.vae_config(vae_weights, settings, family))
        stored = _table(header.metadata[TEXT_METADATA], path) if TEXT_METADATA in header.metadata else None
        text_models = _text_models(tensors, family, path, stored)
    except KeyError as error:
        lacking = f"no tensor {error}, which {TITLES[family]} always has"
        raise HostError(f"{path}: {lacking}; choose a full {TITLES[family]} checkpoint") from error
    _fill(unet, unet_weights, shapes.unet_names(unet.config), compvis.UNET, path)
    _fill(vae, vae_weights, shapes.vae_names(vae.config), compvis.VAE, path)
    return Checkpoint(
        text_models[0],
        unet,
        vae,
        clip_tokenizer(),
        scale_factor=float(settings.get("scale_factor", SCALE_FACTORS[family])),
        prediction_type="v_prediction" if _predicts_v(tensors, settings, family, unet) else "epsilon",
        linear_start=float(settings.get("linear_start", 0.00085)),
        linear_end=float(settings.get("linear_end", 0.012)),
        timesteps=int(settings.get("timesteps", 1000)),
        name=path.stem,
        family=family,
        text_model_2=text_models[1] if len(text_models) > 1 else None,
        zero_terminal_snr=ZERO_SNR_MARKER in tensors,
        stored_alphas=_stored_alphas(tensors, family, int(settings.get("timesteps", 1000))),
    )


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


def _text_models(
    tensors: Mapping[str, Tensor], family: Family, path: Path, stored: Mapping[str, Any] | None
) -> list[nn.Module]:
    """transformers' models with the file's weights; `stored` is SD1's configuration from the file's metadata."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    models: list[nn.Module] = []
    for part in TEXT_PARTS[family]:
        weights, strange = _part(tensors, part.prefix, path), list[str]()
        if part.layout == "clip":
            weights.pop(_POSITION_IDS, None)
            config = stored or shapes.infer_text_config(weights, path)
        else:
            left_out = 1 if family == "sd2" else 0
            config = openclip.text_config(weights, layers_left_out=left_out)
            weights = openclip.without_last_layers(weights, config["num_hidden_layers"])
            if family == "sd2":
                weights.pop("text_projection", None)
            weights, strange = openclip.to_transformers_weights(weights)
        kind = CLIPTextModelWithProjection if models else CLIPTextModel
        model = kind(CLIPTextConfig(**config))
        _fill(model, weights, None, part.prefix, path, strange=strange)
        models.append(model)
    return models


def _predicts_v(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], family: Family, unet: Any) -> bool:
    """As the web UI finds it out (see the module), and by the marker of SDXL checkpoints."""
    if family == "sdxl":
        denoiser = shapes.params_of(settings, "denoiser_config").get("scaling_config") or {}
        return V_MARKER in tensors or str(denoiser.get("target", "")).endswith(".VScaling")
    if settings:
        return bool(settings.get("parameterization") == "v")
    if family == "sd1" or unet.config.in_channels == INPAINTING_CHANNELS:
        return False
    with torch.no_grad():
        noisy = torch.full((1, 4, 8, 8), 0.5)
        context = torch.full((1, 2, unet.config.cross_attention_dim), 0.5)
        answer = unet.eval()(noisy, torch.tensor([999]), encoder_hidden_states=context, return_dict=False)[0]
    return bool((answer - noisy).mean() < -1)


def _part(tensors: Mapping[str, Tensor], prefix: str, path: Path) -> dict[str, Tensor]:
    part = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    if not part:
        raise HostError(f"{path}: no tensor begins with {prefix}; choose a full checkpoint (SD1, SD2 or SDXL)")
    return part


def _fill(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    names: Mapping[str, str] | None,
    prefix: str,
    path: Path,
    *,
    strange: Sequence[str] = (),
) -> None:
    """Put a part's weights into `model`; every place must be filled with the right shape, and nothing be left over."""
    ours, unknown = (dict(weights), list[str]()) if names is None else compvis.to_diffusers(weights, names)
    strange = [*strange, *unknown]
    wanted = {name: tensor for name, tensor in model.state_dict().items() if name != _POSITION_IDS}
    strange += [name for name in ours if name not in wanted]
    missing = [name for name in wanted if name not in ours]
    if missing or strange:
        what = f"lacks {missing[0]}" if missing else f"has {prefix}{strange[0]}, for which there is no place"
        count = f" ({len(missing)} missing, {len(strange)} too many)"
        raise HostError(f"{path}: {what}{count}; no known architecture, or another's yaml beside it")
    for name, tensor in ours.items():
        if tensor.shape != wanted[name].shape:
            shapes_text = f"{tuple(tensor.shape)}, expected {tuple(wanted[name].shape)}"
            raise HostError(f"{path}: {prefix}{name} has shape {shapes_text}; check the yaml beside the file")
    model.load_state_dict(ours, strict=False)


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
    family: Family = "sdxl" if unet.config.addition_embed_type == "text_time" else "sd1"
    if family == "sd1" and text_model.config.hidden_act == "gelu":  # OpenCLIP's; CLIP-L has quick_gelu
        family = "sd2"
    return Checkpoint(
        text_model,
        unet,
        vae,
        load("tokenizer", CLIPTokenizer.from_pretrained) if (path / "tokenizer").is_dir() else clip_tokenizer(),
        scale_factor=float(vae.config.scaling_factor),
        prediction_type=schedule.get("prediction_type", "epsilon"),
        linear_start=float(schedule.get("beta_start", 0.00085)),
        linear_end=float(schedule.get("beta_end", 0.012)),
        timesteps=int(schedule.get("num_train_timesteps", 1000)),
        name=path.name,
        family=family,
        text_model_2=load("text_encoder_2", CLIPTextModelWithProjection.from_pretrained) if family == "sdxl" else None,
        zero_terminal_snr=bool(schedule.get("rescale_betas_zero_snr", False)),
    )
