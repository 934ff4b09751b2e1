"""What tells the steps of a run apart without looking at a picture: drift, obedience of other tags; and diversity.

All at fixed noise and timesteps, so that steps can be compared. The network must be attached.

    obedience = (L(swapped) - L(own)) / L(own)

L(own) is the loss of pictures under their own captions, L(swapped) under captions that keep the embedding and take all
other tags from another picture. A model that listens to them loses by the swap; one in which the embedding has
swallowed them does not notice.

    drift = sum |e_on - e_off|^2 / sum |e_off|^2

e is the prediction on pure noise under captions without the run's embeddings, with the network on and off: how far the
network has moved what has nothing to do with what was trained.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from lib_pivotal.data.captions import EmbeddingFinder
from lib_pivotal.evaluation.separation import TIMESTEPS
from lib_pivotal.networks.network import Network
from lib_pivotal.ports import EmbeddingVectors, TrainingBatch
from lib_pivotal.training.seeds import derived_generator
from lib_pivotal.training.step import MicroStep

_SEEDS = (9_115_020, 0)


@torch.no_grad()
def obedience(micro_step: MicroStep, batches: Sequence[TrainingBatch], embeddings: EmbeddingVectors) -> float | None:
    """By how much the loss rises under swapped captions, as a share of it; None where no caption can be swapped."""
    own = [caption for batch in batches for caption in batch.captions]
    swapped = swapped_captions(own, list(embeddings))
    if swapped == own:
        return None
    before, after, place = 0.0, 0.0, 0
    for batch in batches:
        others = swapped[place : place + len(batch.captions)]
        place += len(batch.captions)
        before += _loss(micro_step, batch, embeddings)
        after += _loss(micro_step, replace(batch, captions=others), embeddings)
    return (after - before) / before if before > 0 else None


@torch.no_grad()
def drift(micro_step: MicroStep, batches: Sequence[TrainingBatch], network: Network | None) -> float:
    """The relative change of predictions that should not change; 0 without a network."""
    if network is None:
        return 0.0
    names = [name for batch in batches for found in batch.embeddings for name in found]
    changed, whole = 0.0, 0.0
    for number, batch in enumerate(batches):
        plain = replace(batch, captions=[", ".join(other_tags(caption, names)) for caption in batch.captions])
        generator = derived_generator("noise", *_SEEDS, number)
        noise = torch.randn(batch.latents.shape, generator=generator)
        for timestep in TIMESTEPS:
            on = micro_step.predictions(plain, noise, timestep)
            with network.with_multipliers(unet=0.0, te=0.0):
                off = micro_step.predictions(plain, noise, timestep)
            changed += float((on - off).square().sum())
            whole += float(off.square().sum())
    return changed / whole if whole else 0.0


def diversity(pictures: Sequence[Image.Image]) -> float | None:
    """Of pictures of one prompt and several seeds: the root mean square difference of two, as a share of white; None
    of fewer than two."""
    arrays = [np.asarray(picture.convert("RGB"), np.float32) / 255 for picture in pictures]
    pairs = list(itertools.combinations(arrays, 2))
    return statistics.fmean(float(np.sqrt(np.mean((a - b) ** 2))) for a, b in pairs) if pairs else None


def swapped_captions(captions: Sequence[str], names: Sequence[str]) -> list[str]:
    """Each caption with its own embeddings and the other tags of the next caption that has others.

    >>> swapped_captions(["aoi, park, smile", "aoi, sea"], ["aoi"])
    ['aoi, sea', 'aoi, park, smile']
    """
    find, others = EmbeddingFinder(names), [other_tags(caption, names) for caption in captions]
    found = []
    for place, caption in enumerate(captions):
        behind = [others[(place + step) % len(captions)] for step in range(1, len(captions))]
        tags = next((tags for tags in behind if tags != others[place]), None)
        found.append(caption if tags is None else ", ".join([*find(caption), *tags]))
    return found


def other_tags(caption: str, names: Sequence[str]) -> list[str]:
    """The tags of a caption that name no embedding."""
    find = EmbeddingFinder(names)
    return [tag.strip() for tag in caption.split(",") if tag.strip() and not find(tag)]


def _loss(micro_step: MicroStep, batch: TrainingBatch, embeddings: EmbeddingVectors) -> float:
    size = batch.latents.shape[0]
    timesteps = (torch.full((size,), timestep) for timestep in TIMESTEPS)
    return sum(float(micro_step.losses(batch, embeddings, seeds=_SEEDS, timesteps=one).sum()) for one in timesteps)
