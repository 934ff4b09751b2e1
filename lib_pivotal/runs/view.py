"""A run as a page shows it: built from events, read as plain JSON values from any thread."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from lib_pivotal.runs.balance import explained
from lib_pivotal.training.events import (
    Event,
    FileSaved,
    Notice,
    PicturesMade,
    Preparing,
    RunEnded,
    RunStarted,
    SeparationMeasured,
    StepDone,
    Validated,
)

Status = Literal["idle", "preparing", "training", "paused", "waiting", "finished", "stopped", "failed"]
CURVE_POINTS = 2000
"""So many points of a curve are kept: of two neighbours one is dropped when there are more."""

NOTICES = 200
"""So many are kept: of more, the oldest that is no error goes first."""


@dataclass(frozen=True)
class PictureStep:
    """The four rows at one step: files by row label, one a column; `grid` is the labelled sheet.

    `bundle` is the file behind them, empty where it was not kept.
    """

    step: int
    columns: tuple[str, ...]
    rows: dict[str, tuple[str, ...]]
    grid: str
    bundle: str = ""


@dataclass
class Curve:
    """A figure over steps, thinned evenly when it grows long."""

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    every: int = 1
    _skipped: int = 0

    def add(self, step: int, value: float) -> None:
        """Append, or pass over what thinning leaves out and what is no number (a skipped step; JSON has none)."""
        if not math.isfinite(value):
            return
        self._skipped += 1
        if self._skipped < self.every:
            return
        self._skipped = 0
        self.steps.append(step)
        self.values.append(value)
        if len(self.steps) > CURVE_POINTS:
            self.steps, self.values = self.steps[1::2], self.values[1::2]
            self.every *= 2


@dataclass
class _Validation:
    """Validation losses over steps: means, and by embedding; with the moment that tells most."""

    means: dict[str, Curve] = field(default_factory=dict)
    held_out: dict[str, Curve] = field(default_factory=dict)
    trained: dict[str, Curve] = field(default_factory=dict)
    last: Validated | None = None

    def add(self, event: Validated) -> None:
        """Take one validation."""
        self.last = event
        means = {"held_out": event.held_out_mean, "trained": event.trained_mean}
        for curves, losses in ((self.means, means), (self.held_out, event.held_out), (self.trained, event.trained)):
            for name, loss in losses.items():
                curves.setdefault(name, Curve()).add(event.step, loss)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        last = self.last
        return {
            "means": _plain(self.means),
            "held_out": _plain(self.held_out),
            "trained": _plain(self.trained),
            "best_step": None if last is None else last.best_step,
            "best_loss": None if last is None else last.best_loss,
            "overfits": last is not None and last.overfits,
            "said": "" if last is None else last.said,
        }


class RunView:
    """What is known of a run. `listen` takes events from the training thread; `snapshot` gives a copy to anyone."""

    def __init__(self, run_id: str, name: str, *, max_steps: int, folder: Path) -> None:
        self._lock = threading.Lock()
        self.run_id = run_id
        self.folder = folder
        self._name = name
        self._status: Status = "preparing"
        self._activity = "waiting for the model"
        self._needs_checkpoint = False
        self._step = 0
        self._max_steps = max_steps
        self._phase = ""
        self._eta_s: float | None = None
        self._step_s: deque[float] = deque(maxlen=50)
        self._started = time.time()
        self._facts: dict[str, Any] = {}
        self._loss = Curve()
        self._norms: dict[str, Curve] = {}
        self._rates: dict[str, float] = {}
        self._images_seen: dict[str, int] = {}
        self._shares: dict[str, Curve] = {}
        self._explained: dict[str, Curve] = {}
        self._validation = _Validation()
        self._notices: list[dict[str, Any]] = []
        self._files: list[dict[str, Any]] = []
        self._pictures: list[PictureStep] = []
        self._ended: dict[str, Any] | None = None

    def listen(self, event: Event) -> None:
        """Take one event."""
        with self._lock:
            self._take(event)

    def set_status(self, status: Status, activity: str = "", *, needs_checkpoint: bool = False) -> None:
        """What the manager knows: waiting for the model or its checkpoint, paused, the model yielded to another job."""
        with self._lock:
            if self._ended is None:
                self._status, self._activity, self._needs_checkpoint = status, activity, needs_checkpoint

    @property
    def name(self) -> str:
        """The name of the run's bundle, without ending."""
        return self._name

    @property
    def step(self) -> int:
        """Steps done so far."""
        return self._step

    @property
    def began(self) -> bool:
        """Whether it was accepted, and its first step came near."""
        return bool(self._facts)

    @property
    def ended(self) -> bool:
        """Whether the run's last event has come."""
        return self._ended is not None

    def _take(self, event: Event) -> None:
        if isinstance(event, Preparing):
            count = f" ({event.done} of {event.total})" if event.total else ""
            self._status, self._activity = "preparing", event.activity + count
        elif isinstance(event, RunStarted):
            self._status, self._activity = "training", ""
            self._step, self._max_steps = event.first_step, event.max_steps
            self._facts = {
                "embeddings": list(event.embeddings),
                "trained_parameters": event.trained_parameters,
                "optimizer_bytes": event.optimizer_bytes,
                "said": event.said,
            }
        elif isinstance(event, StepDone):
            self._take_step(event)
        elif isinstance(event, Notice):
            self._notices.append({"level": event.level, "step": event.step, "message": event.message})
            if len(self._notices) > NOTICES:
                harmless = (place for place, notice in enumerate(self._notices) if notice["level"] != "error")
                del self._notices[next(harmless, 0)]
        elif isinstance(event, FileSaved):
            self._files.append({"step": event.step, "kind": event.kind, "path": str(event.path)})
        elif isinstance(event, PicturesMade):
            rows = {label: tuple(str(path) for path in paths) for label, paths in event.cells.items()}
            files = str(event.path or ""), str(event.bundle or "")
            self._pictures.append(PictureStep(event.step, tuple(event.columns), rows, *files))
        elif isinstance(event, SeparationMeasured):
            for embedding, share in event.shares.items():
                self._shares.setdefault(embedding, Curve()).add(event.step, share)
            for part, share in explained(event.losses).items():
                self._explained.setdefault(part, Curve()).add(event.step, share)
        elif isinstance(event, Validated):
            self._validation.add(event)
        elif isinstance(event, RunEnded):
            self._status, self._activity, self._eta_s = event.reason, "", None
            self._step = event.step
            self._ended = {**asdict(event), "bundle": None if event.bundle is None else str(event.bundle)}

    def _take_step(self, event: StepDone) -> None:
        if self._status not in ("paused", "waiting"):
            self._status, self._activity = "training", ""
        self._step, self._max_steps = event.step, event.max_steps
        self._phase, self._eta_s = event.phase, event.eta_seconds
        self._step_s.append(event.seconds)
        self._rates, self._images_seen = event.rates, event.images_seen
        self._loss.add(event.step, event.losses["loss"])
        for embedding, norm in event.embedding_norms.items():
            self._norms.setdefault(embedding, Curve()).add(event.step, norm)

    def snapshot(self) -> dict[str, Any]:
        """Everything, as values that JSON can hold."""
        with self._lock:
            typical_s = sorted(self._step_s)[len(self._step_s) // 2] if self._step_s else None
            return {
                "id": self.run_id,
                "name": self._name,
                "folder": str(self.folder),
                "status": self._status,
                "activity": self._activity,
                "needs_checkpoint": self._needs_checkpoint,
                "step": self._step,
                "max_steps": self._max_steps,
                "phase": self._phase,
                "step_seconds": typical_s,
                "eta_seconds": self._eta_s,
                "started_at": self._started,
                "facts": dict(self._facts),
                "loss": {"steps": list(self._loss.steps), "values": list(self._loss.values)},
                "embedding_norms": _plain(self._norms),
                "shares": _plain(self._shares),
                "explained": _plain(self._explained),
                "validation": self._validation.as_dict(),
                "learning_rates": dict(self._rates),
                "images_seen": dict(self._images_seen),
                "notices": list(self._notices),
                "files": list(self._files),
                "pictures": [asdict(pictures) for pictures in self._pictures],
                "ended": self._ended,
            }


def _plain(curves: dict[str, Curve]) -> dict[str, Any]:
    return {name: {"steps": list(curve.steps), "values": list(curve.values)} for name, curve in curves.items()}
