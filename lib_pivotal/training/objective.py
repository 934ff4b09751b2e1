"""The loss of a sample, whole: which noise is drawn, what the U-Net should answer to it, how its error is weighed.

`Objective.losses` is the way through it, from latents to one number a sample (the shape of k-diffusion's
`Denoiser.loss` and of EDM's `training/loss.py`); nothing is averaged over the batch here, so that accumulation, prior
preservation and logs by embedding compose outside. What each step may be stands below it, by name: `LOSSES`,
`WEIGHTINGS`, `HUBER_SCHEDULES`, with the noise. `schedule.py` has the coefficients and the distributions of timesteps.

The weightings are written as factors on the squared error of ε. An error of ε̂ and one of v̂ are related by
‖ε̂-ε‖² = snr/(snr+1) · ‖v̂-v‖² (both are snr · ‖x̂₀-x₀‖² up to that factor), so w_v = w_ε · snr/(snr+1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lib_pivotal.errors import TrainingError
from lib_pivotal.training.schedule import Generators, NoiseSchedule, append_dims, generator_of

Predict = Callable[[Tensor, Tensor], Tensor]
"""A model's answer: noisy latents `(batch, 4, h, w)` and timesteps `(batch,)` -> `(batch, 4, h, w)`."""

T = TypeVar("T")


class Loss(Protocol):
    """Error of each element: two `(batch, 4, h, w)` and `timesteps` `(batch,)` -> `(batch, 4, h, w)`."""

    def __call__(self, prediction: Tensor, target: Tensor, timesteps: Tensor, schedule: NoiseSchedule) -> Tensor: ...


class Weighting(Protocol):
    """Weight of a noise level: `snr` `(batch,)` -> `(batch,)`."""

    def __call__(self, snr: Tensor, v_prediction: bool) -> Tensor: ...


@dataclass(frozen=True)
class NoiseSettings:
    """How a sample is made noisy: see `make_noise`, `perturb_noise` and `NoiseSchedule.sample_timesteps`."""

    offset: float = 0.0
    adaptive_offset: float = 0.0
    random_offset: bool = False
    multires_iterations: int = 0
    multires_discount: float = 0.3
    perturbation: float = 0.0
    random_perturbation: bool = False
    timestep_min: int = 0
    timestep_max: int = 1000
    timestep_distribution: str = "uniform"


@dataclass(frozen=True, eq=False)
class NoisyBatch:
    """`noisy`, `noise` `(batch, 4, h, w)` and `timesteps` `(batch,)`, on the device of the latents."""

    noisy: Tensor
    noise: Tensor
    timesteps: Tensor


# ---- the loss of a sample ----


class Objective:
    """What is minimised: `loss` of each element, averaged over a sample under its mask, times `weighting` of its noise
    level.

    `noise` says how samples are made noisy. `mask_prior` weighs a second loss outside the masks, towards what the
    checkpoint itself predicts. `scale_v_like_noise` multiplies a v loss by snr/(snr+1), snr ≤ 1000, which makes
    it the loss of ε (kohya's `scale_v_prediction_loss_like_noise_prediction`, 48d368f); no effect for ε.
    `dco_beta` above 0 makes a loss that has a reference DCO's, see `dco`.
    """

    def __init__(
        self,
        loss: Loss | None = None,
        weighting: Weighting | None = None,
        *,
        noise: NoiseSettings | None = None,
        mask_prior: float = 0.0,
        scale_v_like_noise: bool = False,
        dco_beta: float = 0.0,
    ) -> None:
        self.loss: Loss = MSE() if loss is None else loss
        self.weighting: Weighting = Unweighted() if weighting is None else weighting
        self.noise = noise or NoiseSettings()
        self.mask_prior = mask_prior
        self.scale_v_like_noise = scale_v_like_noise
        self.dco_beta = dco_beta

    def losses(
        self,
        predict: Predict,
        latents: Tensor,
        *,
        schedule: NoiseSchedule,
        generators: Generators,
        prior: Predict,
        reference: Predict | None = None,
        towards_prior: bool = False,
        mask: Tensor | None = None,
        weights: Tensor | None = None,
        timesteps: Tensor | None = None,
    ) -> Tensor:
        """Loss of each sample of `latents` `(batch, 4, h, w)`, `(batch,)` fp32, differentiable in `predict`.

        `prior` is what the checkpoint itself predicts; with `towards_prior` it is the target. `reference` is what is
        predicted without the network: the loss is then DCO's, where the objective has a beta. `timesteps` takes the
        place of the drawn ones, and the noise is then not perturbed (scores compare at fixed timesteps).
        """
        drawn = self.draw(latents, schedule=schedule, generators=generators)
        if timesteps is not None:
            drawn = NoisyBatch(schedule.add_noise(latents, drawn.noise, timesteps), drawn.noise, timesteps)
        rest = None if mask is None or towards_prior or self.mask_prior == 0 else outside(mask)
        kept = None
        if towards_prior or (rest is not None and bool(rest.any())):
            kept = prior(drawn.noisy, drawn.timesteps)
        compared = None
        if reference is not None and self.dco_beta > 0 and not towards_prior:
            compared = reference(drawn.noisy, drawn.timesteps)
        prediction = predict(drawn.noisy, drawn.timesteps).float()
        if kept is not None and towards_prior:
            target = kept
        else:
            target = schedule.target(latents, drawn.noise, drawn.timesteps)
        if compared is None:
            total = self(prediction, target, drawn.timesteps, schedule, mask, weights)
        else:
            with_network = self(prediction, target, drawn.timesteps, schedule, mask)
            without = self(compared, target, drawn.timesteps, schedule, mask)
            total = dco(with_network, without, beta=self.dco_beta)
            total = total if weights is None else total * weights.to(total)
        if rest is not None and kept is not None:
            total = total + self.mask_prior * self(prediction, kept, drawn.timesteps, schedule, rest, weights)
        return total

    def draw(self, latents: Tensor, *, schedule: NoiseSchedule, generators: Generators) -> NoisyBatch:
        """Timesteps, then noise, then its perturbation: all of a sample from its own generator."""
        noise = self.noise
        timesteps = self.draw_timesteps(latents.shape[0], schedule=schedule, generators=generators).to(latents.device)
        plain = make_noise(
            latents,
            generator=generators,
            offset=noise.offset,
            adaptive_offset=noise.adaptive_offset,
            random_offset=noise.random_offset,
            multires_iterations=noise.multires_iterations,
            multires_discount=noise.multires_discount,
        )
        perturbed = perturb_noise(
            plain, gamma=noise.perturbation, random_strength=noise.random_perturbation, generator=generators
        )
        return NoisyBatch(schedule.add_noise(latents, perturbed, timesteps), plain, timesteps)

    def draw_timesteps(self, count: int, *, schedule: NoiseSchedule, generators: Generators) -> Tensor:
        """The first draw of `count` samples, `(count,)`."""
        noise = self.noise
        return schedule.sample_timesteps(
            count,
            minimum=noise.timestep_min,
            maximum=noise.timestep_max,
            distribution=noise.timestep_distribution,
            generator=generators,
        )

    def __call__(
        self,
        prediction: Tensor,
        target: Tensor,
        timesteps: Tensor,
        schedule: NoiseSchedule,
        mask: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Tensor:
        """One number a sample, `(batch,)`, at least float32.

        `prediction`, `target` `(batch, 4, h, w)`; `timesteps` `(batch,)`; `mask` `(batch, 1 or 4, h, w)`, any
        weights ≥ 0; `weights` `(batch,)`.
        """
        if prediction.shape != target.shape:
            raise TrainingError(
                f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape"
            )
        dtype = torch.promote_types(prediction.dtype, torch.float32)
        timesteps = timesteps.to(prediction.device)
        errors = self.loss(prediction.to(dtype), target.to(dtype), timesteps, schedule)
        losses = _mean_under_mask(errors, mask)
        losses = losses * self.weight(timesteps, schedule).to(dtype)
        if weights is not None:
            if weights.shape != losses.shape:
                raise TrainingError(f"{tuple(weights.shape)} weights for a batch of {len(losses)}: give one a sample")
            losses = losses * weights.to(losses)
        return losses

    def weight(self, timesteps: Tensor, schedule: NoiseSchedule) -> Tensor:
        """The weight of the noise levels at `timesteps`, `(batch,)` float32."""
        snr = schedule.snr(timesteps)
        weight = self.weighting(snr, schedule.v_prediction)
        if self.scale_v_like_noise and schedule.v_prediction:
            limited = snr.clamp(max=1000)
            weight = weight * limited / (limited + 1)
        return weight


def dco(with_network: Tensor, without: Tensor, *, beta: float) -> Tensor:
    """-log σ(-beta · (L_on - L_off)) of each sample, `(batch,)`: Lee et al. 2024, "Direct Consistency Optimization",
    arXiv 2402.12004; beta 1000.

    L_on and L_off are the losses with and without the network, at the same noise and with the same embeddings, the
    latter without gradient. The gradient is beta · σ(beta · (L_on - L_off)) · ∇L_on: it fades once the network is
    better than the checkpoint by a few 1/beta. The authors' code (kyungmnlee/dco, customize.py, 451910b) takes the
    means of a micro-batch for L; a sample at a time is the paper's expectation, and no matter of how a batch is cut.
    """
    return F.softplus(beta * (with_network - without.detach()))


def _mean_under_mask(errors: Tensor, mask: Tensor | None) -> Tensor:
    """`(batch, channels, h, w)` -> `(batch,)`: mean(errors · mask), as kohya and HCP: a small mask trains less.

    Masks that are scaled to a mean of 1 (`data.mask_normalise`) make it Σ(errors · mask)/Σ(mask), which is the mean of
    Mix-of-Show and Custom Diffusion.
    """
    if mask is None:
        return errors.flatten(1).mean(1)
    batch, channels, *size = errors.shape
    if tuple(mask.shape) not in {(batch, 1, *size), (batch, channels, *size)}:
        raise TrainingError(
            f"mask {tuple(mask.shape)} does not fit a loss of {tuple(errors.shape)}: "
            f"it must be {(batch, 1, *size)}, scaled to the latents"
        )
    return (errors * mask.to(errors).expand_as(errors)).flatten(1).mean(1)


def outside(mask: Tensor) -> Tensor:
    """What `(batch, 1, h, w)` masks leave out, as parts of 1: 0 where a mask is highest, 1 where it is 0.

    OneTrainer's `masked_losses_with_prior` (modules/util/loss/masked_loss.py, 23df383) takes 1 - mask; by the highest
    value it is the same for masks with white in them, and masks scaled to a mean of 1 need no undoing.
    """
    highest = mask.flatten(1).amax(1).clamp(min=torch.finfo(mask.dtype).tiny)
    return 1 - mask / append_dims(highest, mask.ndim)


# ---- losses ----


@dataclass(frozen=True)
class MSE:
    """(p - t)²."""

    def __call__(self, prediction: Tensor, target: Tensor, timesteps: Tensor, schedule: NoiseSchedule) -> Tensor:
        return (prediction - target).square()


@dataclass(frozen=True)
class L1:
    """|p - t|."""

    def __call__(self, prediction: Tensor, target: Tensor, timesteps: Tensor, schedule: NoiseSchedule) -> Tensor:
        return (prediction - target).abs()


@dataclass(frozen=True)
class Huber:
    """Pseudo-Huber: 2c·(√((p-t)² + c²) - c): quadratic well below the threshold c, linear well above it.

    Khrapov et al. 2024, "Improving Diffusion Models's Data-Corruption Resistance using Scheduled Pseudo-Huber Loss",
    arXiv 2403.16728; with the factors of kohya (library/train_util.py, `conditional_loss`, 48d368f), where it tends
    to MSE as c grows. `schedule` makes c depend on the timestep, see `threshold_at`.
    """

    threshold: float = 0.1
    schedule: str = "snr"

    def __call__(self, prediction: Tensor, target: Tensor, timesteps: Tensor, schedule: NoiseSchedule) -> Tensor:
        c = _threshold_like(prediction, self, timesteps, schedule)
        return 2 * c * (((prediction - target).square() + c.square()).sqrt() - c)


@dataclass(frozen=True)
class SmoothL1:
    """2·(√((p-t)² + c²) - c): `Huber` without its leading c; tends to 2·L1 as c falls. kohya, as above."""

    threshold: float = 0.1
    schedule: str = "snr"

    def __call__(self, prediction: Tensor, target: Tensor, timesteps: Tensor, schedule: NoiseSchedule) -> Tensor:
        c = _threshold_like(prediction, self, timesteps, schedule)
        return 2 * (((prediction - target).square() + c.square()).sqrt() - c)


def threshold_at(
    timesteps: Tensor, noise_schedule: NoiseSchedule, *, threshold: float = 0.1, schedule: str = "snr"
) -> Tensor:
    """The threshold c at `timesteps`, `(batch,)` float32, by one of `huber_schedule_names()`.

    constant: threshold; exponential: threshold^(t/T) (1 at t = 0); snr: (1-threshold)/(1+sigma)² + threshold (near 1
    at t = 0). kohya's `get_huber_threshold_if_needed`, 48d368f.
    """
    curve = _named(HUBER_SCHEDULES, schedule, "Huber schedule")
    return curve(timesteps, noise_schedule, threshold)


def _constant(timesteps: Tensor, noise_schedule: NoiseSchedule, threshold: float) -> Tensor:
    return torch.full(timesteps.shape, threshold, dtype=torch.float32, device=timesteps.device)


def _exponential(timesteps: Tensor, noise_schedule: NoiseSchedule, threshold: float) -> Tensor:
    share = timesteps.float() / len(noise_schedule)
    return torch.full_like(share, threshold).pow(share)


def _by_snr(timesteps: Tensor, noise_schedule: NoiseSchedule, threshold: float) -> Tensor:
    return (1 - threshold) / (1 + noise_schedule.sigma(timesteps)).square() + threshold


def _threshold_like(
    prediction: Tensor, loss: Huber | SmoothL1, timesteps: Tensor, noise_schedule: NoiseSchedule
) -> Tensor:
    c = threshold_at(timesteps, noise_schedule, threshold=loss.threshold, schedule=loss.schedule)
    return append_dims(c.to(prediction), prediction.ndim)


# ---- weightings ----


@dataclass(frozen=True)
class Unweighted:
    """1 everywhere (Ho et al. 2020's L_simple for ε; the SD2 loss for v)."""

    def __call__(self, snr: Tensor, v_prediction: bool) -> Tensor:
        return torch.ones_like(snr)


@dataclass(frozen=True)
class MinSNR:
    """ε: min(snr, γ)/snr; v: min(snr, γ)/(snr+1). Hang et al. 2023, arXiv 2303.09556, section 3.4; γ = 5.

    At snr = 0 (the end of a zero-terminal-SNR schedule) the ε weight is its limit 1, where kohya's is 0/0.
    """

    gamma: float = 5.0

    def __call__(self, snr: Tensor, v_prediction: bool) -> Tensor:
        return _from_noise_weight((self.gamma / snr).clamp(max=1), snr, v_prediction)


@dataclass(frozen=True)
class SoftMinSNR:
    """ε: γ/(snr+γ); v: snr·γ/((snr+γ)(snr+1)): min-SNR without the kink.

    Crowson et al. 2024 (HDiT), arXiv 2401.11605, section 4.3 (γ = 4 there); k-diffusion's "soft-min-snr" is γ = 1.
    """

    gamma: float = 5.0

    def __call__(self, snr: Tensor, v_prediction: bool) -> Tensor:
        return _from_noise_weight(self.gamma / (snr + self.gamma), snr, v_prediction)


@dataclass(frozen=True)
class SoftMinSNRCubed:
    """ε: γ³/(snr²+γ³), HCP-Diffusion's own soft form, γ = 2 or 1; v: that times snr/(snr+1)."""

    gamma: float = 2.0

    def __call__(self, snr: Tensor, v_prediction: bool) -> Tensor:
        cubed = self.gamma**3
        return _from_noise_weight(cubed / (snr.square() + cubed), snr, v_prediction)


@dataclass(frozen=True)
class Debiased:
    """ε: 1/√snr, snr clamped to at most 1000; v: 1/(snr+1). Yu et al. 2023, arXiv 2310.08442.

    As kohya (library/custom_train_functions.py, `apply_debiased_estimation`, 48d368f), except that snr is also at
    least `floor`, below any of SD's (0.0047), so that a zero-terminal-SNR schedule gives no infinite weight.
    """

    floor: float = 1e-3

    def __call__(self, snr: Tensor, v_prediction: bool) -> Tensor:
        if v_prediction:
            return 1 / (snr.clamp(max=1000) + 1)
        return snr.clamp(min=self.floor, max=1000).rsqrt()


@dataclass(frozen=True)
class P2:
    """ε: 1/(k+snr)^γ, k = 1; v: that times snr/(snr+1). Choi et al. 2022, arXiv 2204.00227, eq. 8; γ = 0.5 or 1."""

    gamma: float = 1.0

    def __call__(self, snr: Tensor, v_prediction: bool) -> Tensor:
        return _from_noise_weight((1 + snr).pow(-self.gamma), snr, v_prediction)


def _from_noise_weight(weight: Tensor, snr: Tensor, v_prediction: bool) -> Tensor:
    """A weight on ‖ε̂-ε‖² as it stands, or as the same weight on ‖v̂-v‖²."""
    return weight * snr / (snr + 1) if v_prediction else weight


# ---- noise ----
#
# All of it is drawn on the CPU, in float32, from explicit generators, sample after sample: a run is the same on every
# device, and with one generator a sample the noise of a picture does not depend on its batch.


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


# ---- by name: the only lists ----

HUBER_SCHEDULES: Mapping[str, Callable[[Tensor, NoiseSchedule, float], Tensor]] = {
    "snr": _by_snr,
    "exponential": _exponential,
    "constant": _constant,
}
"""How the threshold of Huber's losses moves over the timesteps; see `threshold_at`."""

LOSSES: Mapping[str, Callable[[float, str], Loss]] = {
    "mse": lambda threshold, schedule: MSE(),
    "huber": Huber,
    "smooth_l1": SmoothL1,
    "l1": lambda threshold, schedule: L1(),
}
"""Each made from the threshold and its schedule, which only Huber's losses have."""

WEIGHTINGS: Mapping[str, Callable[..., Weighting]] = {
    "none": lambda gamma=None: Unweighted(),
    "min_snr": MinSNR,
    "soft_min_snr": SoftMinSNR,
    "soft_min_snr_cubed": SoftMinSNRCubed,
    "debiased": lambda gamma=None: Debiased(),
    "p2": P2,
}
"""Each made from gamma, if it is given and the weighting has one."""


def loss_names() -> tuple[str, ...]:
    """Choices of `loss.kind`."""
    return tuple(LOSSES)


def weighting_names() -> tuple[str, ...]:
    """Choices of `loss.weighting`."""
    return tuple(WEIGHTINGS)


def huber_schedule_names() -> tuple[str, ...]:
    """Choices of `loss.huber_schedule`."""
    return tuple(HUBER_SCHEDULES)


def build_objective(
    loss: str = "mse",
    weighting: str = "none",
    *,
    gamma: float | None = None,
    huber_threshold: float = 0.1,
    huber_schedule: str = "snr",
    noise: NoiseSettings | None = None,
    mask_prior: float = 0.0,
    scale_v_like_noise: bool = False,
    dco_beta: float = 0.0,
) -> Objective:
    """An `Objective` by names in `LOSSES`, `WEIGHTINGS` and `HUBER_SCHEDULES`; `gamma` None is the weighting's own."""
    if not huber_threshold > 0:
        raise TrainingError(f"Huber threshold {huber_threshold}: must be more than 0, 0.1 is usual")
    if gamma is not None and not gamma > 0:
        raise TrainingError(f"gamma {gamma} of the weighting {weighting!r}: must be more than 0, 5 is usual")
    _named(HUBER_SCHEDULES, huber_schedule, "Huber schedule")
    weighs = _named(WEIGHTINGS, weighting, "loss weighting")
    return Objective(
        _named(LOSSES, loss, "loss")(huber_threshold, huber_schedule),
        weighs() if gamma is None else weighs(gamma),
        noise=noise,
        mask_prior=mask_prior,
        scale_v_like_noise=scale_v_like_noise,
        dco_beta=dco_beta,
    )


def _named(registry: Mapping[str, T], name: str, kind: str) -> T:
    if name not in registry:
        raise TrainingError(f"{kind} {name!r} is unknown: one of {', '.join(registry)}")
    return registry[name]
