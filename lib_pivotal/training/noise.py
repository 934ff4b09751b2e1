"""The noise that training adds: plain, with an offset, in several resolutions, and with a perturbed input.

Everything is drawn on the CPU, in float32, from explicit generators, sample after sample: a run is the same on every
device, and with one generator a sample the noise of a picture does not depend on its batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lib_pivotal.errors import TrainingError
from lib_pivotal.training.schedule import Generators, generator_of


def make_noise(
    latents: Tensor,
    *,
    generator: Generators,
    offset: float = 0.0,
    adaptive_offset: float = 0.0,
    random_offset: bool = False,
    multires_iterations: int = 0,
    multires_discount: float = 0.3,
) -> Tensor:
    """Noise for `latents` `(batch, channels, h, w)`, of the same shape, dtype and device.

    1. ε ~ N(0, 1).
    2. Offset: ε += s · n, one n ~ N(0, 1) a channel, so that the mean brightness is learnt too;
       s = max(0, offset + adaptive_offset · |mean of the channel's latents|); with `random_offset`, offset is
       multiplied by u ~ U(0, 1). crosslabs.org/blog/diffusion-with-offset-noise.
    3. Multires ("pyramid"): for i < multires_iterations, noise of 1/rⁱ of the size (r ~ U(2, 4) each time) is scaled
       up bilinearly and added with weight multires_discountⁱ; then ε is divided by its standard deviation.
       Whitaker 2023, "Multi-Resolution Noise for Diffusion Model Training".

    The order (offset, then multires) is kohya's (library/train_util.py, `get_noise_noisy_latents_and_timesteps`,
    48d368f). Unlike kohya, r and the standard deviation belong to a sample and not to the batch, so that a picture's
    noise does not depend on its neighbours.
    """
    _check(offset=offset, multires_iterations=multires_iterations, multires_discount=multires_discount)
    if latents.ndim != 4:
        raise TrainingError(f"latents of shape {tuple(latents.shape)}: (batch, channels, height, width) is needed")
    count, shape = len(latents), tuple(latents.shape[1:])
    use_offset = offset > 0 or adaptive_offset != 0
    means = latents.detach().float().mean(dim=(2, 3)).abs().cpu() if adaptive_offset else None
    samples = []
    for index in range(count):
        source = generator_of(generator, index, count)
        noise = torch.randn(shape, generator=source)
        if use_offset:
            strength = torch.tensor(offset)
            if random_offset:
                strength = strength * torch.rand((), generator=source)
            if means is not None:
                strength = (strength + adaptive_offset * means[index]).clamp(min=0)[:, None, None]
            noise = noise + strength * torch.randn((shape[0], 1, 1), generator=source)
        if multires_iterations:
            noise = _pyramid(noise, generator=source, iterations=multires_iterations, discount=multires_discount)
        samples.append(noise)
    if not samples:
        return torch.zeros_like(latents)
    return torch.stack(samples).to(latents.device, latents.dtype)


def perturb_noise(noise: Tensor, *, generator: Generators, gamma: float, random_strength: bool = False) -> Tensor:
    """The noise that makes the U-Net's input: ε + γ·ξ, ξ ~ N(0, 1); the target keeps ε. Same shape as `noise`.

    Training then resembles sampling, where the input carries the errors of earlier steps. Ning et al. 2023, "Input
    Perturbation Reduces Exposure Bias in Diffusion Models", arXiv 2301.11706, algorithm 3; γ = 0.1 there. With
    `random_strength`, γ is multiplied by u ~ U(0, 1) a sample. With γ = 0 nothing is drawn and `noise` is returned.
    """
    if gamma < 0:
        raise TrainingError(f"input perturbation {gamma}: must be 0 (off) or more, 0.1 is usual")
    if gamma == 0 or len(noise) == 0:
        return noise
    count, extra = len(noise), []
    for index in range(count):
        source = generator_of(generator, index, count)
        strength = torch.rand((), generator=source) * gamma if random_strength else torch.tensor(gamma)
        extra.append(strength * torch.randn(tuple(noise.shape[1:]), generator=source))
    return noise + torch.stack(extra).to(noise.device, noise.dtype)


def _pyramid(noise: Tensor, *, generator: torch.Generator, iterations: int, discount: float) -> Tensor:
    """Multires noise of one sample, `(channels, h, w)` -> the same, with standard deviation 1."""
    channels, height, width = noise.shape
    for level in range(iterations):
        ratio = float(torch.rand((), generator=generator)) * 2 + 2
        small = (max(1, int(height / ratio**level)), max(1, int(width / ratio**level)))
        coarse = torch.randn((1, channels, *small), generator=generator)
        noise = noise + F.interpolate(coarse, size=(height, width), mode="bilinear")[0] * discount**level
        if 1 in small:
            break
    return noise / noise.std()


def _check(*, offset: float, multires_iterations: int, multires_discount: float) -> None:
    if offset < 0:
        raise TrainingError(f"noise offset {offset}: must be 0 (off) or more, 0.02 to 0.1 is usual")
    if multires_iterations < 0:
        raise TrainingError(f"multires noise with {multires_iterations} levels: must be 0 (off) or more, 6 is usual")
    if not 0 <= multires_discount <= 1:
        raise TrainingError(f"multires noise discount {multires_discount}: must be from 0 to 1, 0.3 is usual")
