"""The blocks of a checkpoint's U-Net, from names alone: what the numbering of its layers depends on."""

from __future__ import annotations

from pathlib import Path

from lib_pivotal.bundle.layer_names import UnetShape
from lib_pivotal.bundle.safetensors_file import read_header
from lib_pivotal.errors import BundleError, NetworkError
from lib_pivotal.plain_json import parse_json

_UNET = "model.diffusion_model."


def checkpoint_shape(path: str | Path) -> UnetShape:
    """Of a checkpoint (.safetensors), of a U-Net in diffusers' layout, or of a folder that diffusers saved.

    BundleError where there is no U-Net in it.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return UnetShape.from_diffusers_config(_config(path))
        names = read_header(path).tensors
        compvis = [name.removeprefix(_UNET) for name in names if name.startswith(_UNET)]
        if compvis:
            return UnetShape.from_compvis_paths(compvis)
        return UnetShape.from_diffusers_paths(name.removeprefix("unet.") for name in names)
    except (NetworkError, KeyError, TypeError) as error:
        raise BundleError(f"{path}: no U-Net of SD1, SD2 or SDXL in it ({error}). Give the checkpoint.") from None


def _config(folder: Path) -> dict[str, object]:
    for file in (folder / "unet" / "config.json", folder / "config.json"):
        if file.is_file():
            try:
                found = parse_json(file.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise BundleError(f"{file}: cannot be read as JSON ({error})") from None
            if isinstance(found, dict):
                return found
    raise BundleError(f"{folder}: has no unet/config.json; give a .safetensors file or a folder that diffusers saved")
