"""What kind of checkpoint a file or folder is, from headers and settings beside it: no weights are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib_pivotal.bundle.safetensors_file import read_header
from lib_pivotal.errors import BundleError, HostError
from lib_pivotal.plain_json import parse_json
from lib_pivotal.ports import ModelInfo
from lib_pivotal.standalone.families import INPAINTING_CHANNELS, V_MARKER, Family, family_of, renamed, renaming
from lib_pivotal.standalone.shapes import params_of, read_yaml

_INPUT = "model.diffusion_model.input_blocks.0.0.weight"


def checkpoint_info(path: Path) -> ModelInfo:
    """Name, family and, as far as it is written down, what the checkpoint predicts.

    Of SD2 only a yaml beside the file says that it predicts v; loading it finds that out without one.

    Raises:
        HostError: no checkpoint, or one that is not trained here.
    """
    if path.is_dir():
        return _of_folder(path)
    try:
        entries = read_header(path).tensors
    except (BundleError, OSError) as error:
        raise HostError(f"{path}: cannot be read as a checkpoint ({error}). Give a .safetensors file.") from error
    pairs = renaming({name: entry.shape for name, entry in entries.items()})
    tensors = {renamed(name, pairs): entry.shape for name, entry in entries.items()}
    if _INPUT not in tensors and not any(name.startswith("model.diffusion_model.") for name in tensors):
        raise HostError(f"{path}: no checkpoint, it has no U-Net. Give an SD1, SD2 or SDXL checkpoint.")
    family = family_of(tensors, path)
    settings = read_yaml(path.with_suffix(".yaml"))
    inpainting = tuple(tensors.get(_INPUT, ()))[1:2] == (INPAINTING_CHANNELS,)
    return ModelInfo(
        path.stem, family, v_prediction=_says_v(family, settings, V_MARKER in tensors), inpainting=inpainting
    )


def _says_v(family: Family, settings: Mapping[str, Any], marked: bool) -> bool:
    if family == "sdxl":
        scaling = params_of(settings, "denoiser_config").get("scaling_config") or {}
        return marked or str(scaling.get("target", "")).endswith(".VScaling")
    return bool(settings.get("parameterization") == "v")


def _of_folder(path: Path) -> ModelInfo:
    """As diffusers writes it."""
    unet, text = _json(path / "unet" / "config.json"), _json(path / "text_encoder" / "config.json")
    if not unet:
        raise HostError(f"{path}: no unet/config.json; give a .safetensors file or a folder that diffusers saved.")
    family: Family = "sdxl" if unet.get("addition_embed_type") == "text_time" else "sd1"
    if family == "sd1" and text.get("hidden_act") == "gelu":  # OpenCLIP's; CLIP-L has quick_gelu
        family = "sd2"
    predicts = _json(path / "scheduler" / "scheduler_config.json").get("prediction_type")
    return ModelInfo(
        path.name,
        family,
        v_prediction=predicts == "v_prediction",
        inpainting=unet.get("in_channels") == INPAINTING_CHANNELS,
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise HostError(f"{path}: cannot be read as JSON ({error}). Save the pipeline again.") from error
    return found if isinstance(found, dict) else {}
