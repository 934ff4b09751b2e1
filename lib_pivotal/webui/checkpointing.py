"""Gradient checkpointing of the web UI's model: ours on for a run, and ldm's own off."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

BLOCKS = ("BasicTransformerBlock", "ResBlock", "CLIPEncoderLayer", "ResidualAttentionBlock")
"""Classes of ldm's and sgm's U-Nets, transformers' CLIP and open_clip whose inputs are kept."""


@contextmanager
def without_own_checkpointing(unet: nn.Module) -> Iterator[None]:
    """ldm's checkpointing takes gradients of frozen weights and knows nothing of hooks: it must be off."""
    changed = []
    try:
        for module in unet.modules():
            for name in ("checkpoint", "use_checkpoint"):
                if module.__dict__.get(name) is True:
                    changed.append((module, name))
                    setattr(module, name, False)
        yield
    finally:
        for module, name in changed:
            setattr(module, name, True)


@contextmanager
def checkpointed(models: Sequence[nn.Module]) -> Iterator[None]:
    """Blocks keep only their input and compute again in the backward pass (torch's non-reentrant kind)."""
    blocks = [m for model in models for m in model.modules() if type(m).__name__ in BLOCKS]
    try:
        for block in blocks:
            block.forward = _again(block.forward)
        yield
    finally:
        for block in blocks:
            block.__dict__.pop("forward", None)


def _again(forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return run
