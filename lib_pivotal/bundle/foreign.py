"""A bundle's network as kohya's, whoever wrote it: layout, strength kept beside the tensors, names for its U-Net.

What a file does not say by itself is taken from what stands around it: alphas from peft's config or diffusers'
metadata, the text encoder from our own note, the folder or the width, the U-Net's shape from the family where every
layer of the file has its place in it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lib_pivotal.bundle.adapter_config import ADAPTER_METADATA, CONFIG_FILE, configs_of
from lib_pivotal.bundle.format import META_ALPHA_DTYPE, META_PART, Family
from lib_pivotal.bundle.layer_names import (
    SD1_SHAPE,
    SDXL_SHAPE,
    UnetShape,
    fits,
    is_compvis_path,
    part_of,
    split_kohya_name,
)
from lib_pivotal.bundle.network_layouts import exactly, for_webui, group_layers, is_kohya, misfits, to_kohya
from lib_pivotal.bundle.network_places import Recognition, place_of, recognise
from lib_pivotal.bundle.reader import Bundle
from lib_pivotal.errors import BundleError, NetworkError
from lib_pivotal.ports import Part

logger = logging.getLogger(__name__)
_SHAPES: dict[Family, UnetShape] = {"sd1": SD1_SHAPE, "sd2": SD1_SHAPE, "sdxl": SDXL_SHAPE}
_NUMBERED = ("down_blocks.", "up_blocks.", "input_blocks.", "output_blocks.")
_NO_ALPHA = "none"


def kohya_network(bundle: Bundle, *, shape: UnetShape | None = None) -> dict[str, Tensor]:
    """The network in kohya's layout with the same effect; one that is kohya's already is returned as it is.

    BundleError names the layout, or the keys that are of none, where it cannot be read.
    """
    if is_kohya(bundle.network):
        return _fitting(bundle.network, bundle)
    family = bundle.family
    try:
        configs, seen = configs_of(bundle.path, bundle.metadata), recognise(bundle.network)
        if not configs and "peft" in seen.layouts:
            logger.warning(
                "%s: no %s beside it, which has the strength: taken for lora_alpha = r", bundle.path, CONFIG_FILE
            )
        network = to_kohya(
            bundle.network,
            configs=configs,
            text_part=_text_part(bundle, seen),
            towers=2 if family == "sdxl" else None,
        )
        network = _with_own_alphas(network, bundle.metadata)
        shape = shape or standard_shape(network, family)
        return _fitting(network if shape is None else for_webui(network, shape), bundle)
    except (BundleError, NetworkError) as error:
        raise BundleError(f"{bundle.path}: its network cannot be read as kohya's: {error}") from None


def _fitting(network: dict[str, Tensor], bundle: Bundle) -> dict[str, Tensor]:
    """The network itself. Raises BundleError where tensors of a layer do not fit together."""
    reasons = [f"{name}: {reason}" for name, layer in group_layers(network).items() for reason in misfits(layer)]
    if reasons:
        raise BundleError(f"{bundle.path}: {len(reasons)} layer(s) are broken: {'; '.join(reasons[:4])}")
    return network


def standard_shape(network: Mapping[str, Tensor], family: Family) -> UnetShape | None:
    """The U-Net's shape of SD1, SD2 or SDXL, if this kohya network can be one of it; else None.

    A file that has names of both numberings was made for another U-Net: see `layer_names.name_for_webui`.
    """
    shape = _SHAPES.get(family)
    paths = [split_kohya_name(name)[1] for name in group_layers(network) if name.startswith("lora_unet_")]
    numbered = [path for path in paths if path.startswith(_NUMBERED)]
    if shape is None or len({is_compvis_path(path) for path in numbered}) > 1:
        return None
    return shape if all(fits(path, shape) for path in paths) else None


def parts_by_key(bundle: Bundle) -> dict[str, Part | None]:
    """The part of the model that each of the network's keys belongs to, in any layout; None where that is not known."""
    text_part = _text_part(bundle, recognise(bundle.network))
    found: dict[str, Part | None] = {}
    for key in bundle.network:
        place = place_of(key)
        found[key] = part_of(key) if place is None else place.part if place.sure else text_part
    return found


def for_kohya(metadata: Mapping[str, str]) -> dict[str, str]:
    """The metadata without what is true of another layout only."""
    return {k: v for k, v in metadata.items() if k not in (ADAPTER_METADATA, META_PART, META_ALPHA_DTYPE)}


def alpha_dtype(network: Mapping[str, Tensor]) -> str:
    """What peft's config cannot say of the alphas of a network: their dtype, or that there are none (else empty)."""
    found = set()
    for layer in group_layers(network).values():
        down, alpha = layer.get("lora_down.weight"), layer.get("alpha")
        if down is not None:
            found.add(_NO_ALPHA if alpha is None else "" if alpha.dtype == down.dtype else _name(alpha.dtype))
    return found.pop() if len(found) == 1 else ""


def _with_own_alphas(network: dict[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Tensor]:
    """The alphas as they were before `alpha_dtype` was noted."""
    told = metadata.get(META_ALPHA_DTYPE, "")
    if told == _NO_ALPHA:
        return {
            key: tensor
            for key, tensor in network.items()
            if not key.endswith(".alpha") or float(tensor) != _rank_beside(key, network)
        }
    dtype = getattr(torch, told, None) if told in ("float16", "bfloat16", "float32", "float64") else None
    if dtype is None:
        return network
    return {key: exactly(t.double(), dtype) if key.endswith(".alpha") else t for key, t in network.items()}


def _rank_beside(key: str, network: Mapping[str, Tensor]) -> float:
    down = network.get(f"{key.removesuffix('.alpha')}.lora_down.weight")
    return float("nan") if down is None else float(down.shape[0])


def _text_part(bundle: Bundle, seen: Recognition) -> Part:
    """Which text encoder the layers of a file belong to that names none."""
    told = bundle.metadata.get(META_PART)
    if told in ("te", "te2"):
        return "te2" if told == "te2" else "te"
    if bundle.path is not None and Path(bundle.path).parent.name == "text_encoder_2":
        return "te2"
    widths = {
        bundle.network[key].shape[1]
        for key, place in seen.places.items()
        if not place.sure and place.suffix == "lora_down.weight" and bundle.network[key].dim() > 1
        if place.path.endswith(("q_proj", "k_proj", "v_proj", "fc1"))
    }
    return "te2" if widths == {1280} else "te"  # OpenCLIP-G; CLIP-L has 768, SD2's OpenCLIP-H 1024


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
