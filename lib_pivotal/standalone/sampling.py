"""Sampling as the web UI does it: sigmas, the model wrapper, guidance, and noise from each picture's own seed.

Sigma schedule and Euler steps follow k-diffusion (https://github.com/crowsonkb/k-diffusion/tree/ab527a9a) and Karras et
al. 2022; guidance and seeds follow the web UI v1.10.1 (`sd_samplers_cfg_denoiser.py`, `rng.py` with the CPU as
source): a picture depends on its own seed only, never on its neighbours in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from lib_pivotal.errors import HostError
from lib_pivotal.ports import Conditioning
from lib_pivotal.training.schedule import SMALLEST_ALPHA_CUMPROD

Predict = Callable[[Tensor, Tensor, Conditioning], Tensor]
"""(latents, timesteps, conditioning) -> the U-Net's raw prediction; timesteps may lie between two whole ones."""


class SigmaSchedule:
    """Sigmas of the 1000 training timesteps, read between them on the logarithm (k-diffusion's `DiscreteSchedule`).

    A schedule of zero terminal SNR ends at the web UI's smallest ᾱ, where sigma is finite.
    """

    def __init__(self, alphas_cumprod: Tensor) -> None:
        alphas_cumprod = alphas_cumprod.clamp(min=SMALLEST_ALPHA_CUMPROD)
        self.sigmas = ((1 - alphas_cumprod) / alphas_cumprod).sqrt()
        self._log_sigmas = self.sigmas.log()

    def timestep(self, sigma: Tensor) -> Tensor:
        """`sigma` `(n,)` -> timesteps `(n,)`, fractional."""
        log_sigmas = self._log_sigmas.to(sigma.device)
        log_sigma = sigma.log()
        low = torch.searchsorted(log_sigmas, log_sigma, right=True).sub(1).clamp(0, len(log_sigmas) - 2)
        below, above = log_sigmas[low], log_sigmas[low + 1]
        share = ((below - log_sigma) / (below - above)).clamp(0, 1)
        return (1 - share) * low + share * (low + 1)

    def sigma(self, timestep: Tensor) -> Tensor:
        """Fractional timesteps -> sigmas."""
        low, high = timestep.floor().long(), timestep.ceil().long()
        share = timestep - timestep.floor()
        return ((1 - share) * self._log_sigmas[low] + share * self._log_sigmas[high]).exp()

    def steps(self, count: int) -> Tensor:
        """`(count + 1,)`: evenly spaced in time from the noisiest, then 0."""
        timesteps = torch.linspace(len(self.sigmas) - 1, 0, count)
        return torch.cat([self.sigma(timesteps), torch.zeros(1)])


class SeededNoise:
    """Noise of a batch: picture i draws from its own CPU generator, however many pictures are made together."""

    def __init__(self, seeds: Sequence[int], shape: tuple[int, int, int], *, device: torch.device) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._shape = shape
        self._device = device

    def __call__(self) -> Tensor:
        """The next draw, `(batch, 4, height/8, width/8)` fp32."""
        drawn = [torch.randn(self._shape, generator=generator) for generator in self._generators]
        return torch.stack(drawn).to(self._device)


@dataclass(frozen=True, eq=False)
class Guidance:
    """The two conditionings of a batch and the scale of each picture `(batch,)`."""

    positive: Conditioning
    negative: Conditioning
    scale: Tensor


def joined(parts: Sequence[Conditioning]) -> Conditioning:
    """Conditionings of one kind and number of tokens as one batch."""

    def cat(tensors: Sequence[Tensor | None]) -> Tensor | None:
        found = [tensor for tensor in tensors if tensor is not None]
        return torch.cat(found) if found else None

    return Conditioning(
        torch.cat([part.context for part in parts]),
        cat([part.pooled for part in parts]),
        cat([part.sizes for part in parts]),
        cat([part.concat for part in parts]),
    )


class GuidedDenoiser:
    """(noisy latents, sigma) -> denoised latents, with classifier-free guidance.

    Karras et al. 2022, eq. 7 with c_in = 1/√(σ²+1); c_skip, c_out = 1, −σ for noise prediction and
    1/(σ²+1), −σ/√(σ²+1) for v-prediction. Guidance: negative + scale · (positive − negative). Both conditionings run in
    one batch if they have the same number of chunks, else one after the other; at scale 1 the negative has no say and
    is left out.
    """

    def __init__(self, predict: Predict, schedule: SigmaSchedule, guidance: Guidance, *, v_prediction: bool) -> None:
        self._predict = predict
        self._schedule = schedule
        self._guidance = guidance
        self._v_prediction = v_prediction
        self._guided = bool((guidance.scale != 1).any())
        self._together = guidance.positive.context.shape == guidance.negative.context.shape
        if self._guided and self._together:
            self._both = joined([guidance.positive, guidance.negative])

    def __call__(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        """`noisy` `(batch, 4, h, w)`, `sigma` a scalar tensor."""
        guidance = self._guidance
        if not self._guided:
            return self._denoise(noisy, sigma, guidance.positive)
        if self._together:
            positive, negative = self._denoise(torch.cat([noisy, noisy]), sigma, self._both).chunk(2)
        else:
            positive = self._denoise(noisy, sigma, guidance.positive)
            negative = self._denoise(noisy, sigma, guidance.negative)
        return negative + (positive - negative) * guidance.scale.view(-1, 1, 1, 1)

    def noise(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        """The guided noise, `(noisy − denoised) / σ`."""
        return (noisy - self(noisy, sigma)) / sigma

    def _denoise(self, noisy: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        timesteps = self._schedule.timestep(sigma.reshape(1)).expand(noisy.shape[0])
        scale = (sigma**2 + 1) ** 0.5
        prediction = self._predict(noisy / scale, timesteps, conditioning).float()
        if self._v_prediction:
            return noisy / scale**2 - prediction * sigma / scale
        return noisy - prediction * sigma


def euler(denoise: GuidedDenoiser, latents: Tensor, sigmas: Tensor, noise: SeededNoise) -> Tensor:
    """Euler steps without churn (Karras et al. 2022, algorithm 2); `latents` begin as noise at scale `sigmas[0]`."""
    for now, following in pairwise(sigmas):
        latents = latents + denoise.noise(latents, now) * (following - now)
    return latents


def euler_ancestral(denoise: GuidedDenoiser, latents: Tensor, sigmas: Tensor, noise: SeededNoise) -> Tensor:
    """Euler to below the next sigma, then fresh noise up to it (k-diffusion's `sample_euler_ancestral`, eta 1)."""
    for now, following in pairwise(sigmas):
        up = (following**2 * (now**2 - following**2) / now**2).sqrt()
        down = (following**2 - up**2).sqrt()
        latents = latents + denoise.noise(latents, now) * (down - now)
        if following > 0:
            latents = latents + noise() * up
    return latents


SAMPLERS: dict[str, Callable[[GuidedDenoiser, Tensor, Tensor, SeededNoise], Tensor]] = {
    "euler": euler,
    "euler_a": euler_ancestral,
}


@torch.no_grad()
def sample_latents(
    predict: Predict,
    guidance: Guidance,
    *,
    seeds: Sequence[int],
    shape: tuple[int, int, int],
    steps: int,
    alphas_cumprod: Tensor,
    v_prediction: bool,
    sampler: str = "euler",
) -> Tensor:
    """Latents `(batch, 4, height/8, width/8)` fp32, one a seed."""
    if sampler not in SAMPLERS:
        raise HostError(f"sampler = {sampler!r}: unknown; use one of {', '.join(SAMPLERS)}")
    if steps < 1:
        raise HostError(f"steps = {steps}: must be at least 1")
    device = guidance.positive.context.device
    schedule = SigmaSchedule(alphas_cumprod.to("cpu", torch.float32))
    sigmas = schedule.steps(steps).to(device)
    noise = SeededNoise(seeds, shape, device=device)
    denoise = GuidedDenoiser(predict, schedule, guidance, v_prediction=v_prediction)
    return SAMPLERS[sampler](denoise, noise() * sigmas[0], sigmas, noise)
