"""OpenCLIP's names of layers, for tests that write its checkpoints: the package reads them by diffusers' converters."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lib_pivotal.errors import NetworkError

_TO_OPENCLIP = {
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
}
_TO_TRANSFORMERS = {openclip: transformers for transformers, openclip in _TO_OPENCLIP.items()}
_FUSED = ("q_proj", "k_proj", "v_proj")


@dataclass(frozen=True)
class OpenClipLayer:
    """A layer in OpenCLIP: the module's path, and for q, k and v which third of `in_proj_weight` (0, 1, 2)."""

    path: str
    third: int | None = None


def to_openclip(path: str) -> OpenClipLayer:
    """transformers path (`text_model.encoder.layers.N...`) -> OpenCLIP layer."""
    match = re.fullmatch(r"text_model\.encoder\.layers\.(\d+)\.(.+)", path)
    if match:
        block = f"transformer.resblocks.{match[1]}"
        for third, fused in enumerate(_FUSED):
            if match[2] == f"self_attn.{fused}":
                return OpenClipLayer(f"{block}.attn", third)
        if match[2] in _TO_OPENCLIP:
            return OpenClipLayer(f"{block}.{_TO_OPENCLIP[match[2]]}")
    raise NetworkError(f"layer {path!r}: no OpenCLIP counterpart is known")


def to_transformers(layer: OpenClipLayer) -> str:
    """OpenCLIP layer -> transformers path."""
    match = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)", layer.path)
    if match:
        block = f"text_model.encoder.layers.{match[1]}"
        if layer.third is not None and match[2] == "attn":
            return f"{block}.self_attn.{_FUSED[layer.third]}"
        if layer.third is None and match[2] in _TO_TRANSFORMERS:
            return f"{block}.{_TO_TRANSFORMERS[match[2]]}"
    raise NetworkError(f"layer {layer.path!r}: no transformers counterpart is known")
