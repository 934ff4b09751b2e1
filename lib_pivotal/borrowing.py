"""Pieces of borrowing a model: each changes one thing inside and puts it back exactly, whatever happens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

_FLAGS = ("training", "gradient_checkpointing", "_gradient_checkpointing_func")
"""What the libraries set on modules; the last only in newer versions of transformers and diffusers."""


@contextlib.contextmanager
def flags_restored(model: nn.Module) -> Iterator[None]:
    """Training and checkpointing flags of every module that is in the model now."""
    before = [
        (module, {key: module.__dict__[key] for key in _FLAGS if key in module.__dict__}) for module in model.modules()
    ]
    try:
        yield
    finally:
        for module, flags in before:
            for key in _FLAGS:
                module.__dict__.pop(key, None)
            module.__dict__.update(flags)


@contextlib.contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """No parameter asks for a gradient; what did, and its gradient, come back."""
    before = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    try:
        for parameter, _, _ in before:
            parameter.requires_grad_(False)
            parameter.grad = None
        yield
    finally:
        for parameter, wanted, grad in before:
            parameter.requires_grad_(wanted)
            parameter.grad = grad


@contextlib.contextmanager
def widened(model: nn.Module) -> Iterator[None]:
    """Half-precision weights as fp32, and back; every value is representable, so nothing changes."""
    narrow = [
        (tensor, tensor.dtype)
        for tensor in [*model.parameters(), *model.buffers()]
        if tensor.dtype in (torch.float16, torch.bfloat16)
    ]
    try:
        for tensor, _ in narrow:
            _retype(tensor, torch.float32)
        yield
    finally:
        for tensor, dtype in narrow:
            _retype(tensor, dtype)


def _retype(tensor: Tensor, dtype: torch.dtype) -> None:
    """Same parameter object, other type."""
    tensor.data = tensor.data.to(dtype)
