"""Losses on the embeddings alone, beside the loss of the pictures.

Each counts as a part of the loss of every sample that names the embedding: an embedding without pictures in a step is
not touched, micro-batches and processes add up, and a rare embedding is held no harder than a frequent one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import Tensor

from lib_pivotal.ports import EmbeddingVectors, TrainingBatch


class EmbeddingTerm(Protocol):
    """A loss of embeddings."""

    def __call__(self, embeddings: EmbeddingVectors, names: Sequence[str], *, seeds: tuple[int, int]) -> Tensor:
        """One number for each of `names`, `(names,)`; `seeds` are the run's and the step."""
        ...


class StartDistance:
    """How far vectors are from where they started: mean over vectors and towers of ‖e − e₀‖₂.

    CrossInit's regulariser, with weight 1e-5 there (github.com/lyuPang/CrossInitialization, train_cross_init.py).
    """

    def __init__(self, starts: EmbeddingVectors) -> None:
        self._starts = starts

    def __call__(self, embeddings: EmbeddingVectors, names: Sequence[str], *, seeds: tuple[int, int]) -> Tensor:
        """`(names,)`."""
        return torch.stack([self._distance(name, embeddings[name]) for name in names])

    def _distance(self, name: str, towers: Sequence[Tensor]) -> Tensor:
        pairs = zip(towers, self._starts[name], strict=True)
        return torch.stack([torch.linalg.vector_norm(now - start, dim=1).mean() for now, start in pairs]).mean()


class EmbeddingTerms:
    """Weighted terms by name. `frozen` is in force while they are computed and differentiated: the text encoder without
    what is trained in its layers."""

    def __init__(
        self,
        terms: Mapping[str, tuple[float, EmbeddingTerm]] | None = None,
        *,
        frozen: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._terms = dict(terms or {})
        self.frozen = frozen

    @property
    def names(self) -> tuple[str, ...]:
        """In order; the names of their losses."""
        return tuple(self._terms)

    def losses(
        self, embeddings: EmbeddingVectors, shares: Mapping[str, float], *, seeds: tuple[int, int]
    ) -> dict[str, Tensor]:
        """Each term's loss: weight · Σ share · term, over the embeddings in `shares`; nothing where there are none."""
        names = list(shares)
        if not names:
            return {}
        found = {}
        for name, (weight, term) in self._terms.items():
            each = term(embeddings, names, seeds=seeds)
            found[name] = weight * (each * each.new_tensor([shares[one] for one in names])).sum()
        return found


def sample_shares(batches: Iterable[TrainingBatch], count: int) -> dict[str, float]:
    """By embedding: the weights of the samples that name it, of `count` samples in all."""
    shares: dict[str, float] = {}
    for batch in batches:
        for weight, names in zip(batch.weights.tolist(), batch.embeddings, strict=False):
            for name in names:
                shares[name] = shares.get(name, 0.0) + weight / count
    return shares
