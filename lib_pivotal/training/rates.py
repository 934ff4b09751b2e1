"""How fast each part moves at a step: who trains when (the pivot), and the LR scheduler's curve.

*Joint* trains embeddings and network together; the network may start late, the text encoder's network may stop early.
*Two-phase* (cloneofsimo/lora's PTI) trains the embeddings alone, then the network, the embeddings frozen or at another
rate; each phase has a curve of its own.

The rate of a group at a step is `base_lr · lr_factor · phase factor · curve`; `set_rates` writes it into the optimiser.
All are pure functions of the step: nothing to save, so that a resumed run is exact by construction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch.optim import Optimizer

from lib_pivotal.errors import TrainingError

RAMPS = ("none", "linear", "exponential")
"""The ways in which the network's rate may rise over the run, `ramp_factor`."""

PHASE_PLANS = ("joint", "two_phase")
SECOND_PHASE = "network"
"""The name of a two-phase run's second phase."""

ONE_CYCLE_START = 0.04
"""Where one_cycle begins: torch's `div_factor` of 25."""


def rate_names() -> tuple[str, ...]:
    """Choices of `schedule.lr_scheduler`."""
    return tuple(RATES)


def ramp_names() -> tuple[str, ...]:
    """Choices of `network.lr_ramp`."""
    return RAMPS


def phase_plan_names() -> tuple[str, ...]:
    """Choices of `schedule.phases`."""
    return PHASE_PLANS


# ---- who trains when ----


@dataclass(frozen=True)
class Phase:
    """Factors of the learning rates at one step; 0 means that the part is not trained at all."""

    name: str
    embeddings: float
    unet: float
    te: float


@dataclass(frozen=True)
class PhasePlan:
    """The plan of a run of `max_steps` steps; steps count from 0."""

    max_steps: int
    kind: str = "joint"
    embeddings_steps: int = 0
    continued_embedding_lr_factor: float = 0.0
    network_start: float = 0.0
    te_stop: float = 1.0
    network_ramp: str = "none"
    network_ramp_start: float = 0.1

    def __post_init__(self) -> None:
        if self.kind not in PHASE_PLANS:
            raise TrainingError(f"phases = {self.kind!r}: unknown; use {' or '.join(PHASE_PLANS)}")
        if self.kind == "two_phase" and not 0 < self.embeddings_steps < self.max_steps:
            raise TrainingError(
                f"words_steps = {self.embeddings_steps}: a two-phase run of {self.max_steps} steps needs 1 to "
                f"{self.max_steps - 1}"
            )

    def at(self, step: int) -> Phase:
        """The phase that holds while step `step` (from 0) is computed."""
        two_phase = self.kind == "two_phase"
        start = self.embeddings_steps if two_phase else math.ceil(self.network_start * self.max_steps)
        if step < start:
            return Phase("words", 1.0, 0.0, 0.0)
        network = ramp_factor(
            self.network_ramp, step - start, steps=self.max_steps - start, start=self.network_ramp_start
        )
        te = network if step < self.te_stop * self.max_steps else 0.0
        if two_phase:
            return Phase(SECOND_PHASE, self.continued_embedding_lr_factor, network, te)
        return Phase("joint", 1.0, network, te)

    def rate_position(self, step: int) -> tuple[int, int]:
        """(step, steps) within the schedule of rates: each phase of a two-phase run has a schedule of its own."""
        if self.kind == "two_phase":
            if step < self.embeddings_steps:
                return step, self.embeddings_steps
            return step - self.embeddings_steps, self.max_steps - self.embeddings_steps
        return step, self.max_steps


# ---- the curve ----


def ramp_factor(kind: str, step: int, *, steps: int, start: float) -> float:
    """How much of its rate the network has in step `step` of its `steps`, beside the curve of all rates.

    With p = step / (steps - 1): linear start + (1 - start)·p; exponential start^(1 - p), as eden's trainer
    (edenartlab/sd-lora-trainer, main.py, 0152335: base_lr · (unet_lr / base_lr)^p), which lets textual inversion do the
    work first; none: 1.
    """
    if kind not in RAMPS:
        raise TrainingError(f"ramp {kind!r} is unknown: one of {', '.join(RAMPS)}")
    if kind == "none":
        return 1.0
    progress = min(1.0, step / max(steps - 1, 1))
    return start + (1 - start) * progress if kind == "linear" else start ** (1 - progress)


def rate_factor(
    kind: str,
    step: int,
    *,
    max_steps: int,
    warmup_steps: int = 0,
    final_factor: float = 0.0,
    cycles: int = 1,
    power: float = 1.0,
) -> float:
    """The factor of the learning rate in optimiser step `step`, which counts from 0 to `max_steps` - 1.

    Warm-up (all kinds but one_cycle): (step+1)/warmup_steps for step < warmup_steps; unlike Hugging Face's
    `get_*_schedule_with_warmup`, which gives step/warmup_steps, the first step is not thrown away.
    After it, with p = (step-warmup_steps)/(max_steps-warmup_steps) held at 1 and f = `final_factor`, f + (1-f)·s(p):

    - constant: 1 (f is not used)
    - linear: s = 1 - p
    - cosine: s = (1 + cos πp)/2 (Loshchilov & Hutter 2017, arXiv 1608.03983, eq. 5)
    - cosine_restarts: s = (1 + cos π(cycles·p mod 1))/2, restarted `cycles` - 1 times, 0 at the end
    - polynomial: s = (1 - p)^power
    - one_cycle: a cosine from `ONE_CYCLE_START` up to 1 and down to f at the last step (Smith & Topin 2017,
      arXiv 1708.07120, as torch's OneCycleLR). The peak is at step `warmup_steps` - 1, or, with no warm-up given, at
      0.3·max_steps - 1.
    """
    if kind not in RATES:
        raise TrainingError(f"learning rate schedule {kind!r} is unknown: one of {', '.join(RATES)}")
    if max_steps < 1 or step < 0 or not 0 <= warmup_steps <= max_steps:
        raise TrainingError(
            f"step {step} of {max_steps} with {warmup_steps} steps of warm-up: "
            "need step ≥ 0, at least 1 step, and a warm-up no longer than the run"
        )
    return RATES[kind](RatePlace(step, max_steps, warmup_steps, final_factor, cycles, power))


@dataclass(frozen=True)
class RatePlace:
    """Where in which run a rate is asked for; see `rate_factor`."""

    step: int
    max_steps: int
    warmup_steps: int
    final: float
    cycles: int
    power: float

    @property
    def progress(self) -> float:
        """From 0 behind the warm-up to 1 at the end."""
        if self.step >= self.max_steps:
            return 1.0
        return (self.step - self.warmup_steps) / (self.max_steps - self.warmup_steps)


RateCurve = Callable[[RatePlace], float]


def _warmed_up(curve: RateCurve) -> RateCurve:
    def rate(at: RatePlace) -> float:
        return (at.step + 1) / at.warmup_steps if at.step < at.warmup_steps else curve(at)

    return rate


def _falling(shape: RateCurve) -> RateCurve:
    """A warm-up, then `shape` from 1 to 0, brought between 1 and the final factor."""
    return _warmed_up(lambda at: at.final + (1 - at.final) * shape(at))


def _half_cosine(share: float) -> float:
    return (1 + math.cos(math.pi * share)) / 2


def _one_cycle(at: RatePlace) -> float:
    last = max(at.max_steps - 1, 1)
    peak = (at.warmup_steps if at.warmup_steps else 0.3 * at.max_steps) - 1
    peak = min(max(peak, 0.0), last)
    if at.step <= peak and peak > 0:
        return _anneal(ONE_CYCLE_START, 1.0, at.step / peak)
    return _anneal(1.0, at.final, min(1.0, (at.step - peak) / (last - peak)) if last > peak else 1.0)


def _anneal(start: float, end: float, share: float) -> float:
    """Half a cosine from `start` (share 0) to `end` (share 1)."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


RATES: Mapping[str, RateCurve] = {
    "constant": _warmed_up(lambda at: 1.0),
    "linear": _falling(lambda at: 1 - at.progress),
    "cosine": _falling(lambda at: _half_cosine(at.progress)),
    "cosine_restarts": _falling(lambda at: _half_cosine(at.cycles * at.progress % 1.0) if at.progress < 1 else 0.0),
    "polynomial": _falling(lambda at: (1 - at.progress) ** at.power),
    "one_cycle": _one_cycle,
}
"""The curves of `rate_factor`."""


# ---- into the optimiser ----


def set_rates(optimizer: Optimizer, factor: float | Mapping[str, float]) -> dict[str, float]:
    """Set lr = base_lr · lr_factor · factor in every group; returns the rates by group name.

    `factor` is one number for all, or one by group name (a missing name is an error). Works on optimisers from
    `optimizers.build_optimizer`, whose groups carry `name`, `base_lr` and `lr_factor`.
    """
    rates: dict[str, float] = {}
    for group in optimizer.param_groups:
        name = group["name"]
        if isinstance(factor, Mapping):
            if name not in factor:
                raise TrainingError(f"no learning rate factor for the group {name!r}; given: {', '.join(factor)}")
            current = factor[name]
        else:
            current = factor
        rates[name] = group["lr"] = group["base_lr"] * group["lr_factor"] * current
    return rates
