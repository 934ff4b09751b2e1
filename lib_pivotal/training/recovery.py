"""What to do when numbers of a step are not finite.

The step is skipped; if it goes on, everything returns to the last good snapshot and the rates are halved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from lib_pivotal.errors import TrainingError
from lib_pivotal.training.first_phase import FirstPhase
from lib_pivotal.training.progress import Progress
from lib_pivotal.training.trainable import Trainable
from lib_pivotal.training.validation import ValidationProgress

SKIPS_BEFORE_ROLLBACK = 3
ROLLBACKS_BEFORE_FAILURE = 5
RATE_FACTOR = 0.5


class RollbackGuard:
    """Keeps a snapshot of the last good state in memory, with how far the run was, and counts what went wrong."""

    def __init__(self, trainable: Trainable, progress: Progress, *, every_steps: int = 100) -> None:
        self._trainable = trainable
        self._progress = progress
        self._every_steps = every_steps
        self._snapshot: dict[str, Any] = trainable.state_dict()
        self._reached = self._place()
        self._skips = 0
        self._rollbacks = 0
        self._steps = 0

    def good_step(self) -> None:
        """After a step with finite loss and gradients, once it is counted.

        A snapshot is taken every so many of them, and at first after 1, 2, 4, 8, ...: so that a young run that goes bad
        has lost half of its steps at most.
        """
        self._skips = 0
        self._steps += 1
        regular = self._steps % self._every_steps == 0
        early = self._steps < self._every_steps and self._steps.bit_count() == 1
        if (regular or early) and self._take() and regular:
            self._rollbacks = 0

    def bad_step(self) -> str:
        """After a step that was not applied; returns what was done, in words.

        Raises:
            TrainingError: it keeps happening whatever the rate.
        """
        scaler = self._trainable.scaler
        if not scaler.at_floor:
            return f"fp16 overflow: the step was skipped and the loss scale lowered to {scaler.scale:g}"
        self._skips += 1
        if self._skips < SKIPS_BEFORE_ROLLBACK:
            return "loss or gradients were not finite: the step was skipped"
        self._rollbacks += 1
        if self._rollbacks > ROLLBACKS_BEFORE_FAILURE:
            raise TrainingError(
                f"loss or gradients stay non-finite after {ROLLBACKS_BEFORE_FAILURE} roll-backs. Lower the learning "
                "rates, or train in bf16 or fp32 (memory.precision); the last good state is kept"
            )
        self._skips = 0
        scale = self._trainable.rate_scale * RATE_FACTOR
        self.restore()
        self._trainable.rate_scale = scale
        self._snapshot["rate_scale"] = scale
        return (
            f"not finite {SKIPS_BEFORE_ROLLBACK} times in a row: back to the last good state, learning rates × "
            f"{scale:g}"
        )

    def restore(self) -> None:
        """Return to the snapshot; the run's steps count on."""
        self._trainable.load_state_dict(self._snapshot)

    def go_back(self) -> None:
        """Return to the snapshot and to the step that it was taken after, so that a state of it can be saved."""
        self.restore()
        step, seen, first_phase, validation = self._reached
        self._progress.step, self._progress.images_seen = step, Counter(seen)
        self._progress.first_phase, self._progress.validation = first_phase, validation

    def keep(self) -> dict[str, Any]:
        """What is trained becomes the snapshot, and is returned: a state that is saved now and read back later leaves
        a resumed run and an undisturbed one with the same snapshot.

        Raises:
            TrainingError: it is not finite; the snapshot stays the one before.
        """
        if not self._take():
            raise TrainingError(
                f"what is trained is not finite after step {self._progress.step}: no state of it is saved, the last "
                "good one is kept"
            )
        return self._snapshot

    def _take(self) -> bool:
        """A new snapshot; not where what is trained is not finite. Looked at behind the copy, not before it."""
        copy = self._trainable.state_dict()
        if not self._trainable.is_finite():
            return False
        self._snapshot, self._reached = copy, self._place()
        return True

    def _place(self) -> tuple[int, Counter[str], FirstPhase, ValidationProgress]:
        """How far the run is, to return to."""
        progress = self._progress
        return progress.step, Counter(progress.images_seen), progress.first_phase, progress.validation

    def state_dict(self) -> dict[str, int]:
        """The counters; the snapshot is what was trained when `keep` was called."""
        return {"skips": self._skips, "rollbacks": self._rollbacks, "steps": self._steps}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Take over a `state_dict()`."""
        self._skips, self._rollbacks, self._steps = state["skips"], state["rollbacks"], state["steps"]
