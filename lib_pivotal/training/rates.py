"""Learning rates as pure functions of the step: nothing to save, so that a resumed run is exact by construction.

The rate of a group at a step is `base_lr · lr_factor · factor(step)`; `set_rates` writes it into the optimiser.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch.optim import Optimizer

from lib_pivotal.errors import TrainingError

RATE_KINDS = ("constant", "linear", "cosine", "cosine_restarts", "one_cycle", "polynomial")


def rate_factor(
    kind: str,
    step: int,
    *,
    max_steps: int,
    warmup_steps: int = 0,
    final_factor: float = 0.0,
    cycles: int = 1,
    power: float = 1.0,
    start_factor: float = 0.04,
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
    - one_cycle: a cosine from `start_factor` up to 1 and down to f at the last step (Smith & Topin 2017,
      arXiv 1708.07120, as torch's OneCycleLR). The peak is at step `warmup_steps` - 1, or, with no warm-up given, at
      0.3·max_steps - 1.
    """
    if kind not in RATE_KINDS:
        raise TrainingError(f"learning rate schedule {kind!r} is unknown: one of {', '.join(RATE_KINDS)}")
    if max_steps < 1 or step < 0 or not 0 <= warmup_steps <= max_steps:
        raise TrainingError(
            f"step {step} of {max_steps} with {warmup_steps} steps of warm-up: "
            "need step ≥ 0, at least 1 step, and a warm-up no longer than the run"
        )
    if kind == "one_cycle":
        return _one_cycle(step, max_steps, warmup_steps, start_factor, final_factor)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if kind == "constant":
        return 1.0
    progress = (step - warmup_steps) / (max_steps - warmup_steps) if step < max_steps else 1.0
    if kind == "linear":
        shape = 1 - progress
    elif kind == "polynomial":
        shape = (1 - progress) ** power
    elif kind == "cosine":
        shape = (1 + math.cos(math.pi * progress)) / 2
    else:
        shape = (1 + math.cos(math.pi * (cycles * progress % 1.0))) / 2 if progress < 1 else 0.0
    return final_factor + (1 - final_factor) * shape


def _one_cycle(step: int, max_steps: int, warmup_steps: int, start: float, final: float) -> float:
    last = max(max_steps - 1, 1)
    peak = (warmup_steps if warmup_steps else 0.3 * max_steps) - 1
    peak = min(max(peak, 0.0), last)
    if step <= peak and peak > 0:
        return _anneal(start, 1.0, step / peak)
    return _anneal(1.0, final, min(1.0, (step - peak) / (last - peak)) if last > peak else 1.0)


def _anneal(start: float, end: float, share: float) -> float:
    """Half a cosine from `start` (share 0) to `end` (share 1)."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


# ---- stepwise rates, as the web UI's textual inversion tab takes them ----


@dataclass(frozen=True)
class StepwiseRates:
    """Rates with the step each holds until: `((0.005, 100), (0.001, 1000), (1e-5, None))`, None for the rest."""

    pieces: tuple[tuple[float, int | None], ...]

    def __call__(self, step: int) -> float:
        """The learning rate itself in step `step`, counted from 0; after the last piece its rate is held."""
        for rate, end in self.pieces:
            if end is None or step < end:
                return rate
        return self.pieces[-1][0]


def parse_stepwise(text: str) -> StepwiseRates:
    """Read "0.005:100, 1e-3:1000, 1e-5": 0.005 until step 100, 1e-3 until 1000, then 1e-5; or a single number.

    The web UI's syntax (modules/textual_inversion/learn_schedule.py, v1.10.1), where an end of -1 means the end of
    the run. It silently ignores what follows a piece without an end; here that is an error.
    """
    pieces: list[tuple[float, int | None]] = []
    for piece in (part.strip() for part in text.split(",")):
        if not piece:
            continue
        rate_text, colon, end_text = (part.strip() for part in piece.partition(":"))
        try:
            rate = float(rate_text)
            end = int(end_text) if colon else None
        except ValueError:
            raise _stepwise_error(text, f"{piece!r} is not LR or LR:step") from None
        if not (math.isfinite(rate) and rate >= 0):
            raise _stepwise_error(text, f"the learning rate {rate_text} is not a number of 0 or more")
        end = None if end == -1 else end
        if pieces and pieces[-1][1] is None:
            raise _stepwise_error(text, f"{piece!r} comes after a learning rate that holds to the end")
        before = pieces[-1][1] if pieces else 0
        if end is not None and before is not None and end <= before:
            raise _stepwise_error(text, f"{piece!r} ends at or before step {before}")
        pieces.append((rate, end))
    if not pieces:
        raise _stepwise_error(text, "it is empty")
    return StepwiseRates(tuple(pieces))


def _stepwise_error(text: str, problem: str) -> TrainingError:
    return TrainingError(
        f"learning rate {text!r}: {problem}. Write a number, or values with the step each holds until, "
        'such as "0.005:100, 1e-3:1000, 1e-5"'
    )


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
