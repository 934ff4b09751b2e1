"""When a first phase of embeddings alone ends by itself: their held-out gain has stopped rising.

The gain is the part of the held-out loss that the embeddings explain without the network, 1 - L_embeddings / L_base,
L_base that of the embeddings as they began; the mean over embeddings. (The *share* of the embeddings, which compares
with the network on, is 1 as long as the network has not moved.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

SMALLEST_RISE = 0.01
"""A rise counts where it is above this part of the largest gain so far."""


@dataclass(frozen=True)
class FirstPhase:
    """How far a first phase is; kept with every state.

    `looked_at` is the step of the last look, `best_gain` the largest gain so far, `waited` the looks since it rose, and
    `skipped` the steps by which the phase was shorter than planned, 0 while it lasts.
    """

    looked_at: int = 0
    best_gain: float = 0.0
    waited: int = 0
    skipped: int = 0


@dataclass(frozen=True)
class FirstPhaseEnd:
    """The rule: every `every_steps` the gain is looked at; the phase ends where it has not risen for `patience` looks,
    not before `least_steps`, and at `most_steps` in any case. `patience` 0: at `most_steps`.
    """

    patience: int = 0
    every_steps: int = 50
    least_steps: int = 0
    most_steps: int = 0

    def is_due(self, step: int, phase: FirstPhase) -> bool:
        """Whether to look after `step` finished steps: once each time, also where a state was saved before the look."""
        if self.patience == 0 or phase.skipped or not 0 < step < self.most_steps:
            return False
        return step % self.every_steps == 0 and phase.looked_at < step

    def after_look(self, step: int, gain: float, phase: FirstPhase) -> FirstPhase:
        """The phase after a look that found `gain`; one that is not a number neither rises nor counts."""
        phase = replace(phase, looked_at=step)
        if gain > phase.best_gain * (1 + SMALLEST_RISE):
            return replace(phase, best_gain=gain, waited=0)
        waited = phase.waited + (0 if math.isnan(gain) else 1)
        ended = waited >= self.patience and step >= self.least_steps
        return replace(phase, waited=waited, skipped=self.most_steps - step if ended else 0)


def gain(losses: Mapping[str, float], base: Mapping[str, float]) -> float:
    """Mean of 1 - loss / base over embeddings; NaN where there is none."""
    gains = [1 - losses[name] / base[name] for name in losses if base[name] > 0]
    return sum(gains) / len(gains) if gains else math.nan
