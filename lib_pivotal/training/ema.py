"""Exponential moving average of whatever is trained: embeddings and network alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lib_pivotal.errors import StateError, TrainingError


class EMA:
    """Averages of a fixed list of parameters, kept in float32 on their devices.

    avg ← d·avg + (1-d)·parameter, with d = min(decay, (1+n)/(10+n)) in update n = 1, 2, ... when `warmup` is on, so
    that the first steps are forgotten soon; the rule of latent diffusion (CompVis, ldm/modules/ema.py, `LitEma`) and
    TensorFlow. Averages start as copies of the parameters.
    """

    def __init__(self, parameters: Sequence[Tensor], *, decay: float = 0.999, warmup: bool = True) -> None:
        if not 0 <= decay < 1:
            raise TrainingError(f"EMA decay {decay}: must be from 0 to less than 1, 0.999 is usual")
        self.parameters = tuple(parameters)
        self.decay = decay
        self.warmup = warmup
        self.updates = 0
        self.averages = [_average_of(parameter) for parameter in self.parameters]
        self._swapped = False

    def current_decay(self) -> float:
        """d of the latest update (before the first: of that one)."""
        updates = max(1, self.updates)
        return min(self.decay, (1 + updates) / (10 + updates)) if self.warmup else self.decay

    @torch.no_grad()
    def update(self) -> None:
        """Take the parameters as they are now into the averages: once after every optimiser step."""
        if self._swapped:
            raise TrainingError("EMA update while the averages are swapped in: leave swapped() first")
        self.updates += 1
        share = 1 - self.current_decay()
        for average, parameter in zip(self.averages, self.parameters, strict=True):
            average.lerp_(parameter.to(average.dtype), share)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Inside, the parameters hold the averages; after it they are bit for bit as they were, whatever happened."""
        if self._swapped:
            raise TrainingError("the averages are already swapped in")
        kept = [parameter.detach().clone() for parameter in self.parameters]
        self._swapped = True
        try:
            self._write(self.averages)
            yield
        finally:
            self._write(kept)
            self._swapped = False

    def state_dict(self) -> dict[str, Any]:
        """`updates` and copies of the averages, in the order of the parameters."""
        return {"updates": self.updates, "averages": [average.clone() for average in self.averages]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a `state_dict()` of the same parameters; nothing is changed if it does not fit."""
        saved: list[Tensor] = list(state["averages"])
        shapes, wanted = [tuple(a.shape) for a in saved], [tuple(a.shape) for a in self.averages]
        if shapes != wanted:
            raise StateError(
                f"saved EMA of {len(saved)} tensors {_few(shapes)} does not fit the {len(wanted)} {_few(wanted)} that "
                "are trained now: resume with the embeddings and network of the saved run"
            )
        self.updates = int(state["updates"])
        for average, value in zip(self.averages, saved, strict=True):
            average.copy_(value)

    @torch.no_grad()
    def _write(self, values: Sequence[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)


def _average_of(parameter: Tensor) -> Tensor:
    dtype = torch.promote_types(parameter.dtype, torch.float32)
    return parameter.detach().to(dtype, copy=True)


def _few(shapes: Sequence[tuple[int, ...]]) -> str:
    """The first few of `shapes`, for an error message."""
    return "(" + ", ".join("x".join(map(str, shape)) for shape in shapes[:4]) + (", ...)" if len(shapes) > 4 else ")")
