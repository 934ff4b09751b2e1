"""Borrowing models for a run and giving them back exactly as they were."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from torch import nn

from lib_pivotal.borrowing import flags_restored, frozen, widened
from lib_pivotal.ports import SessionRequest


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
            stack.enter_context(flags_restored(model))
            stack.enter_context(frozen(model))
            model.eval()
        if request.precision == "fp32":
            for model in models:
                stack.enter_context(widened(model))
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
                stack.enter_context(flags_restored(model))
                model.eval()
        yield


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
