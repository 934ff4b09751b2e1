"""A run on a terminal: one live line with bar, rate, time left and loss; everything else on lines of its own."""

from __future__ import annotations

import sys
from typing import TextIO

from lib_pivotal.training.events import (
    Event,
    FileSaved,
    Notice,
    PicturesMade,
    RunEnded,
    RunStarted,
    SeparationMeasured,
    StepDone,
    Validated,
)

BAR_WIDTH = 28
SMOOTHING = 0.98


class ConsoleListener:
    """Listens to a run and writes to `stream`; on a terminal the line moves, in a log it comes every 50 steps."""

    def __init__(self, stream: TextIO | None = None, *, log_every_steps: int = 50) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._log_every_steps = log_every_steps
        self._loss: float | None = None
        self._rate: float | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone):
            self._step(event)
        elif isinstance(event, RunStarted):
            embeddings = ", ".join(event.embeddings) or "no embeddings"
            self._line(f"training {event.name}: {embeddings}; {event.trained_parameters:,} parameters")
            if event.said:
                self._line(event.said)
        elif isinstance(event, Notice):
            self._line(f"{event.level}: {event.message}")
        elif isinstance(event, FileSaved) and event.kind != "state":
            self._line(f"saved {event.path}")
        elif isinstance(event, PicturesMade) and event.path is not None:
            self._line(f"samples {event.path}")
        elif isinstance(event, SeparationMeasured):
            shares = ", ".join(f"{name} {share:.0%}" for name, share in event.shares.items())
            self._line(f"separation, share in the embeddings: {shares}")
        elif isinstance(event, Validated):
            text = f"validation loss {event.held_out_mean:.4f}, of trained pictures {event.trained_mean:.4f}"
            self._line(f"{text}; lowest {event.best_loss:.4f} at step {event.best_step}")
        elif isinstance(event, RunEnded):
            self._line(f"{event.message or event.reason} ({clock(event.seconds)})")

    def _step(self, event: StepDone) -> None:
        loss = event.losses.get("loss", float("nan"))
        if loss == loss:
            self._loss = loss if self._loss is None else SMOOTHING * self._loss + (1 - SMOOTHING) * loss
        rate = 1 / max(event.seconds, 1e-9)
        self._rate = rate if self._rate is None else 0.95 * self._rate + 0.05 * rate
        text = (
            f"{bar(event.step / event.max_steps)} {event.step}/{event.max_steps} {event.phase} "
            f"{self._rate:.2f} it/s, {clock(event.eta_seconds)} left, loss {self._loss or loss:.4f}"
        )
        if self._live:
            self._stream.write(f"\r\x1b[K{text}")
            self._stream.flush()
        elif event.step % self._log_every_steps == 0 or event.step == event.max_steps:
            self._line(text)

    def _line(self, text: str) -> None:
        self._stream.write(f"\r\x1b[K{text}\n" if self._live else f"{text}\n")
        self._stream.flush()


def bar(share: float, width: int = BAR_WIDTH) -> str:
    """`[=====>     ]`."""
    full = round(min(max(share, 0.0), 1.0) * width)
    return f"[{'=' * full}{' ' * (width - full)}]"


def clock(seconds: float) -> str:
    """`2:05` or `1:02:05`."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"
