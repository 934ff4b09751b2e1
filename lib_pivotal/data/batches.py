"""Batches for the training step: latents from the cache, captions as strings, everything fixed by seed and position."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from lib_pivotal.data.caption_chain import Captions, TrainingTime
from lib_pivotal.data.captions import EmbeddingFinder
from lib_pivotal.data.crops import phrase
from lib_pivotal.data.latents import CachedLatents, LatentCache
from lib_pivotal.data.records import Picture
from lib_pivotal.data.sampler import Sampler
from lib_pivotal.errors import DataError
from lib_pivotal.ports import TrainingBatch

LatentChoice = Literal["draw", "mean"]
"""`draw`: mean + std·noise, new at each draw; `mean`."""


@dataclass(frozen=True)
class Draw:
    """One picture's turn. `index` counts all draws of the run: seed per-picture noise with it, and neither the number
    of processes nor the size of micro-batches changes what is learned."""

    index: int
    key: str
    flip: bool
    view: int = 0


class BatchSource:
    """Training batches by random access, `batch(step, micro)`: there is no position to save.

    A step has `accumulation` groups of `batch_size` pictures, each group of one bucket. `batch_size` is that of all
    processes together: process `rank` of `world_size` gets its own slice of each group.
    """

    def __init__(
        self,
        cache: LatentCache,
        pictures: Sequence[Picture],
        captions: Captions,
        *,
        batch_size: int = 1,
        accumulation: int = 1,
        embeddings: Collection[str] = (),
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        latents: LatentChoice = "draw",
        sampling_weights: Mapping[str, float] | None = None,
        loss_weights: Mapping[str, float] | None = None,
        unmasked: float = 0.0,
    ) -> None:
        """`pictures` carry the captions; those whose latents are not in the cache are left out.

        `embeddings` are looked for in the final captions; `sampling_weights` (by key, missing = 0) replace repeats;
        `loss_weights` (by key, missing = 1) weigh the loss; `unmasked` is the chance that a draw's mask is left out.
        """
        ready = {picture.key for picture in cache.pictures}
        self._pictures = [picture for picture in pictures if picture.key in ready]
        if not self._pictures:
            raise DataError("no picture is ready for training. Build the latent cache first.")
        if batch_size < 1 or accumulation < 1:
            raise DataError(f"batch_size = {batch_size}, accumulation = {accumulation}: both are 1 or more.")
        if not 0 <= rank < world_size:
            raise DataError(f"rank = {rank} of {world_size} processes: ranks go from 0 to {world_size - 1}.")
        if batch_size % world_size:
            raise DataError(
                f"batch_size = {batch_size} cannot be shared among {world_size} processes. "
                f"Use a multiple of {world_size}."
            )
        self._cache, self._captions = cache, captions
        self._by_key = {picture.key: picture for picture in self._pictures}
        self._batch_size, self._accumulation = batch_size, accumulation
        self._rank, self._world_size = rank, world_size
        self._seed, self._latents = seed, latents
        self._loss_weights, self._unmasked = dict(loss_weights or {}), unmasked
        self._find_embeddings = EmbeddingFinder(embeddings)
        self._rates = self._rates_from(sampling_weights)
        self._buckets = [_bucket_name(cache, picture.key) for picture in self._pictures]
        self._sampler = Sampler(self._buckets, self._rates, batch_size=batch_size, seed=seed)

    # -- how long things are

    @property
    def micro_batches(self) -> int:
        """Micro-batches a step."""
        return self._accumulation

    @property
    def pictures_per_step(self) -> int:
        """Pictures in a step, of all processes together."""
        return self._batch_size * self._accumulation

    # -- batches

    def draws(self, step: int, micro: int = 0) -> list[Draw]:
        """The draws of this process's micro-batch `micro` of step `step`."""
        if step < 0 or not 0 <= micro < self.micro_batches:
            raise DataError(
                f"step {step}, micro-batch {micro}: steps count from 0, micro-batches to {self.micro_batches - 1}."
            )
        group = step * self._accumulation + micro
        share = self._batch_size // self._world_size
        items = self._sampler.group(group)
        return [
            self._draw(group * self._batch_size + slot, self._pictures[items[slot]].key)
            for slot in range(self._rank * share, (self._rank + 1) * share)
        ]

    def batch(self, step: int, micro: int = 0) -> TrainingBatch:
        """The micro-batch `micro` of step `step`: the same for the same seed and data, whatever was asked before."""
        draws = self.draws(step, micro)
        entries = [self._cache.get(draw.key, view=draw.view, flip=draw.flip) for draw in draws]
        pictures = [self._by_key[draw.key] for draw in draws]
        captions = [self._caption(picture, draw) for picture, draw in zip(pictures, draws, strict=True)]
        return TrainingBatch(
            latents=torch.stack([self._latent(entry, draw) for entry, draw in zip(entries, draws, strict=True)]),
            captions=captions,
            mask=_stack_masks([self._mask(entry, draw) for entry, draw in zip(entries, draws, strict=True)], entries),
            weights=torch.tensor([self._loss_weights.get(draw.key, 1.0) for draw in draws]),
            keys=[draw.key for draw in draws],
            embeddings=[self._find_embeddings(caption) for caption in captions],
            sizes=torch.tensor([self._cache.sizes(draw.key, view=draw.view, flip=draw.flip) for draw in draws]),
            inpaint=_stack(entry.inpaint for entry in entries),
        )

    # -- parts of a batch

    def _rates_from(self, sampling_weights: Mapping[str, float] | None) -> list[float]:
        if sampling_weights is None:
            return [float(picture.repeats) for picture in self._pictures]
        weights = [float(sampling_weights.get(picture.key, 0.0)) for picture in self._pictures]
        total = sum(weights)
        if not total > 0:
            raise DataError(
                "sampling_weights: no picture has a weight above 0. Their names must be the pictures' keys."
            )
        return [weight * len(weights) / total for weight in weights]  # an epoch is as many draws as pictures

    def _draw(self, index: int, key: str) -> Draw:
        flip = self._cache.flips(key) and seed_of(f"{self._seed}/flip/{index}") % 2 == 1
        views = len(self._cache.views(key))
        view = seed_of(f"{self._seed}/view/{index}") % views if views > 1 else 0
        return Draw(index=index, key=key, flip=flip, view=view)

    def _caption(self, picture: Picture, draw: Draw) -> str:
        """With a phrase in front where the picture was made small or large; one that was left out stays out."""
        rng = random.Random(f"{self._seed}/caption/{draw.index}")
        moment = TrainingTime(
            step=draw.index // self.pictures_per_step, epoch=int(draw.index / self._sampler.samples_per_epoch)
        )
        distance = self._cache.views(draw.key)[draw.view].distance
        opening = partial(phrase, distance) if distance else None
        return self._captions.draw(picture, rng=rng, moment=moment, opening=opening)

    def _mask(self, entry: CachedLatents, draw: Draw) -> Tensor | None:
        """The draw's mask, or none by chance; a border that is no picture never counts."""
        if self._unmasked > 0 and self._cache.placement(draw.key, draw.view).covers:
            left_out = random.Random(f"{self._seed}/unmasked/{draw.index}").random() < self._unmasked
            return None if left_out else entry.mask
        return entry.mask

    def _latent(self, entry: CachedLatents, draw: Draw) -> Tensor:
        mean = entry.mean.float()
        if self._latents == "mean":
            return mean
        generator = torch.Generator().manual_seed(seed_of(f"{self._seed}/latent/{draw.index}"))
        noise = torch.randn(mean.shape, generator=generator)
        return mean + entry.std.float() * noise


def seed_of(name: str) -> int:
    """A seed for a torch.Generator from a name: equal on every machine, unlike `hash`."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") >> 1


def _bucket_name(cache: LatentCache, key: str) -> str:
    bucket = cache.placement(key).bucket
    return f"{bucket.width_px:05d}x{bucket.height_px:05d}"


def _stack_masks(masks: Sequence[Tensor | None], entries: Sequence[CachedLatents]) -> Tensor | None:
    """Masks of a batch; a picture without one counts fully; None if no picture has one."""
    if all(mask is None for mask in masks):
        return None
    whole = torch.ones_like(entries[0].mean[:1]).float()
    return torch.stack([whole if mask is None else mask.float() for mask in masks])


def _stack(tensors: Iterable[Tensor | None]) -> Tensor | None:
    """One tensor of all, or None where there are none."""
    found = [tensor for tensor in tensors if tensor is not None]
    return torch.stack(found) if found else None
