"""One micro-batch: captions to conditioning, the U-Net, and one loss a sample (`objective.py`).

No backward, no optimiser, no logging here: the loop and the separation score both use this, so that they measure the
same thing.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from lib_pivotal.ports import Denoiser, EmbeddingVectors, TextEncoder, TrainingBatch
from lib_pivotal.training.objective import Objective
from lib_pivotal.training.schedule import NoiseSchedule
from lib_pivotal.training.seeds import derived_generator


class MicroStep:
    """The forward half of a training step.

    `autocast_dtype` is the arithmetic of the frozen model (None = as the weights are). The loss is computed in fp32.
    `network_off` switches what is trained in the model's layers off for a while; prior targets are made so.
    """

    def __init__(
        self,
        text: TextEncoder,
        denoiser: Denoiser,
        *,
        schedule: NoiseSchedule,
        objective: Objective,
        device: torch.device,
        autocast_dtype: torch.dtype | None = None,
        network_off: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
    ) -> None:
        self._text = text
        self._denoiser = denoiser
        self.schedule = schedule
        self.objective = objective
        self._device = device
        self._autocast_dtype = autocast_dtype
        self._network_off = network_off

    def losses(
        self,
        batch: TrainingBatch,
        embeddings: EmbeddingVectors,
        *,
        seeds: tuple[int, int],
        first_sample: int = 0,
        samples: Sequence[int] | None = None,
        timesteps: Tensor | None = None,
        against_reference: bool = False,
    ) -> Tensor:
        """Loss of each sample, `(batch,)` fp32, differentiable in words and network.

        Each sample draws from its own generator: (seed, step) and its index in the step; sample i of the micro-batch
        has index `first_sample + i`, or `samples[i]`. `timesteps` overrides the drawn ones (the separation score
        compares parts at fixed timesteps). `against_reference` compares with the network switched off where the
        objective does so (DCO).
        """
        count = batch.latents.shape[0]
        indices = range(first_sample, first_sample + count) if samples is None else samples
        latents = batch.latents.to(self._device, torch.float32)
        return self.objective.losses(
            partial(self._predict, batch, embeddings),
            latents,
            schedule=self.schedule,
            generators=[derived_generator("noise", *seeds, index) for index in indices],
            prior=partial(self._without_network, batch, {}),
            reference=partial(self._without_network, batch, embeddings) if against_reference else None,
            towards_prior=batch.prior,
            mask=None if batch.mask is None else batch.mask.to(self._device, torch.float32),
            weights=batch.weights.to(self._device),
            timesteps=None if timesteps is None else timesteps.to(self._device),
        )

    @torch.no_grad()
    def predictions(self, batch: TrainingBatch, noisy: Tensor, timestep: int) -> Tensor:
        """What the U-Net predicts of `noisy` `(batch, 4, h, w)` at one timestep under the batch's captions, in which no
        embedding is looked for; fp32."""
        timesteps = torch.full((noisy.shape[0],), timestep, device=self._device)
        return self._predict(batch, {}, noisy.to(self._device, torch.float32), timesteps).float()

    def timesteps(self, samples: Sequence[int], *, seeds: tuple[int, int]) -> Tensor:
        """The timesteps that `losses` draws for these samples, `(samples,)`: the first draw of each one's generator."""
        generators = [derived_generator("noise", *seeds, index) for index in samples]
        return self.objective.draw_timesteps(len(samples), schedule=self.schedule, generators=generators)

    def _predict(self, batch: TrainingBatch, embeddings: EmbeddingVectors, noisy: Tensor, timesteps: Tensor) -> Tensor:
        with self.autocast():
            conditioning = self._text.encode(batch.captions, embeddings)
            if batch.sizes is not None:
                conditioning = replace(conditioning, sizes=batch.sizes.to(self._device))
            if batch.inpaint is not None:
                conditioning = replace(conditioning, concat=batch.inpaint.to(self._device))
            return self._denoiser(noisy, timesteps, conditioning)

    def _without_network(
        self, batch: TrainingBatch, embeddings: EmbeddingVectors, noisy: Tensor, timesteps: Tensor
    ) -> Tensor:
        """What is predicted at the same noise without the network and without gradient; with no embeddings it is what
        the checkpoint itself predicts.

        The latter is OneTrainer's prior prediction (modules/trainer/GenericTrainer.py, 23df383) and ai-toolkit's
        differential output preservation (extensions_built_in/sd_trainer/SDTrainer.py, 27a03a9).
        """
        with torch.no_grad(), self._network_off():
            return self._predict(batch, embeddings, noisy, timesteps).float()

    @contextlib.contextmanager
    def frozen_text(self) -> Iterator[None]:
        """Inside, prompts are encoded as the checkpoint does it, with nothing that is trained in its layers."""
        with self.autocast(), self._network_off():
            yield

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The arithmetic of the frozen model, for everything inside."""
        if self._autocast_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, dtype=self._autocast_dtype)


def split_batch(batch: TrainingBatch, parts: int) -> list[TrainingBatch]:
    """The batch in up to `parts` pieces of nearly equal size, in order; fewer where there are fewer samples."""
    return [select(batch, piece) for piece in split_places(range(batch.latents.shape[0]), parts)]


def split_places(places: Sequence[int], parts: int) -> list[Sequence[int]]:
    """Places in a batch in up to `parts` pieces, as `split_batch`."""
    count = len(places)
    parts = min(parts, count)
    edges = [round(index * count / parts) for index in range(parts + 1)]
    return [places[start:end] for start, end in itertools.pairwise(edges)]


def select(batch: TrainingBatch, places: Sequence[int]) -> TrainingBatch:
    """The samples of a batch at these places."""
    part = list(places)
    return TrainingBatch(
        latents=batch.latents[part],
        captions=[batch.captions[place] for place in part],
        mask=None if batch.mask is None else batch.mask[part],
        weights=batch.weights[part],
        keys=[batch.keys[place] for place in part],
        embeddings=[batch.embeddings[place] for place in part] if batch.embeddings else [],
        sizes=None if batch.sizes is None else batch.sizes[part],
        inpaint=None if batch.inpaint is None else batch.inpaint[part],
        name=batch.name,
        again=batch.again,
        prior=batch.prior,
    )


def joined(batches: Sequence[TrainingBatch]) -> TrainingBatch:
    """Batches of one size without masks as one, in order."""
    first = batches[0]
    return TrainingBatch(
        latents=torch.cat([batch.latents for batch in batches]),
        captions=[caption for batch in batches for caption in batch.captions],
        mask=None,
        weights=torch.cat([batch.weights for batch in batches]),
        keys=[key for batch in batches for key in batch.keys],
        embeddings=[names for batch in batches for names in batch.embeddings],
        sizes=None if first.sizes is None else torch.cat([b.sizes for b in batches if b.sizes is not None]),
        inpaint=None if first.inpaint is None else torch.cat([b.inpaint for b in batches if b.inpaint is not None]),
    )


def sample_count(batches: Sequence[TrainingBatch]) -> int:
    """Samples in a list of micro-batches."""
    return sum(batch.latents.shape[0] for batch in batches)
