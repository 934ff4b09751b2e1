"""Keeping the vectors in the range of real embeddings: small rules applied after an optimiser step.

Every rule is called as `control(words, updated, rates)`: `updated` names the embeddings that this step moved and
`rates` their learning rates. Embeddings that are frozen or were not moved are not touched: an embedding must not drift
towards a norm while none of its pictures is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from lib_pivotal.embeddings.vectors import TrainedEmbeddings
from lib_pivotal.errors import EmbeddingNameError
from lib_pivotal.ports import VocabularyStats


class NormControl(Protocol):
    """A rule applied after each optimiser step."""

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
    ours is the checkpoint's median row norm, tower by tower, because other encoders have other norms.
    """

    def __init__(self, targets: Sequence[float], *, strength: float = 100.0) -> None:
        self._targets = tuple(targets)
        self._strength = strength

    @torch.no_grad()
    def __call__(self, embeddings: TrainedEmbeddings, updated: Sequence[str], rates: Mapping[str, float]) -> None:
        """Pull the norms of the embeddings in `updated`."""
        for name, tower, vectors in _moved(embeddings, updated):
            pull = min(1.0, self._strength * _rate(rates, name))
            norms = vectors.norm(dim=1, keepdim=True)
            _scale_rows(vectors, norms + pull * (_of_tower(self._targets, tower, name) - norms), norms)


class StdRetraction:
    """Pull the spread of an embedding's entries towards the vocabulary's.

    e ← e · (std(E₀) / std(e))^exponent, with exponent 0.1

    As diffusers' advanced scripts, cog-sdxl and invoke-training; they take the std over all new vectors together, we
    take it word by word, so that an embedding's course does not depend on which others are trained beside it.
    """

    def __init__(self, targets: Sequence[float], *, exponent: float = 0.1) -> None:
        self._targets = tuple(targets)
        self._exponent = exponent

    @torch.no_grad()
    def __call__(self, embeddings: TrainedEmbeddings, updated: Sequence[str], rates: Mapping[str, float]) -> None:
        """Pull the spread of the embeddings in `updated`."""
        for name, tower, vectors in _moved(embeddings, updated):
            std = vectors.std()
            factor = (_of_tower(self._targets, tower, name) / std) ** self._exponent
            vectors.mul_(torch.where(std > 0, factor, torch.ones_like(factor)))


class PreserveNorm:
    """Give each vector the norm of a common embedding: e ← e/‖e‖ · median_i ‖E₀[i]‖ (OneTrainer)."""

    def __init__(self, targets: Sequence[float]) -> None:
        self._targets = tuple(targets)

    @torch.no_grad()
    def __call__(self, embeddings: TrainedEmbeddings, updated: Sequence[str], rates: Mapping[str, float]) -> None:
        """Set the norms of the embeddings in `updated`."""
        for name, tower, vectors in _moved(embeddings, updated):
            norms = vectors.norm(dim=1, keepdim=True)
            _scale_rows(vectors, torch.full_like(norms, _of_tower(self._targets, tower, name)), norms)


CONTROLS: dict[str, Callable[[Sequence[VocabularyStats]], NormControl]] = {
    "none": lambda stats: NoControl(),
    "clip_ti_decay": lambda stats: ClipTiDecay([tower.median_norm for tower in stats]),
    "std": lambda stats: StdRetraction([tower.std for tower in stats]),
    "preserve_norm": lambda stats: PreserveNorm([tower.median_norm for tower in stats]),
}


def control_names() -> tuple[str, ...]:
    """Choices of `embeddings_common.control`."""
    return tuple(CONTROLS)


def make_control(name: str, stats: Sequence[VocabularyStats]) -> NormControl:
    """The rule of that name, with targets from the checkpoint's own vocabulary (one record a tower)."""
    if name not in CONTROLS:
        raise EmbeddingNameError(f"control = {name!r}: unknown; use one of {', '.join(control_names())}")
    return CONTROLS[name](stats)


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


def _of_tower(targets: Sequence[float], tower: int, name: str) -> float:
    if tower >= len(targets):
        raise EmbeddingNameError(
            f"embedding {name!r} has a tower {tower}, but the vocabulary of only {len(targets)} was measured"
        )
    return targets[tower]


def _rate(rates: Mapping[str, float], name: str) -> float:
    rate = rates.get(f"word {name}", rates.get(name))
    if rate is None:
        raise EmbeddingNameError(
            f"embedding {name!r}: no learning rate among {sorted(rates)}; give the learning rate of "
            "every updated embedding"
        )
    return rate
