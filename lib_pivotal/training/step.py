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
        timesteps: Tensor | None = None,
    ) -> Tensor:
        """Loss of each sample, `(batch,)` fp32, differentiable in words and network.

        Each sample draws from its own generator: (seed, step) and its index in the step; sample i of the micro-batch
        has index `first_sample + i`. `timesteps` overrides the drawn ones (the separation score compares parts at
        fixed timesteps).
        """
        latents = batch.latents.to(self._device, torch.float32)
        return self.objective.losses(
            partial(self._predict, batch, embeddings),
            latents,
            schedule=self.schedule,
            generators=[derived_generator("noise", *seeds, first_sample + i) for i in range(latents.shape[0])],
            prior=partial(self._prior, batch),
            towards_prior=batch.prior,
            mask=None if batch.mask is None else batch.mask.to(self._device, torch.float32),
            weights=batch.weights.to(self._device),
            timesteps=None if timesteps is None else timesteps.to(self._device),
        )

    def _predict(self, batch: TrainingBatch, embeddings: EmbeddingVectors, noisy: Tensor, timesteps: Tensor) -> Tensor:
        with self.autocast():
            conditioning = self._text.encode(batch.captions, embeddings)
            if batch.sizes is not None:
                conditioning = replace(conditioning, sizes=batch.sizes.to(self._device))
            if batch.inpaint is not None:
                conditioning = replace(conditioning, concat=batch.inpaint.to(self._device))
            return self._denoiser(noisy, timesteps, conditioning)

    def _prior(self, batch: TrainingBatch, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """What the checkpoint itself predicts at the same noise: no network, no embeddings, no gradient.

        OneTrainer's prior prediction (modules/trainer/GenericTrainer.py, 23df383) and ai-toolkit's differential output
        preservation (extensions_built_in/sd_trainer/SDTrainer.py, 27a03a9).
        """
        with torch.no_grad(), self._network_off():
            return self._predict(batch, {}, noisy, timesteps).float()

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
    count = batch.latents.shape[0]
    parts = min(parts, count)
    edges = [round(index * count / parts) for index in range(parts + 1)]
    return [_slice(batch, slice(start, end)) for start, end in itertools.pairwise(edges)]


def _slice(batch: TrainingBatch, part: slice) -> TrainingBatch:
    return TrainingBatch(
        latents=batch.latents[part],
        captions=batch.captions[part],
        mask=None if batch.mask is None else batch.mask[part],
        weights=batch.weights[part],
        keys=batch.keys[part],
        embeddings=batch.embeddings[part],
        sizes=None if batch.sizes is None else batch.sizes[part],
        inpaint=None if batch.inpaint is None else batch.inpaint[part],
        name=batch.name,
        again=batch.again,
        prior=batch.prior,
    )


def sample_count(batches: Sequence[TrainingBatch]) -> int:
    """Samples in a list of micro-batches."""
    return sum(batch.latents.shape[0] for batch in batches)
