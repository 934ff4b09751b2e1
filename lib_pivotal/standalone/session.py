"""Borrowing models for a run and giving them back exactly as they were."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from lib_pivotal.ports import SessionRequest

_FLAGS = ("training", "gradient_checkpointing", "_gradient_checkpointing_func")
"""What the libraries set on modules; the last only in newer versions of transformers and diffusers."""


@contextlib.contextmanager
def borrowed(models: Sequence[nn.Module], trained: Sequence[nn.Module], *, request: SessionRequest) -> Iterator[None]:
    """Inside, `models` are frozen, in evaluation mode, and in the precision of the request.

    `trained` are those that gradients flow through; with gradient checkpointing these are in training mode (the
    libraries checkpoint only then), their dropout switched off all the same. bf16 and fp16 are the business of
    autocast: weights are never rounded. fp32 widens what is narrower and narrows it back, which is exact.
    On exit, gradients, flags and types are as before, whatever happened.
    """
    with contextlib.ExitStack() as stack:
        for model in models:
            stack.enter_context(_flags_restored(model))
            stack.enter_context(_frozen(model))
            model.eval()
        if request.precision == "fp32":
            for model in models:
                stack.enter_context(_widened(model))
        if request.gradient_checkpointing:
            for model in trained:
                _checkpoint(model)
        yield


@contextlib.contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; every module's own flag restored after."""
    with contextlib.ExitStack() as stack:
        for model in models:
            if any(module.training for module in model.modules()):
                stack.enter_context(_flags_restored(model))
                model.eval()
        yield


@contextlib.contextmanager
def _flags_restored(model: nn.Module) -> Iterator[None]:
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
def _frozen(model: nn.Module) -> Iterator[None]:
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
def _widened(model: nn.Module) -> Iterator[None]:
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


def _checkpoint(model: nn.Module) -> None:
    """diffusers and transformers have each their own name for it."""
    for name in ("enable_gradient_checkpointing", "gradient_checkpointing_enable"):
        if hasattr(model, name):
            getattr(model, name)()
            break
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
