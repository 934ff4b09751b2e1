"""Embeddings-only micro-batches: in a share of them the network is off, and the embeddings must explain the picture
alone.

The embeddings are so optimised for a picture without the network in every phase of a run, and the network for what is
left on top of them; no further forward is needed. Published nowhere as far as we know. Neighbours: kohya's
`module_dropout` (each module by itself), and DCO's reference pass (network off, but without gradient).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from lib_pivotal.ports import EmbeddingVectors


@dataclass(frozen=True)
class EmbeddingsOnly:
    """Which micro-batches of a run are embeddings-only.

    `share` of them, 0 (none) to below 1; in the others the embeddings' gradient is multiplied by `gradient_factor`.
    The draw is stratified: micro-batches are counted through the run, and of each window of about 1 / min(share,
    1 - share) of them, floor((w+1)·n) - floor(w·n) are off, n = window · share, at random places. So every stretch of
    the run has its share (0.5: one of each two), and no picture that comes at a fixed rhythm meets the same kind each
    time. A micro-batch of a further set (class pictures) goes with the run's own of the same place: `accumulation` is
    the number of the run's own.
    """

    share: float = 0.0
    gradient_factor: float = 1.0
    seed: int = 0
    accumulation: int = 1

    def is_off(self, step: int, micro: int) -> bool:
        """Whether the network is off in micro-batch `micro` of `step`: the same in every process."""
        if self.share <= 0:
            return False
        place = step * self.accumulation + micro % self.accumulation
        window, inner = divmod(place, self._window)
        return inner in self._off_in(window)

    @property
    def _window(self) -> int:
        return max(2, round(1 / min(self.share, 1 - self.share)))

    def _off_in(self, window: int) -> list[int]:
        each = self._window * self.share + 1e-9  # 1e-9: ten windows of 0.1 are one
        count = int((window + 1) * each) - int(window * each)
        return random.Random(f"{self.seed}/embeddings only/{window}").sample(range(self._window), count)


@dataclass(frozen=True)
class Turn:
    """How a micro-batch counts: `off` without the network; `weight` of its mean loss, `embedding_factor` of the
    gradient that its loss gives the embeddings."""

    off: bool = False
    weight: float = 1.0
    embedding_factor: float = 1.0


def turns(off: Sequence[bool], sizes: Sequence[int], *, gradient_factor: float) -> list[Turn]:
    """How each micro-batch of a step counts, so that every gradient is a mean over the samples that gave it.

    The loop takes Σ losses / all samples. The network's gradient must be the mean over the samples that saw it, the
    embeddings' over all samples, those with the network times f = `gradient_factor`; with f = 0, over the others.
    """
    total = sum(sizes)
    without = sum(size for size, is_off in zip(sizes, off, strict=True) if is_off)
    if not without:
        return [Turn(embedding_factor=gradient_factor)] * len(sizes)
    weight_off = total / without if gradient_factor == 0 else 1.0
    seen = total - without
    on = Turn(False, total / seen, gradient_factor * seen / total) if seen else Turn()
    return [Turn(True, weight_off) if is_off else on for is_off in off]


def with_gradient_times(embeddings: EmbeddingVectors, factor: float) -> EmbeddingVectors:
    """The same values, through which a loss reaches the embeddings `factor` times; at 0 it does not reach them."""

    def scaled(vectors: Tensor) -> Tensor:
        if factor == 0 or not vectors.requires_grad:
            return vectors.detach()
        passed = vectors.view_as(vectors)
        passed.register_hook(lambda gradient: gradient * factor)
        return passed

    if factor == 1:
        return embeddings
    return {name: tuple(scaled(vectors) for vectors in towers) for name, towers in embeddings.items()}
