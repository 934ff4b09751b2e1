"""Pieces of borrowing a model: each changes one thing inside and puts it back exactly, whatever happens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

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


def gradient_flags(model: nn.Module) -> list[tuple[nn.Parameter, bool]]:
    """Each parameter of the model, and whether it asks for a gradient now."""
    return [(parameter, parameter.requires_grad) for parameter in model.parameters()]


@contextlib.contextmanager
def with_gradient_flags(flags: Iterable[tuple[nn.Parameter, bool]]) -> Iterator[None]:
    """Inside, parameters ask for a gradient as `flags` say; after it, as before.

    It matters to pictures, too: with a weight that asks, `torch.matmul` folds a batch of strided inputs into one
    product, and without it makes a product each (`should_fold` in ATen's LinearAlgebra.cpp), which rounds otherwise on
    some processors, also under `no_grad`.
    """
    flags = list(flags)
    before = [(parameter, parameter.requires_grad) for parameter, _ in flags]
    try:
        for parameter, wanted in flags:
            parameter.requires_grad_(wanted)
        yield
    finally:
        for parameter, wanted in before:
            parameter.requires_grad_(wanted)


@contextlib.contextmanager
def types_restored(model: nn.Module) -> Iterator[None]:
    """Parameters and buffers that were widened inside are as narrow as before; every value is representable."""
    before = [(tensor, tensor.dtype) for tensor in [*model.parameters(), *model.buffers()]]
    try:
        yield
    finally:
        for tensor, dtype in before:
            if tensor.dtype is not dtype:
                _retype(tensor, dtype)


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


class OffloadedModel:
    """A model that leaves its device while nobody needs it, and comes back for whoever does."""

    def __init__(self) -> None:
        self._model: nn.Module | None = None
        self._home = torch.device("cpu")
        self._users = 0

    @contextlib.contextmanager
    def away(self, model: nn.Module) -> Iterator[None]:
        """Inside, `model` is in the machine's memory but for `here()`; then where it was. One model at a time.

        A model that is there already stays there.
        """
        home = next(model.parameters()).device
        if home.type == "cpu":
            yield
            return
        self._model, self._home = model, home
        try:
            model.to("cpu")
            yield
        finally:
            self._model = None
            model.to(home)

    @contextlib.contextmanager
    def here(self) -> Iterator[None]:
        """Inside, the model is on its device; may be nested, and used where no model is away."""
        model, first = self._model, self._users == 0
        self._users += 1
        try:
            if model is not None and first:
                model.to(self._home)
            yield
        finally:
            self._users -= 1
            if model is not None and first and self._model is model:
                model.to("cpu")


def _retype(tensor: Tensor, dtype: torch.dtype) -> None:
    """Same parameter object, other type."""
    tensor.data = tensor.data.to(dtype)
