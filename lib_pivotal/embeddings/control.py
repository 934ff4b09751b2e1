"""Keeping the vectors in the range of real embeddings: small rules applied after an optimiser step, or in its place.

Every rule is called as `control(words, updated, rates)`: `updated` names the embeddings that this step moves and
`rates` their learning rates. Embeddings that are frozen or were not moved are not touched: an embedding must not drift
towards a norm while none of its pictures is seen. What their norms should be is in `norm_targets`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from lib_pivotal.embeddings.norm_targets import NormTargets
from lib_pivotal.embeddings.vectors import TrainedEmbeddings
from lib_pivotal.errors import EmbeddingNameError


class NormControl(Protocol):
    """A rule applied after each optimiser step, or one that moves the embeddings in its place (`make_step`)."""

    def __call__(self, embeddings: TrainedEmbeddings, updated: Sequence[str], rates: Mapping[str, float]) -> None:
        """Change the values of the embeddings in `updated`; `rates` maps an embedding (or `word <name>`) to its
        rate."""
        ...


class NoControl:
    """Vectors go where the optimiser takes them."""

    def __call__(self, embeddings: TrainedEmbeddings, updated: Sequence[str], rates: Mapping[str, float]) -> None:
        """Do nothing."""


class ClipTiDecay:
    """Pull each vector's norm towards that of a common embedding, faster at higher rates.

    λ = min(1, 100·lr);  e ← e/‖e‖ · (‖e‖ + λ·(target − ‖e‖))

    cloneofsimo/lora, `cli_lora_pti.py` (`clip_ti_decay`), where the target is 0.4, the norm of CLIP-L's embeddings;
    ours is measured, tower by tower, because other encoders have other norms.
    """

    def __init__(self, targets: NormTargets, *, strength: float = 100.0) -> None:
        self._targets = targets
        self._strength = strength

    @torch.no_grad()
    def __call__(self, embeddings: TrainedEmbeddings, updated: Sequence[str], rates: Mapping[str, float]) -> None:
        """Pull the norms of the embeddings in `updated`."""
        for name, tower, vectors in _moved(embeddings, updated):
            pull = min(1.0, self._strength * _rate(rates, name))
            norms = vectors.norm(dim=1, keepdim=True)
            _scale_rows(vectors, norms + pull * (self._targets.norm(embeddings, name, tower) - norms), norms)


class StdRetraction:
    """Pull the spread of an embedding's entries towards the vocabulary's.

    e ← e · (std(E₀) / std(e))^exponent, with exponent 0.1

    As diffusers' advanced scripts, cog-sdxl and invoke-training; they take the std over all new vectors together, we
    take it word by word, so that an embedding's course does not depend on which others are trained beside it.
    """

    def __init__(self, targets: NormTargets, *, exponent: float = 0.1) -> None:
        self._targets = targets
        self._exponent = exponent

    @torch.no_grad()
    def __call__(self, embeddings: TrainedEmbeddings, updated: Sequence[str], rates: Mapping[str, float]) -> None:
        """Pull the spread of the embeddings in `updated`."""
        for name, tower, vectors in _moved(embeddings, updated):
            std = vectors.std()
            factor = (self._targets.std(embeddings, name, tower) / std) ** self._exponent
            vectors.mul_(torch.where(std > 0, factor, torch.ones_like(factor)))


class PreserveNorm:
    """Give each vector the wanted norm: e ← e/‖e‖ · target.

    With the vocabulary's median norm this is OneTrainer's `preserve_embedding_norm`; with the vector's own norm at the
    start it is DCO's (arXiv 2402.12004, `customize.py`), which puts the new token's row back to its first norm.
    """

    def __init__(self, targets: NormTargets) -> None:
        self._targets = targets

    @torch.no_grad()
    def __call__(self, embeddings: TrainedEmbeddings, updated: Sequence[str], rates: Mapping[str, float]) -> None:
        """Set the norms of the embeddings in `updated`."""
        for name, tower, vectors in _moved(embeddings, updated):
            norms = vectors.norm(dim=1, keepdim=True)
            _scale_rows(vectors, torch.zeros_like(norms) + self._targets.norm(embeddings, name, tower), norms)


class DirectionStep:
    """Only directions are learnt: DTI (arXiv 2512.13672), whose embedding is e = m·v with a fixed norm m and ‖v‖ = 1.

    g = m·∂L/∂e − κ·μ;  t = g − (gᵀv)·v;  v ← (v − η·t/‖t‖) / ‖v − η·t/‖t‖‖

    η is the learning rate: each step turns a vector by atan η, however large its gradient is (the paper: 0.01-0.04).
    −κ·μᵀv is the prior (von Mises-Fisher) towards the direction μ of the start. m is the target norm: the start's own
    norms, or as in the paper the mean row of the vocabulary. The gradient is taken from the optimiser, which therefore
    neither moves nor decays these vectors.
    """

    def __init__(self, targets: NormTargets, *, kappa: float = 1e-4) -> None:
        self._targets = targets
        self._kappa = kappa

    @torch.no_grad()
    def __call__(self, embeddings: TrainedEmbeddings, updated: Sequence[str], rates: Mapping[str, float]) -> None:
        """Turn the vectors in `updated` against their gradients, which are used up."""
        for name, tower, vectors in _moved(embeddings, updated):
            if vectors.grad is None:
                continue
            rate, norm = _rate(rates, name), self._targets.norm(embeddings, name, tower)
            direction, towards = _unit(vectors), _unit(embeddings.starts[name][tower])
            slope = norm * vectors.grad - self._kappa * towards
            tangent = slope - (slope * direction).sum(dim=1, keepdim=True) * direction
            vectors.copy_(norm * _unit(direction - rate * _unit(tangent)))
            vectors.grad = None


CONTROLS: dict[str, Callable[[NormTargets], NormControl]] = {
    "none": lambda targets: NoControl(),
    "clip_ti_decay": ClipTiDecay,
    "std": StdRetraction,
    "preserve_norm": PreserveNorm,
}
"""Rules after an optimiser step."""

DIRECTION = "direction"
"""The rule that takes the optimiser's place."""


def control_names() -> tuple[str, ...]:
    """Choices of `embeddings_common.control`."""
    return (*CONTROLS, DIRECTION)


def make_control(name: str, targets: NormTargets) -> NormControl:
    """The rule of that name after an optimiser step."""
    if name not in control_names():
        raise EmbeddingNameError(f"control = {name!r}: unknown; use one of {', '.join(control_names())}")
    return NoControl() if name == DIRECTION else CONTROLS[name](targets)


def make_step(name: str, targets: NormTargets, *, kappa: float) -> NormControl | None:
    """The rule of that name that moves the embeddings in the optimiser's place; None where there is none."""
    return DirectionStep(targets, kappa=kappa) if name == DIRECTION else None


def _moved(embeddings: TrainedEmbeddings, updated: Sequence[str]) -> Iterator[tuple[str, int, Tensor]]:
    """(name, tower, vectors) of the embeddings to control; frozen ones are passed over."""
    frozen = embeddings.frozen
    for name in updated:
        if name not in frozen:
            for tower, vectors in enumerate(embeddings.parameters_of(name)):
                yield name, tower, vectors


def _scale_rows(vectors: Tensor, wanted: Tensor, norms: Tensor) -> None:
    """Rows to the wanted norms `(n, 1)`, in place; a zero row has no direction and stays zero."""
    safe = norms.clamp_min(torch.finfo(norms.dtype).tiny)
    vectors.mul_(torch.where(norms > 0, wanted / safe, torch.ones_like(norms)))


def _unit(rows: Tensor) -> Tensor:
    """Rows of length 1; a zero row stays zero."""
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)


def _rate(rates: Mapping[str, float], name: str) -> float:
    rate = rates.get(f"word {name}", rates.get(name))
    if rate is None:
        raise EmbeddingNameError(
            f"embedding {name!r}: no learning rate among {sorted(rates)}; give the learning rate of "
            "every updated embedding"
        )
    return rate
