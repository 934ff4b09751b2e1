"""What a run writes and shows while its loop goes on: bundles, states, pictures, scores.

Nothing of it may end a run. What cannot be written is told as a notice and tried again the next time that it is due; at
the end the bundle comes first, and then, unless the run is finished, the state.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch

from lib_pivotal.errors import PivotalError
from lib_pivotal.oom import is_out_of_memory, release_memory
from lib_pivotal.training.events import Event, FileSaved, Listener, Notice, Reason
from lib_pivotal.training.progress import Progress
from lib_pivotal.training.recovery import RollbackGuard
from lib_pivotal.training.state import save_state
from lib_pivotal.training.trainable import Trainable
from lib_pivotal.training.validation import ValidationLosses

logger = logging.getLogger(__name__)
_CONTINUES = "The run continues, and it is tried again the next time"


class Outputs(Protocol):
    """What is called to write and to look; each runs with the weights as a file would hold them."""

    def save_bundle(self, step: int, final: bool) -> list[Event]: ...
    def make_pictures(self, step: int) -> list[Event]: ...
    def measure_separation(self, step: int) -> list[Event]: ...
    def embeddings_gain(self) -> float: ...
    def validation_losses(self) -> ValidationLosses: ...
    def keep_best(self, step: int) -> list[Event]: ...
    def write_copy(self, path: Path) -> Path: ...


class Keeper:
    """Writes what a run gives; only in the process that writes."""

    def __init__(
        self,
        outputs: Outputs,
        trainable: Trainable,
        progress: Progress,
        emit: Listener,
        *,
        state_folder: Path | None,
        keep_states: int,
        basis: Mapping[str, Any],
        state_when_finished: bool = False,
        writes: bool = True,
    ) -> None:
        self._outputs = outputs
        self._trainable = trainable
        self._progress = progress
        self._emit = emit
        self._state_folder = state_folder
        self._keep_states = keep_states
        self._basis = basis
        self._state_when_finished = state_when_finished
        self._writes = writes

    def make_pictures(self) -> None:
        """Draw the parts grid of this step."""
        self._look(self._outputs.make_pictures)

    def measure_separation(self) -> None:
        """Measure the separation of this step."""
        self._look(self._outputs.measure_separation)

    def embeddings_gain(self) -> float:
        """What the embeddings explain of the held-out loss now (`training.first_phase`); NaN where that could not be
        told, and in processes that do not write."""
        found = [math.nan]

        def measure(step: int) -> list[Event]:
            found.append(self._outputs.embeddings_gain())
            return []

        self._look(measure)
        return found[-1]

    def validation_losses(self) -> ValidationLosses:
        """Losses of held-out pictures now; NaN where they could not be told, and in processes that do not write."""
        found = [ValidationLosses()]

        def measure(step: int) -> list[Event]:
            found.append(self._outputs.validation_losses())
            return []

        self._look(measure)
        return found[-1]

    def keep_best(self) -> None:
        """The bundle of this step as that of the lowest validation loss."""
        self._look(self._outputs.keep_best)

    def write_copy(self, path: Path) -> Path:
        """The bundle as it is now, at `path`."""
        with torch.no_grad(), self._trainable.evaluated():
            return self._outputs.write_copy(path)

    def save_bundle(self) -> None:
        """The bundle of this step, on the way."""
        if not self._writes:
            return
        step = self._progress.step
        try:
            self._write_bundle(final=False)
        except Exception as error:
            log_details(error, "the bundle of step %d could not be saved", step)
            self._tell(f"the bundle of step {step} was not saved: {reason_of(error)}. {_CONTINUES}")

    def save_state(self, guard: RollbackGuard) -> Path | None:
        """The state of this step, also as the snapshot that a roll-back returns to; None where it was not written.

        The snapshot is taken in every process: all must return to the same.
        """
        step = self._progress.step
        try:
            content: dict[str, Any] = {
                "trainable": guard.keep(),
                "guard": guard.state_dict(),
                "images_seen": dict(self._progress.images_seen),
                "splits": self._progress.splits,
                "first_phase": asdict(self._progress.first_phase),
                "shares": dict(self._progress.shares),
                "validation": asdict(self._progress.validation),
                "basis": self._basis,
            }
            if self._state_folder is None or not self._writes:
                return None
            path = save_state(self._state_folder, step, content, keep=self._keep_states)
        except Exception as error:
            log_details(error, "the state of step %d could not be saved", step)
            self._tell(f"{reason_of(error)}. {_CONTINUES}")
            return None
        self._emit(FileSaved(step, "state", path))
        return path

    def save_at_end(
        self, reason: Reason, guard: RollbackGuard | None, *, torn: bool = False
    ) -> tuple[Path | None, str]:
        """The bundle first, then the state; a run that ended before its first step writes nothing.

        A finished run leaves its state, too, where states are kept: continued, it goes on from its end, and a stop then
        never puts an earlier step in the place of the finished file.

        Where the last step is `torn` (begun, not counted), nothing could be continued from it exactly: the bundle holds
        it, the state is that of the last snapshot.

        Returns the bundle's place, and a sentence where what was trained could not be written anywhere.
        """
        if not self._writes or (self._progress.step == 0 and reason != "finished"):
            return None, ""
        path, fault = None, ""
        try:
            path = self._write_bundle(final=True)
        except Exception as error:  # reported: the state below may still be saved
            log_details(error, "the bundle could not be saved")
            fault = f"the bundle could not be saved anywhere: {reason_of(error)}"
        if (reason != "finished" or fault or self._state_when_finished) and guard is not None:
            if torn:
                guard.go_back()
            kept = self.save_state(guard) if self._progress.step else None
            if fault and kept is not None:
                fault += f". What was trained is in the state {kept}: make room and continue the run"
        if fault:
            self._tell(fault)
        return path, fault

    def _write_bundle(self, *, final: bool) -> Path | None:
        with torch.no_grad(), self._trainable.evaluated():
            events = self._outputs.save_bundle(self._progress.step, final)
        for event in events:
            self._emit(event)
        return next((event.path for event in events if isinstance(event, FileSaved) and event.kind == "bundle"), None)

    def _look(self, make: Callable[[int], list[Event]]) -> None:
        if not self._writes:
            return
        step, events, no_memory = self._progress.step, list[Event](), False
        try:
            with torch.no_grad(), self._trainable.evaluated():
                events = make(step)
        except Exception as error:
            log_details(error, "looking at step %d failed", step)
            self._tell(f"pictures or scores of step {step} failed: {reason_of(error)}")
            no_memory = is_out_of_memory(error)
        if no_memory:
            release_memory()
        for event in events:
            self._emit(event)

    def _tell(self, message: str) -> None:
        if self._writes:
            self._emit(Notice("error", self._progress.step, message))


def reason_of(error: Exception) -> str:
    """An error in one sentence; those of other libraries with their kind."""
    text = str(error).strip()
    return text if isinstance(error, PivotalError) else f"{type(error).__name__}: {text}"


def log_details(error: Exception, message: str, *arguments: object) -> None:
    """The traceback of what the user is told in a sentence: to be seen where nobody expected the error."""
    expected = isinstance(error, PivotalError | OSError)
    logger.log(logging.DEBUG if expected else logging.ERROR, message, *arguments, exc_info=error)
