"""What a run tells (events, out) and what it can be told (commands, in).

The loop knows neither gradio nor a terminal: it calls one function with events and polls one `Commands` object.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from PIL import Image

Reason = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True)
class RunStarted:
    """The run begins, or goes on from `first_step`."""

    name: str
    first_step: int
    max_steps: int
    embeddings: tuple[str, ...]
    trained_parameters: int
    optimizer_bytes: int
    said: str = ""
    """Which parts are trained, with their learning rates and parameters, and which are not, in a line."""


@dataclass(frozen=True)
class Preparing:
    """Before the first step: what is done now, and how far it is (`total` 0 where that is not known)."""

    activity: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class StepDone:
    """After each optimiser step. `step` counts from 1; rates and norms are by group (`word aoi`, `unet`, `te`).

    `losses["loss"]` is the mean of the run's own pictures; further sets (`class pictures`, `preservation`) follow with
    their weight in them.
    """

    step: int
    max_steps: int
    phase: str
    losses: dict[str, float]
    rates: dict[str, float]
    gradient_norms: dict[str, float]
    embedding_norms: dict[str, float]
    images_seen: dict[str, int]
    seconds: float
    eta_seconds: float


@dataclass(frozen=True)
class Notice:
    """Something to tell the user in words: a skipped step, a roll-back, a smaller micro-batch."""

    level: Literal["info", "warning", "error"]
    step: int
    message: str


@dataclass(frozen=True)
class FileSaved:
    """A file was written, read back and found equal; `best` is the bundle of the lowest validation loss."""

    step: int
    kind: Literal["bundle", "state", "embedding", "best"]
    path: Path


@dataclass(frozen=True, eq=False)
class PicturesMade:
    """The four rows at a step: the labelled sheet, and each picture's file by row label, one a column.

    `bundle` is the file that the pictures were made with, where it was kept.
    """

    step: int
    grid: Image.Image
    path: Path | None = None
    columns: tuple[str, ...] = ()
    cells: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    bundle: Path | None = None


@dataclass(frozen=True)
class SeparationMeasured:
    """Held-out losses with parts off, and the embeddings' share, by embedding."""

    step: int
    losses: dict[str, dict[str, float]]
    shares: dict[str, float]


@dataclass(frozen=True)
class Validated:
    """The loss on held-out pictures and on as many trained ones: by embedding ("" in a run without), and their means.

    `best_step` is the step of the lowest validation loss so far; `said` tells overfitting in a sentence, else "".
    """

    step: int
    held_out: dict[str, float]
    trained: dict[str, float]
    held_out_mean: float
    trained_mean: float
    best_step: int
    best_loss: float
    overfits: bool
    said: str = ""


@dataclass(frozen=True)
class RunEnded:
    """The last event of a run."""

    reason: Reason
    step: int
    seconds: float
    bundle: Path | None
    message: str = ""


Event = (
    Preparing | RunStarted | StepDone | Notice | FileSaved | PicturesMade | SeparationMeasured | Validated | RunEnded
)
Listener = Callable[[Event], None]


@dataclass
class Commands:
    """Requests to a running loop; safe to call from any thread. Each request but stop and pause is served once."""

    _stop: threading.Event = field(default_factory=threading.Event)
    _running: threading.Event = field(default_factory=threading.Event)
    _save: threading.Event = field(default_factory=threading.Event)
    _sample: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._running.set()

    def stop(self) -> None:
        """End after the step in hand, and save."""
        self._stop.set()
        self._running.set()

    def save_now(self) -> None:
        """Write a bundle and a state after the step in hand."""
        self._save.set()

    def sample_now(self) -> None:
        """Draw the four rows after the step in hand."""
        self._sample.set()

    def pause(self) -> None:
        """Wait after the step in hand."""
        self._running.clear()

    def resume(self) -> None:
        """Go on."""
        self._running.set()

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    @property
    def paused(self) -> bool:
        return not self._running.is_set()

    def take_save(self) -> bool:
        """True once after `save_now`."""
        taken = self._save.is_set()
        self._save.clear()
        return taken

    def take_sample(self) -> bool:
        """True once after `sample_now`."""
        taken = self._sample.is_set()
        self._sample.clear()
        return taken

    def wait_while_paused(self) -> None:
        """Block until resumed or stopped."""
        self._running.wait()
