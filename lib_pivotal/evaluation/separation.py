"""The separation score: how much of what was learnt sits in the embeddings, measured without making a picture.

On held-out pictures, at fixed noise and timesteps, the loss is measured with each part switched off. With L_base the
loss of the checkpoint with the embeddings as they began and no network:

    share of the embeddings = (L_base - L_words) / (L_base - L_whole)

1 means that the embeddings alone explain all that the whole bundle does; 0 that all of it sits in the network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache

import torch

from lib_pivotal.networks.network import Network
from lib_pivotal.ports import EmbeddingVectors, TrainingBatch
from lib_pivotal.training.step import MicroStep

TIMESTEPS = (100, 300, 500, 700, 900)
_SEEDS = (7_041_776, 0)
SMALLEST_GAIN = 1e-6


@dataclass(frozen=True)
class PartLosses:
    """Mean held-out losses of one embedding's pictures with parts on and off."""

    whole: float
    unet: float
    te: float
    embeddings: float
    base: float

    @property
    def share_of_embeddings(self) -> float:
        """(base - embeddings) / (base - whole); NaN while nothing was learnt."""
        gain = self.base - self.whole
        return (self.base - self.embeddings) / gain if gain > SMALLEST_GAIN else math.nan


@torch.no_grad()
def separation(
    micro_step: MicroStep,
    held_out: Mapping[str, Sequence[TrainingBatch]],
    *,
    embeddings: EmbeddingVectors,
    initial_embeddings: EmbeddingVectors,
    network: Network | None,
    timesteps: Sequence[int] = TIMESTEPS,
    base: Mapping[str, float] | None = None,
) -> dict[str, PartLosses]:
    """Losses by embedding; `held_out` has the batches of each embedding's pictures, with their captions as trained.

    The network must be attached; its multipliers are put back afterwards. `base` are the base losses where they are
    known (`embeddings_alone` of the initial ones): they stay the same through a run. What a network does not have is
    measured once: without layers of the text encoder, "U-Net only" is the whole.
    """
    parts = frozenset() if network is None else network.parts
    has_unet, has_te = "unet" in parts, bool(parts & {"te", "te2"})
    if base is None:
        base = embeddings_alone(
            micro_step, held_out, embeddings=initial_embeddings, network=network, timesteps=timesteps
        )

    def part_losses(batches: Sequence[TrainingBatch], base_loss: float) -> PartLosses:
        @cache
        def loss(unet: bool, te: bool) -> float:
            with nullcontext() if network is None else network.with_multipliers(unet=float(unet), te=float(te)):
                return _mean_loss(micro_step, batches, embeddings, timesteps)

        return PartLosses(
            whole=loss(has_unet, has_te),
            unet=loss(has_unet, False),
            te=loss(False, has_te),
            embeddings=loss(False, False),
            base=base_loss,
        )

    return {name: part_losses(batches, base[name]) for name, batches in held_out.items()}


@torch.no_grad()
def embeddings_alone(
    micro_step: MicroStep,
    held_out: Mapping[str, Sequence[TrainingBatch]],
    *,
    embeddings: EmbeddingVectors,
    network: Network | None,
    timesteps: Sequence[int] = TIMESTEPS,
) -> dict[str, float]:
    """The held-out loss of each embedding without the network: `PartLosses.embeddings` alone, a fifth of the work."""
    with nullcontext() if network is None else network.with_multipliers(unet=0.0, te=0.0):
        return {name: _mean_loss(micro_step, batches, embeddings, timesteps) for name, batches in held_out.items()}


def _mean_loss(
    micro_step: MicroStep, batches: Sequence[TrainingBatch], vectors: EmbeddingVectors, timesteps: Sequence[int]
) -> float:
    total, count = 0.0, 0
    for batch in batches:
        size = batch.latents.shape[0]
        for timestep in timesteps:
            losses = micro_step.losses(batch, vectors, seeds=_SEEDS, timesteps=torch.full((size,), timestep))
            total += float(losses.sum())
            count += size
    return total / max(count, 1)
