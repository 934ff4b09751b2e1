"""Who trains when: the pivot.

*Joint* trains words and network together; the network may start late, the text encoder's network may stop early.
*Two-phase* (cloneofsimo/lora's PTI) trains the words alone, then the network, the words frozen or at another rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lib_pivotal.errors import TrainingError


@dataclass(frozen=True)
class Phase:
    """Factors of the learning rates at one step; 0 means that the part is not trained at all."""

    name: str
    words: float
    unet: float
    te: float


@dataclass(frozen=True)
class PhasePlan:
    """The plan of a run of `max_steps` steps; steps count from 0."""

    max_steps: int
    kind: Literal["joint", "two_phase"] = "joint"
    words_steps: int = 0
    continued_words_factor: float = 0.0
    network_start: float = 0.0
    te_stop: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in ("joint", "two_phase"):
            raise TrainingError(f"phases = {self.kind!r}: unknown; use joint or two_phase")
        if self.kind == "two_phase" and not 0 < self.words_steps < self.max_steps:
            raise TrainingError(
                f"words_steps = {self.words_steps}: a two-phase run of {self.max_steps} steps needs 1 to "
                f"{self.max_steps - 1}"
            )

    def at(self, step: int) -> Phase:
        """The phase that holds while step `step` (from 0) is computed."""
        te = 1.0 if step < self.te_stop * self.max_steps else 0.0
        if self.kind == "two_phase":
            if step < self.words_steps:
                return Phase("words", 1.0, 0.0, 0.0)
            return Phase("network", self.continued_words_factor, 1.0, te)
        if step < self.network_start * self.max_steps:
            return Phase("words", 1.0, 0.0, 0.0)
        return Phase("joint", 1.0, 1.0, te)

    def rate_position(self, step: int) -> tuple[int, int]:
        """(step, steps) within the schedule of rates: each phase of a two-phase run has a schedule of its own."""
        if self.kind == "two_phase":
            if step < self.words_steps:
                return step, self.words_steps
            return step - self.words_steps, self.max_steps - self.words_steps
        return step, self.max_steps
