"""SD1 checkpoints, read and written offline: one compvis-layout .safetensors with its yaml, or a diffusers folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lib_pivotal.bundle.safetensors_file import read_header
from lib_pivotal.errors import BundleError, HostError
from lib_pivotal.standalone import compvis, shapes
from lib_pivotal.standalone.tokenizer import clip_tokenizer, write_tokenizer

SD1_SCALE_FACTOR = 0.18215
TEXT_METADATA = "pivotal.text_model"
"""Metadata key of the text model's `config.json`; files without it have CLIP ViT-L/14's proportions (64 a head)."""
_POSITION_IDS = "text_model.embeddings.position_ids"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A loaded SD1 checkpoint: diffusers' U-Net and autoencoder, transformers' text model and tokenizer."""

    text_model: Any
    unet: Any
    vae: Any
    tokenizer: Any
    scale_factor: float = SD1_SCALE_FACTOR
    prediction_type: str = "epsilon"
    """`epsilon` or `v_prediction`."""
    linear_start: float = 0.00085
    linear_end: float = 0.012
    timesteps: int = 1000
    name: str = ""

    @property
    def alphas_cumprod(self) -> Tensor:
        """ᾱ `(timesteps,)` fp32; √β runs evenly from √linear_start to √linear_end, in fp64 as ldm does."""
        start, end = self.linear_start**0.5, self.linear_end**0.5
        betas = torch.linspace(start, end, self.timesteps, dtype=torch.float64) ** 2
        return torch.cumprod(1 - betas, 0).float()

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Checkpoint:
        """Move the three models (in place); returns itself."""
        for model in (self.text_model, self.unet, self.vae):
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
    for model in (checkpoint.text_model, checkpoint.unet, checkpoint.vae):
        model.eval().requires_grad_(False)
    return checkpoint.to(device, dtype)


def save_checkpoint(
    path: str | Path, checkpoint: Checkpoint, *, text_version: str, dtype: torch.dtype = torch.float16
) -> None:
    """Write `path` (.safetensors, compvis layout) and its yaml.

    `text_version` goes into the yaml as FrozenCLIPEmbedder's `version`: "openai/clip-vit-large-patch14", or a folder
    made by `write_text_folder`, as seen from where the web UI starts.
    """
    path = Path(path)
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
            tensors[compvis.TEXT + name] = tensor.detach().to("cpu", dtype).contiguous()
    tensors[compvis.TEXT + _POSITION_IDS] = torch.arange(text.config.max_position_embeddings)[None]
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
    from transformers import CLIPTextConfig, CLIPTextModel

    try:
        metadata = read_header(path).metadata
        tensors = load_file(str(path))
    except (BundleError, OSError) as error:
        raise HostError(f"{path}: cannot be read ({error}); copy or download the file again") from error
    parts = {prefix: _part(tensors, prefix, path) for prefix in (compvis.UNET, compvis.VAE, compvis.TEXT)}
    settings = shapes.read_yaml(path.with_suffix(".yaml"))
    try:
        unet_config = shapes.unet_config(parts[compvis.UNET], settings)
        vae_config = shapes.vae_config(parts[compvis.VAE], settings)
    except KeyError as error:
        raise HostError(f"{path}: no tensor {error}, which SD1 always has; choose an SD1 checkpoint") from error
    stored = json.loads(metadata[TEXT_METADATA]) if TEXT_METADATA in metadata else None
    text_config = stored or shapes.infer_text_config(parts[compvis.TEXT], path)
    unet = UNet2DConditionModel(**unet_config)
    vae = AutoencoderKL(**vae_config)
    text_model = CLIPTextModel(CLIPTextConfig(**text_config))
    _fill(unet, parts[compvis.UNET], shapes.unet_names(unet.config), compvis.UNET, path)
    _fill(vae, parts[compvis.VAE], shapes.vae_names(vae.config), compvis.VAE, path)
    text_weights = {name: tensor for name, tensor in parts[compvis.TEXT].items() if name != _POSITION_IDS}
    _fill(text_model, text_weights, None, compvis.TEXT, path)
    return Checkpoint(
        text_model,
        unet,
        vae,
        clip_tokenizer(),
        scale_factor=float(settings.get("scale_factor", SD1_SCALE_FACTOR)),
        prediction_type="v_prediction" if settings.get("parameterization") == "v" else "epsilon",
        linear_start=float(settings.get("linear_start", 0.00085)),
        linear_end=float(settings.get("linear_end", 0.012)),
        timesteps=int(settings.get("timesteps", 1000)),
        name=path.stem,
    )


def _part(tensors: Mapping[str, Tensor], prefix: str, path: Path) -> dict[str, Tensor]:
    part = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    if not part:
        raise HostError(f"{path}: no tensor begins with {prefix}; choose a whole SD1 checkpoint in the compvis layout")
    return part


def _fill(
    model: nn.Module, weights: Mapping[str, Tensor], names: Mapping[str, str] | None, prefix: str, path: Path
) -> None:
    """Put a part's weights into `model`; every place must be filled with the right shape, and nothing be left over."""
    renamed, strange = (dict(weights), list[str]()) if names is None else compvis.to_diffusers(weights, names)
    wanted = {name: tensor for name, tensor in model.state_dict().items() if name != _POSITION_IDS}
    strange += [name for name in renamed if name not in wanted]
    missing = [name for name in wanted if name not in renamed]
    if missing or strange:
        what = f"lacks {missing[0]}" if missing else f"has {prefix}{strange[0]}, for which there is no place"
        count = f" ({len(missing)} missing, {len(strange)} too many)"
        raise HostError(f"{path}: {what}{count}; this is not SD1's architecture, or the yaml beside it is another's")
    for name, tensor in renamed.items():
        if tensor.shape != wanted[name].shape:
            shapes_text = f"{tuple(tensor.shape)}, expected {tuple(wanted[name].shape)}"
            raise HostError(f"{path}: {prefix}{name} has shape {shapes_text}; check the yaml beside the file")
    model.load_state_dict(renamed, strict=False)


def _load_folder(path: Path) -> Checkpoint:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    def load(part: str, loader: Callable[..., Any]) -> Any:
        if not (path / part).is_dir():
            raise HostError(f"{path}: no sub-folder {part}; a diffusers checkpoint has text_encoder, unet and vae")
        try:
            return loader(str(path / part), local_files_only=True)
        except (OSError, ValueError) as error:
            raise HostError(f"{path / part}: cannot be loaded ({error}); save the pipeline again") from error

    schedule_path = path / "scheduler" / "scheduler_config.json"
    schedule = json.loads(schedule_path.read_text(encoding="utf-8")) if schedule_path.is_file() else {}
    vae = load("vae", AutoencoderKL.from_pretrained)
    return Checkpoint(
        load("text_encoder", CLIPTextModel.from_pretrained),
        load("unet", UNet2DConditionModel.from_pretrained),
        vae,
        load("tokenizer", CLIPTokenizer.from_pretrained) if (path / "tokenizer").is_dir() else clip_tokenizer(),
        scale_factor=float(vae.config.scaling_factor),
        prediction_type=schedule.get("prediction_type", "epsilon"),
        linear_start=float(schedule.get("beta_start", 0.00085)),
        linear_end=float(schedule.get("beta_end", 0.012)),
        timesteps=int(schedule.get("num_train_timesteps", 1000)),
        name=path.name,
    )
