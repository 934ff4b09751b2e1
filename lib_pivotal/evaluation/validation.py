"""The validation loss: squared error at fixed noise and fixed timesteps, whatever loss a run trains with.

Weighting, masks, Huber, noise offset and input perturbation are left out: a weighting moves the loss where nothing else
moves, and so the numbers of runs with different settings can be compared. The objective that is handed in says so; the
timesteps are spread over the run's own range, one in each of as many strata, and drawn by position like the noise: of
picture i at noise level k, the same at every validation, in every run and on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lib_pivotal.ports import EmbeddingVectors, TrainingBatch
from lib_pivotal.training.seeds import derived_generator
from lib_pivotal.training.step import MicroStep, joined

_SEEDS = (7_041_776, 1)


@dataclass(frozen=True)
class _Sample:
    """One picture at one noise level: `index` in the results, `draw` what its noise is drawn by."""

    picture: TrainingBatch
    index: int
    draw: int
    timestep: int


@torch.no_grad()
def picture_losses(
    micro_step: MicroStep,
    pictures: Sequence[TrainingBatch],
    embeddings: EmbeddingVectors,
    *,
    noise_levels: int,
    timesteps: tuple[int, int],
    at_once: int,
) -> list[float]:
    """The mean loss of each picture (a batch of one) over its noise levels, with all that is switched on.

    `timesteps` are the lowest one and the one above the highest. `at_once` samples go through the model together, of
    pictures of the same size.
    """
    totals = [0.0] * len(pictures)
    for chunk in _chunks(_samples(pictures, noise_levels, timesteps), at_once):
        losses = micro_step.losses(
            joined([sample.picture for sample in chunk]),
            embeddings,
            seeds=_SEEDS,
            samples=[sample.draw for sample in chunk],
            timesteps=torch.tensor([sample.timestep for sample in chunk]),
        )
        for sample, loss in zip(chunk, losses.tolist(), strict=True):
            totals[sample.index] += loss / noise_levels
    return totals


def _samples(pictures: Sequence[TrainingBatch], levels: int, timesteps: tuple[int, int]) -> list[_Sample]:
    return [
        _Sample(picture, index, index * levels + level, stratum_timestep(index, level, levels, timesteps))
        for index, picture in enumerate(pictures)
        for level in range(levels)
    ]


def stratum_timestep(index: int, level: int, levels: int, timesteps: tuple[int, int]) -> int:
    """The timestep of picture `index` in stratum `level` of `levels`: low + (level + u) / levels · (high - low)."""
    low, high = timesteps
    drawn = float(torch.rand((), generator=derived_generator("validation", index, level), dtype=torch.float64))
    return min(high - 1, low + int((level + drawn) / levels * (high - low)))


def _chunks(samples: Sequence[_Sample], size: int) -> list[list[_Sample]]:
    """Samples of one size together, up to `size`, in order."""
    by_shape: dict[torch.Size, list[_Sample]] = {}
    for sample in samples:
        by_shape.setdefault(sample.picture.latents.shape, []).append(sample)
    return [group[at : at + size] for group in by_shape.values() for at in range(0, len(group), size)]
