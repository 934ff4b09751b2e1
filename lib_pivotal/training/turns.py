"""Turns: the samples of a step that are computed alike, with the network or without it, and how each of them counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from lib_pivotal.ports import EmbeddingVectors


@dataclass(frozen=True)
class Turn:
    """Samples of the micro-batch `micro`, at `places` in it. `off`: without the network, so that only embeddings learn.

    `weight` multiplies their part of the step's mean loss, `embedding_factor` the gradient that the embeddings get of
    it.
    """

    micro: int
    places: Sequence[int]
    off: bool = False
    weight: float = 1.0
    embedding_factor: float = 1.0


def turns_of(micro: int, off: Sequence[bool]) -> list[Turn]:
    """The turns of one micro-batch: its samples with the network, then those without."""
    both = ([place for place, is_off in enumerate(off) if is_off == wanted] for wanted in (False, True))
    return [Turn(micro, places, bool(index)) for index, places in enumerate(both) if places]


def weighed(turns: Sequence[Turn], *, total: float, without: float, gradient_factor: float = 1.0) -> list[Turn]:
    """How each turn counts, so that every gradient is a mean over the samples that gave it.

    The loop takes Σ losses / `total`, all samples of the step, of which `without` are off (of all processes). The
    network's gradient must be the mean over the samples that saw it; the embeddings' over all samples, those with the
    network times f = `gradient_factor`, or with f = 0 over the others.
    """
    if not without:
        return [replace(turn, embedding_factor=gradient_factor) for turn in turns]
    seen = total - without
    off = total / without if gradient_factor == 0 else 1.0
    return [
        replace(turn, weight=off)
        if turn.off
        else replace(turn, weight=total / seen, embedding_factor=gradient_factor * seen / total)
        for turn in turns
    ]


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
