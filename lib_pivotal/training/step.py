"""One micro-batch: captions to conditioning, noise, the U-Net, and one loss a sample.

No backward, no optimiser, no logging here: the loop and the separation score both use this, so that they measure the
same thing.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lib_pivotal.ports import Denoiser, TextEncoder, TrainingBatch, WordVectors
from lib_pivotal.training.noise import make_noise, perturb_noise
from lib_pivotal.training.objective import Objective
from lib_pivotal.training.schedule import NoiseSchedule, append_dims
from lib_pivotal.training.seeds import derived_generator


@dataclass(frozen=True)
class NoiseSettings:
    """How a sample is made noisy; see `noise.py` and `schedule.py` for the formulas."""

    offset: float = 0.0
    multires_iterations: int = 0
    multires_discount: float = 0.3
    perturbation: float = 0.0
    timestep_min: int = 0
    timestep_max: int = 1000


@dataclass(frozen=True, eq=False)
class NoisyBatch:
    """`noisy`, `noise` `(batch, 4, h, w)` and `timesteps` `(batch,)`, on the device of the latents."""

    noisy: Tensor
    noise: Tensor
    timesteps: Tensor


class MicroStep:
    """The forward half of a training step.

    `autocast_dtype` is the arithmetic of the frozen model (None = as the weights are). The loss is computed in fp32.
    `network_off` switches what is trained in the model's layers off for a while; prior targets are made so.
    `mask_prior` weighs a second loss outside the masks, towards what the checkpoint itself predicts.
    """

    def __init__(
        self,
        text: TextEncoder,
        denoiser: Denoiser,
        *,
        schedule: NoiseSchedule,
        objective: Objective,
        noise: NoiseSettings,
        device: torch.device,
        autocast_dtype: torch.dtype | None = None,
        network_off: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
        mask_prior: float = 0.0,
    ) -> None:
        self._text = text
        self._denoiser = denoiser
        self._schedule = schedule
        self._objective = objective
        self._noise = noise
        self._device = device
        self._autocast_dtype = autocast_dtype
        self._network_off = network_off
        self._mask_prior = mask_prior

    def draw_noise(self, latents: Tensor, *, seeds: tuple[int, int], first_sample: int) -> NoisyBatch:
        """Noise and timesteps of each sample from its own generator: (seed, step) and its index in the step.

        Sample i of the micro-batch has index `first_sample + i`.
        """
        settings = self._noise
        generators = [derived_generator("noise", *seeds, first_sample + index) for index in range(latents.shape[0])]
        timesteps = self._schedule.sample_timesteps(
            latents.shape[0], minimum=settings.timestep_min, maximum=settings.timestep_max, generator=generators
        ).to(latents.device)
        noise = make_noise(
            latents,
            generator=generators,
            offset=settings.offset,
            multires_iterations=settings.multires_iterations,
            multires_discount=settings.multires_discount,
        )
        perturbed = perturb_noise(noise, gamma=settings.perturbation, generator=generators)
        return NoisyBatch(self._schedule.add_noise(latents, perturbed, timesteps), noise, timesteps)

    def losses(
        self,
        batch: TrainingBatch,
        words: WordVectors,
        *,
        seeds: tuple[int, int],
        first_sample: int = 0,
        timesteps: Tensor | None = None,
    ) -> Tensor:
        """Loss of each sample, `(batch,)` fp32, differentiable in words and network.

        `timesteps` overrides the drawn ones (the separation score compares parts at fixed timesteps).
        """
        latents = batch.latents.to(self._device, torch.float32)
        drawn = self.draw_noise(latents, seeds=seeds, first_sample=first_sample)
        if timesteps is not None:
            timesteps = timesteps.to(self._device)
            drawn = NoisyBatch(self._schedule.add_noise(latents, drawn.noise, timesteps), drawn.noise, timesteps)
        mask = None if batch.mask is None else batch.mask.to(self._device, torch.float32)
        rest = None if mask is None or batch.prior or self._mask_prior == 0 else outside(mask)
        prior = self._prior(batch, drawn) if batch.prior or (rest is not None and bool(rest.any())) else None
        prediction = self._predict(batch, drawn, words).float()
        if prior is not None and batch.prior:
            target = prior
        else:
            target = self._schedule.target(latents, drawn.noise, drawn.timesteps)
        weights = batch.weights.to(self._device)

        def loss(target: Tensor, mask: Tensor | None) -> Tensor:
            return self._objective(prediction, target, drawn.timesteps, self._schedule, mask=mask, weights=weights)

        total = loss(target, mask)
        if rest is not None and prior is not None:
            total = total + self._mask_prior * loss(prior, rest)
        return total

    def _predict(self, batch: TrainingBatch, drawn: NoisyBatch, words: WordVectors) -> Tensor:
        with self.autocast():
            conditioning = self._text.encode(batch.captions, words)
            if batch.sizes is not None:
                conditioning = replace(conditioning, sizes=batch.sizes.to(self._device))
            if batch.inpaint is not None:
                conditioning = replace(conditioning, concat=batch.inpaint.to(self._device))
            return self._denoiser(drawn.noisy, drawn.timesteps, conditioning)

    def _prior(self, batch: TrainingBatch, drawn: NoisyBatch) -> Tensor:
        """What the checkpoint itself predicts at the same noise: no network, no words, no gradient.

        OneTrainer's prior prediction (modules/trainer/GenericTrainer.py, 23df383) and ai-toolkit's differential output
        preservation (extensions_built_in/sd_trainer/SDTrainer.py, 27a03a9).
        """
        with torch.no_grad(), self._network_off():
            return self._predict(batch, drawn, {}).float()

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The arithmetic of the frozen model, for everything inside."""
        if self._autocast_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, dtype=self._autocast_dtype)


def outside(mask: Tensor) -> Tensor:
    """What `(batch, 1, h, w)` masks leave out, as parts of 1: 0 where a mask is highest, 1 where it is 0.

    OneTrainer's `masked_losses_with_prior` (modules/util/loss/masked_loss.py, 23df383) takes 1 - mask; by the highest
    value it is the same for masks with white in them, and masks scaled to a mean of 1 need no undoing.
    """
    highest = mask.flatten(1).amax(1).clamp(min=torch.finfo(mask.dtype).tiny)
    return 1 - mask / append_dims(highest, mask.ndim)


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
        words=batch.words[part],
        sizes=None if batch.sizes is None else batch.sizes[part],
        inpaint=None if batch.inpaint is None else batch.inpaint[part],
        name=batch.name,
        again=batch.again,
        prior=batch.prior,
    )


def sample_count(batches: Sequence[TrainingBatch]) -> int:
    """Samples in a list of micro-batches."""
    return sum(batch.latents.shape[0] for batch in batches)
