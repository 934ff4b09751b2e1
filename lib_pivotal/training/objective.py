"""What is minimised: an element-wise loss, weighted by noise level, mask and sample: one number a sample.

Nothing is averaged over the batch here, so that accumulation, prior preservation and logs by word compose outside
(the shape of k-diffusion's `Denoiser.loss` and of EDM's `training/loss.py`).

The weightings are written as factors on the squared error of ε. An error of ε̂ and one of v̂ are related by
‖ε̂-ε‖² = snr/(snr+1) · ‖v̂-v‖² (both are snr · ‖x̂₀-x₀‖² up to that factor), so w_v = w_ε · snr/(snr+1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from lib_pivotal.errors import TrainingError
from lib_pivotal.training.schedule import NoiseSchedule, append_dims

HuberSchedule = Literal["constant", "exponential", "snr"]


class Loss(Protocol):
    """Error of each element: two `(batch, 4, h, w)` and `timesteps` `(batch,)` -> `(batch, 4, h, w)`."""

    def __call__(self, prediction: Tensor, target: Tensor, timesteps: Tensor, schedule: NoiseSchedule) -> Tensor: ...


class Weighting(Protocol):
    """Weight of a noise level: `snr` `(batch,)` -> `(batch,)`."""

    def __call__(self, snr: Tensor, v_prediction: bool) -> Tensor: ...


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
    schedule: HuberSchedule = "snr"
    scale: float = 1.0

    def __call__(self, prediction: Tensor, target: Tensor, timesteps: Tensor, schedule: NoiseSchedule) -> Tensor:
        c = _threshold_like(prediction, self, timesteps, schedule)
        return 2 * c * (((prediction - target).square() + c.square()).sqrt() - c)


@dataclass(frozen=True)
class SmoothL1:
    """2·(√((p-t)² + c²) - c): `Huber` without its leading c; tends to 2·L1 as c falls. kohya, as above."""

    threshold: float = 0.1
    schedule: HuberSchedule = "snr"
    scale: float = 1.0

    def __call__(self, prediction: Tensor, target: Tensor, timesteps: Tensor, schedule: NoiseSchedule) -> Tensor:
        c = _threshold_like(prediction, self, timesteps, schedule)
        return 2 * (((prediction - target).square() + c.square()).sqrt() - c)


def threshold_at(
    timesteps: Tensor,
    noise_schedule: NoiseSchedule,
    *,
    threshold: float = 0.1,
    schedule: HuberSchedule = "snr",
    scale: float = 1.0,
) -> Tensor:
    """The threshold c at `timesteps`, `(batch,)` float32.

    constant: threshold·scale; exponential: threshold^(t/T)·scale (1 at t = 0); snr: (1-threshold)/(1+sigma)² +
    threshold (near 1 at t = 0; `scale` has no part in it, as in kohya's `get_huber_threshold_if_needed`, 48d368f).
    """
    if schedule == "constant":
        return torch.full(timesteps.shape, threshold * scale, dtype=torch.float32, device=timesteps.device)
    if schedule == "exponential":
        share = timesteps.float() / len(noise_schedule)
        return torch.full_like(share, threshold).pow(share) * scale
    if schedule == "snr":
        return (1 - threshold) / (1 + noise_schedule.sigma(timesteps)).square() + threshold
    raise TrainingError(f"Huber schedule {schedule!r} is unknown: one of constant, exponential, snr")


def _threshold_like(
    prediction: Tensor, loss: Huber | SmoothL1, timesteps: Tensor, noise_schedule: NoiseSchedule
) -> Tensor:
    c = threshold_at(timesteps, noise_schedule, threshold=loss.threshold, schedule=loss.schedule, scale=loss.scale)
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
    """ε: γ³/(snr²+γ³), HCP-Diffusion's own soft form; v: that times snr/(snr+1)."""

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


# ---- composition ----


class Objective:
    """`loss` of each element, averaged over a sample under its mask, times `weighting` of its noise level.

    `normalise_mask`: False: mean(loss·mask) (kohya, HCP: a small mask trains less); True: Σ(loss·mask)/Σ(mask)
    (Mix-of-Show, Custom Diffusion). `scale_v_like_noise` multiplies a v loss by snr/(snr+1), snr ≤ 1000, which makes
    it the loss of ε (kohya's `scale_v_prediction_loss_like_noise_prediction`, 48d368f); no effect for ε.
    """

    def __init__(
        self,
        loss: Loss | None = None,
        weighting: Weighting | None = None,
        *,
        normalise_mask: bool = False,
        scale_v_like_noise: bool = False,
    ) -> None:
        self.loss: Loss = MSE() if loss is None else loss
        self.weighting: Weighting = Unweighted() if weighting is None else weighting
        self.normalise_mask = normalise_mask
        self.scale_v_like_noise = scale_v_like_noise

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
        weights ≥ 0; `weights` `(batch,)`. A sample whose normalised mask is all zero counts 0.
        """
        if prediction.shape != target.shape:
            raise TrainingError(
                f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape"
            )
        dtype = torch.promote_types(prediction.dtype, torch.float32)
        timesteps = timesteps.to(prediction.device)
        errors = self.loss(prediction.to(dtype), target.to(dtype), timesteps, schedule)
        losses = _mean_under_mask(errors, mask, normalise=self.normalise_mask)
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


def _mean_under_mask(errors: Tensor, mask: Tensor | None, *, normalise: bool) -> Tensor:
    """`(batch, channels, h, w)` -> `(batch,)`."""
    if mask is None:
        return errors.flatten(1).mean(1)
    batch, channels, *size = errors.shape
    if tuple(mask.shape) not in {(batch, 1, *size), (batch, channels, *size)}:
        raise TrainingError(
            f"mask {tuple(mask.shape)} does not fit a loss of {tuple(errors.shape)}: "
            f"it must be {(batch, 1, *size)}, scaled to the latents"
        )
    mask = mask.to(errors).expand_as(errors)
    masked = (errors * mask).flatten(1)
    if not normalise:
        return masked.mean(1)
    return masked.sum(1) / mask.flatten(1).sum(1).clamp(min=torch.finfo(errors.dtype).tiny)


# ---- by name ----

LOSSES = ("mse", "huber", "smooth_l1", "l1")
WEIGHTINGS = ("none", "min_snr", "soft_min_snr", "soft_min_snr_cubed", "debiased", "p2")


def build_objective(
    loss: str = "mse",
    weighting: str = "none",
    *,
    gamma: float | None = None,
    huber_threshold: float = 0.1,
    huber_schedule: HuberSchedule = "snr",
    huber_scale: float = 1.0,
    normalise_mask: bool = False,
    scale_v_like_noise: bool = False,
) -> Objective:
    """An `Objective` from the names in `LOSSES` and `WEIGHTINGS`; `gamma` None means the weighting's own default."""
    if not huber_threshold > 0:
        raise TrainingError(f"Huber threshold {huber_threshold}: must be more than 0, 0.1 is usual")
    if gamma is not None and not gamma > 0:
        raise TrainingError(f"gamma {gamma} of the weighting {weighting!r}: must be more than 0, 5 is usual")
    losses: dict[str, Callable[[], Loss]] = {
        "mse": MSE,
        "l1": L1,
        "huber": lambda: Huber(threshold=huber_threshold, schedule=huber_schedule, scale=huber_scale),
        "smooth_l1": lambda: SmoothL1(threshold=huber_threshold, schedule=huber_schedule, scale=huber_scale),
    }
    weightings: dict[str, Callable[[], Weighting]] = {
        "none": Unweighted,
        "min_snr": lambda: MinSNR() if gamma is None else MinSNR(gamma),
        "soft_min_snr": lambda: SoftMinSNR() if gamma is None else SoftMinSNR(gamma),
        "soft_min_snr_cubed": lambda: SoftMinSNRCubed() if gamma is None else SoftMinSNRCubed(gamma),
        "debiased": Debiased,
        "p2": lambda: P2() if gamma is None else P2(gamma),
    }
    if loss not in losses:
        raise TrainingError(f"loss {loss!r} is unknown: one of {', '.join(LOSSES)}")
    if weighting not in weightings:
        raise TrainingError(f"loss weighting {weighting!r} is unknown: one of {', '.join(WEIGHTINGS)}")
    return Objective(
        losses[loss](), weightings[weighting](), normalise_mask=normalise_mask, scale_v_like_noise=scale_v_like_noise
    )
