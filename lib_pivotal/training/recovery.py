"""What to do when a step goes wrong: non-finite numbers and lack of memory.

Non-finite: the step is skipped; if it goes on, everything returns to the last good snapshot and the rates are halved.
Memory: micro-batches are halved and accumulated, so that the effective batch and its noise stay the same.
"""

from __future__ import annotations

import gc
from typing import Any

import torch

from lib_pivotal.errors import TrainingError
from lib_pivotal.training.trainable import Trainable

SKIPS_BEFORE_ROLLBACK = 3
ROLLBACKS_BEFORE_FAILURE = 5
RATE_FACTOR = 0.5


class Guard:
    """Keeps a snapshot of the last good state in memory and counts what went wrong."""

    def __init__(self, trainable: Trainable, *, every_steps: int = 100) -> None:
        self._trainable = trainable
        self._every_steps = every_steps
        self._snapshot: dict[str, Any] = trainable.state_dict()
        self._skips = 0
        self._rollbacks = 0
        self._steps = 0

    def good_step(self) -> None:
        """After a step with finite loss and gradients."""
        self._skips = 0
        self._steps += 1
        if self._steps % self._every_steps == 0:
            self._snapshot = self._trainable.state_dict()
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
        return f"not finite {SKIPS_BEFORE_ROLLBACK} times in a row: back to the last good state, rates times {scale:g}"

    def restore(self) -> None:
        """Return to the snapshot."""
        self._trainable.load_state_dict(self._snapshot)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory, of the GPU or of the machine, did not suffice."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text
    )


def release_memory() -> None:
    """Give freed memory back before a step is tried again."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
