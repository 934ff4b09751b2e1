"""The forward process: how noisy each timestep is, what the U-Net sees there and what it should answer.

With a = alphas_cumprod[t], all formulas are those of DDPM (Ho et al. 2020, arXiv 2006.11239, eq. 4) and of
v-prediction (Salimans & Ho 2022, arXiv 2202.00512, appendix D):

    noisy    x_t = √a · x₀ + √(1-a) · ε
    velocity v   = √a · ε  - √(1-a) · x₀
    sigma        = √((1-a)/a)            (k-diffusion's noise level: x_t / √a = x₀ + sigma · ε)
    snr          = a / (1-a) = 1 / sigma²
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib_pivotal.errors import TrainingError

Generators = torch.Generator | Sequence[torch.Generator]
"""One CPU generator for the whole batch, drawn from sample after sample, or one a sample.

With one a sample the draws of a picture do not depend on the batch it sits in (splitting a batch over processes or
micro-batches changes nothing)."""

SMALLEST_ALPHA_CUMPROD = 4.8973451890853435e-08
"""What the web UI puts in place of zero at the last timestep of a zero-terminal-SNR schedule (modules/sd_models.py,
`rescale_zero_terminal_snr_abar`, v1.10.1). Only used where something is divided by √a."""


@dataclass(frozen=True)
class Distribution:
    """How timesteps are drawn: a number from `draw`, which `shape` brings into [0, 1), the share of the range."""

    shape: Callable[[Tensor], Tensor]
    draw: Callable[..., Tensor] = torch.rand


DISTRIBUTIONS: Mapping[str, Distribution] = {
    "uniform": Distribution(lambda u: u),
    "logit_normal": Distribution(torch.sigmoid, draw=torch.randn),
    "late": Distribution(lambda u: 1 - u**3),
    "early": Distribution(lambda u: u**3),
}
"""`late` favours noisy timesteps, `early` clean ones, `logit_normal` (Esser et al. 2024, arXiv 2403.03206, section 3.1)
the middle."""


def distribution_names() -> tuple[str, ...]:
    """Choices of `noise.timestep_distribution`."""
    return tuple(DISTRIBUTIONS)


def generator_of(generator: Generators, index: int, count: int) -> torch.Generator:
    """The generator that sample `index` of `count` draws from."""
    if isinstance(generator, torch.Generator):
        chosen = generator
    else:
        if len(generator) != count:
            raise TrainingError(
                f"{len(generator)} random generators for a batch of {count}: give one for all or one a sample"
            )
        chosen = generator[index]
    if chosen.device.type != "cpu":
        raise TrainingError(
            f"random generator on {chosen.device}: use a CPU generator, so that a run does not depend on the device"
        )
    return chosen


def append_dims(values: Tensor, ndim: int) -> Tensor:
    """`(batch,)` -> `(batch, 1, 1, ...)` with `ndim` dimensions, to broadcast over latents."""
    if values.ndim > ndim:
        raise TrainingError(f"cannot broadcast a tensor of {values.ndim} dimensions over one of {ndim}")
    return values[(...,) + (None,) * (ndim - values.ndim)]


def rescale_zero_terminal_snr(alphas_cumprod: Tensor) -> Tensor:
    """Shift and scale √a linearly so that the last timestep is pure noise and the first is unchanged.

    `(timesteps,)` -> `(timesteps,)`, the last entry exactly 0. Lin et al. 2023, "Common Diffusion Noise Schedules and
    Sample Steps are Flawed", arXiv 2305.08891, algorithm 1. Computed in float64; applying it twice changes nothing.
    """
    root = alphas_cumprod.double().sqrt()
    first, last = root[0], root[-1]
    return ((root - last) * first / (first - last)).square().to(alphas_cumprod.dtype)


class NoiseSchedule:
    """The discrete schedule of one checkpoint: the only place that turns timesteps into coefficients.

    `alphas_cumprod` `(timesteps,)`, falling from near 1 to near 0. Coefficients are computed in float32 and results
    have the dtype of the latents (diffusers casts the table to the latents' dtype first, which loses digits in fp16).
    """

    def __init__(self, alphas_cumprod: Tensor, *, v_prediction: bool = False, zero_terminal_snr: bool = False) -> None:
        if alphas_cumprod.ndim != 1 or len(alphas_cumprod) < 2:
            raise TrainingError(f"alphas_cumprod has shape {tuple(alphas_cumprod.shape)}: a list of numbers is needed")
        table = alphas_cumprod.detach().to("cpu", torch.float64)
        if not bool(((table >= 0) & (table <= 1)).all()) or bool((table.diff() > 0).any()):
            raise TrainingError(
                f"alphas_cumprod must fall within 1 and 0; it goes from {float(table[0]):.6g} to "
                f"{float(table[-1]):.6g}: is the checkpoint's configuration the right one?"
            )
        self.v_prediction = v_prediction
        self.zero_terminal_snr = zero_terminal_snr
        self._alphas_cumprod = rescale_zero_terminal_snr(table) if zero_terminal_snr else table
        # (4, timesteps): √a, √(1-a), snr, sigma. At a zero-terminal-SNR schedule's end snr is 0 and sigma infinite.
        a = self._alphas_cumprod
        tables = torch.stack([a.sqrt(), (1 - a).sqrt(), a / (1 - a), ((1 - a) / a).sqrt()])
        self._tables = {torch.device("cpu"): tables.float()}

    def __len__(self) -> int:
        return len(self._alphas_cumprod)

    @property
    def alphas_cumprod(self) -> Tensor:
        """`(timesteps,)` float32, on the CPU, after rescaling."""
        return self._alphas_cumprod.float()

    @property
    def sigmas(self) -> Tensor:
        """`(timesteps,)` float32, on the CPU: √((1-a)/a), rising."""
        return self._tables[torch.device("cpu")][3]

    def snr(self, timesteps: Tensor) -> Tensor:
        """Signal-to-noise ratio a/(1-a), `(batch,)` float32 on the device of `timesteps`."""
        return self._gather(timesteps, timesteps.device)[2]

    def sigma(self, timesteps: Tensor) -> Tensor:
        """k-diffusion's noise level √((1-a)/a), `(batch,)` float32 on the device of `timesteps`."""
        return self._gather(timesteps, timesteps.device)[3]

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t = √a·x₀ + √(1-a)·ε. `latents`, `noise` `(batch, 4, h, w)`, `timesteps` `(batch,)` -> like `latents`."""
        signal, spread = self._coefficients(latents, timesteps)
        return (signal * latents + spread * noise).to(latents.dtype)

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the U-Net should answer: ε, or v = √a·ε - √(1-a)·x₀. `(batch, 4, h, w)`."""
        if not self.v_prediction:
            return noise
        signal, spread = self._coefficients(latents, timesteps)
        return (signal * noise - spread * latents).to(latents.dtype)

    def sample_timesteps(
        self,
        count: int,
        *,
        generator: Generators,
        minimum: int = 0,
        maximum: int | None = None,
        distribution: str = "uniform",
    ) -> Tensor:
        """Draw `(count,)` int64 timesteps on the CPU from [minimum, maximum), as kohya's min and max timestep.

        t = minimum + ⌊q·(maximum-minimum)⌋, q by the distribution.
        """
        maximum = len(self) if maximum is None else maximum
        if not 0 <= minimum < maximum <= len(self):
            raise TrainingError(f"timesteps from {minimum} up to {maximum}: need 0 ≤ minimum < maximum ≤ {len(self)}")
        if distribution not in DISTRIBUTIONS:
            raise TrainingError(f"timestep distribution {distribution!r} is unknown: one of {', '.join(DISTRIBUTIONS)}")
        chosen = DISTRIBUTIONS[distribution]
        drawn = [
            chosen.draw((), generator=generator_of(generator, index, count), dtype=torch.float64)
            for index in range(count)
        ]
        share = chosen.shape(torch.stack(drawn)) if drawn else torch.zeros(0, dtype=torch.float64)
        return (minimum + (share * (maximum - minimum)).floor().long()).clamp(max=maximum - 1)

    def _coefficients(self, latents: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """√a and √(1-a), each `(batch, 1, 1, 1)`, on the device of `latents`."""
        rows = self._gather(timesteps, latents.device)
        return append_dims(rows[0], latents.ndim), append_dims(rows[1], latents.ndim)

    def _gather(self, timesteps: Tensor, device: torch.device) -> Tensor:
        """The columns of `timesteps` `(batch,)` -> `(4, batch)` float32 on `device`."""
        if device not in self._tables:
            self._tables[device] = self._tables[torch.device("cpu")].to(device)
        return self._tables[device][:, timesteps.to(device)]
