"""What every host does alike, whatever its checkpoint is made of."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lib_pivotal.errors import HostError
from lib_pivotal.ports import LayerKind

PIXELS_AT_ONCE = 1 << 20
"""Pictures that go through the autoencoder or the U-Net together have at most so many pixels in all: 256 of 64 px."""

_BLOCK_WORDS = ("attentions", "resnets", "downsamplers", "upsamplers")


def pictures_at_once(height_px: int, width_px: int) -> int:
    """How many pictures of this size go together; at least one."""
    return max(1, PIXELS_AT_ONCE // (height_px * width_px))


def is_adaptable(path: str) -> bool:
    """Whether the U-Net layer at this diffusers path can get an adapter: those inside the blocks."""
    return any(embedding in path for embedding in _BLOCK_WORDS)


def layer_kind(module: nn.Module) -> LayerKind | None:
    """What sort of layer this is for a network; None for what cannot get an adapter."""
    if isinstance(module, nn.Linear):
        return "linear"
    if isinstance(module, nn.Conv2d):
        return "conv"
    if isinstance(module, nn.LayerNorm | nn.GroupNorm) and module.weight is not None and module.bias is not None:
        return "norm"
    return None


def check_clip_skip(clip_skip: int, *, layer_count: int, name: str) -> None:
    """HostError where the checkpoint `name`, whose text encoder has `layer_count` layers, cannot skip so many."""
    if not 1 <= clip_skip <= layer_count:
        raise HostError(f"clip_skip = {clip_skip}: {name} has {layer_count} text layers; use 1 to {layer_count}")


def all_finite(*tensors: Tensor) -> bool:
    """Whether every number is."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def weights_fingerprint(weights: Mapping[str, Tensor], *, scale_factor: float) -> str:
    """SHA-256 over names, types, shapes and values, and the scale."""
    digest = hashlib.sha256(repr(scale_factor).encode())
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
