"""Events written down: JSON lines, a CSV of the steps, and TensorBoard where it is installed."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import importlib
import importlib.util
import io
import json
import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib_pivotal.files import replacing
from lib_pivotal.training.events import Event, Listener, Notice, PicturesMade, RunStarted, StepDone, Validated

logger = logging.getLogger(__name__)
PENDING_CHARACTERS = 1_000_000


def event_record(event: Event) -> dict[str, Any]:
    """An event as JSON-able values, with its kind; numbers that JSON does not know become null."""
    record: dict[str, Any] = {"event": type(event).__name__}
    for field in dataclasses.fields(event):
        if isinstance(event, PicturesMade) and field.name == "grid":
            continue
        record[field.name] = _plain(getattr(event, field.name))
    return record


class AppendedFile:
    """Text that grows at its end, whole lines only: what the disk does not take is kept and tried with the next.

    At most `PENDING_CHARACTERS` are kept; of more the oldest lines are dropped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pending: list[str] = []

    def append(self, line: str) -> None:
        """Add a line (with its line break). Raises OSError where it could not be written yet."""
        self._pending.append(line)
        while len(self._pending) > 1 and sum(map(len, self._pending)) > PENDING_CHARACTERS:
            del self._pending[0]
        data = "".join(self._pending).encode()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b", buffering=0) as stream:  # a buffer would write again when it is closed
            length = stream.seek(0, os.SEEK_END)
            try:
                if length and _last_byte(stream) != b"\n":  # a process was killed in the middle of a line
                    data = b"\n" + data
                while data:
                    data = data[stream.write(data) :]
            except OSError:
                with contextlib.suppress(OSError):  # else half a line may stay; the next begins behind it
                    os.ftruncate(stream.fileno(), length)
                raise
        self._pending.clear()

    def replace(self, text: str) -> None:
        """Put `text` in place of everything that is there, in one step."""
        with replacing(self.path) as temporary:
            temporary.write_bytes(text.encode())


class JsonLinesLog:
    """Appends every event to a file, one line each, flushed, so that a killed run's log is whole lines."""

    def __init__(self, path: Path) -> None:
        self._file = AppendedFile(path)
        self.title = path.name

    def __call__(self, event: Event) -> None:
        self._file.append(json.dumps(event_record(event), ensure_ascii=False) + "\n")


class CsvLog:
    """Steps as a table: step, loss, seconds, then rates and norms by group; columns are fixed by the first step.

    A run that begins anew begins the table anew; one that is continued first drops the rows behind the step that it
    goes on from: those steps come again.
    """

    def __init__(self, path: Path) -> None:
        self._file = AppendedFile(path)
        self._columns: list[str] = []
        self.title = path.name

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self._begin(event.first_step)
        if not isinstance(event, StepDone):
            return
        row: dict[str, Any] = {"step": event.step, "phase": event.phase, "seconds": event.seconds, **event.losses}
        for prefix, values in (("rate", event.rates), ("grad", event.gradient_norms), ("norm", event.embedding_norms)):
            row.update({f"{prefix} {name}": value for name, value in values.items()})
        head = ""
        if not self._columns:
            self._columns = self._header()
        if not self._columns:
            self._columns = list(row)
            head = _csv_line(self._columns)
        self._file.append(head + _csv_line([row.get(column, "") for column in self._columns]))

    def _begin(self, first_step: int) -> None:
        self._columns = []
        path = self._file.path
        if not path.exists():
            return
        if first_step == 0:
            path.unlink()
            return
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.reader(stream))
        if not rows or "step" not in rows[0]:
            path.unlink()
            return
        place, wanted = rows[0].index("step"), {str(step) for step in range(1, first_step + 1)}
        kept = [row for row in rows[1:] if len(row) == len(rows[0]) and row[place] in wanted]
        if len(kept) + 1 < len(rows):
            self._file.replace("".join(map(_csv_line, [rows[0], *kept])))

    def _header(self) -> list[str]:
        try:
            with self._file.path.open(encoding="utf-8", newline="") as stream:
                return next(csv.reader(stream), [])
        except FileNotFoundError:
            return []


def _last_byte(stream: io.FileIO) -> bytes:
    """Leaves the stream at its end."""
    stream.seek(-1, os.SEEK_END)
    return stream.read(1)


def _csv_line(values: Sequence[Any]) -> str:
    stream = io.StringIO(newline="")
    csv.writer(stream).writerow(values)
    return stream.getvalue()


class TensorBoardLog:
    """Scalars and pictures for TensorBoard."""

    def __init__(self, folder: Path) -> None:
        self._writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter(str(folder))

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone):
            groups = {
                "loss": event.losses,
                "rate": event.rates,
                "grad": event.gradient_norms,
                "norm": event.embedding_norms,
            }
            for group, values in groups.items():
                for name, value in values.items():
                    self._writer.add_scalar(f"{group}/{name}", value, event.step)
        elif isinstance(event, Validated):
            means = {"held-out": event.held_out_mean, "trained": event.trained_mean}
            for name, value in {**means, **event.held_out}.items():
                if name:
                    self._writer.add_scalar(f"validation/{name}", value, event.step)
        elif isinstance(event, PicturesMade):
            import numpy as np

            self._writer.add_image("parts", np.asarray(event.grid), event.step, dataformats="HWC")


def default_logs(folder: Path, name: str) -> list[Listener]:
    """The logs of a run in its folder; TensorBoard only where the package is there.

    Raises:
        OSError: the folder cannot be made.
    """
    logs: list[Listener] = [JsonLinesLog(folder / f"{name}.events.jsonl"), CsvLog(folder / f"{name}.steps.csv")]
    if importlib.util.find_spec("tensorboard") is not None:
        logs.append(TensorBoardLog(folder / f"{name}.tensorboard"))
    return logs


def after_start(listener: Listener) -> Listener:
    """Hands events on from `RunStarted`, with those before it; nothing of a run that never started.

    For logs in the folder of a run that is to be continued: one that is refused must not touch it.
    """
    waiting: list[Event] | None = []

    def hand_on(event: Event) -> None:
        nonlocal waiting
        if waiting is not None:
            waiting.append(event)
            if not isinstance(event, RunStarted):
                return
        events, waiting = waiting or [event], None
        for one in events:
            listener(one)

    return hand_on


def fan_out(listeners: Sequence[Listener]) -> Listener:
    """One listener that tells several. One that fails does not stop the run: the others are told, once, until it
    works again."""
    failing: set[int] = set()

    def tell(event: Event) -> None:
        faults: list[str] = []
        for number, listener in enumerate(listeners):
            try:
                listener(event)
            except Exception as error:  # a full disk under a log must not end a run
                if number not in failing:
                    failing.add(number)
                    expected = isinstance(error, OSError)
                    level = logging.WARNING if expected else logging.ERROR
                    kind = type(event).__name__
                    logger.log(level, "a listener failed on %s: %s", kind, error, exc_info=not expected)
                    if title := getattr(listener, "title", ""):
                        faults.append(f"{title} cannot be written ({error}): it is tried again with every step")
            else:
                failing.discard(number)
        for text in faults:
            notice = Notice("warning", getattr(event, "step", 0), text)
            for number, listener in enumerate(listeners):
                if number not in failing:
                    _quietly(listener, notice)

    return tell


def _quietly(listener: Listener, event: Event) -> None:
    try:
        listener(event)
    except Exception:
        logger.exception("a listener failed on %s", type(event).__name__)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
