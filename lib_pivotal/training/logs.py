"""Events written down: JSON lines, a CSV of the steps, and TensorBoard where it is installed."""

from __future__ import annotations

import csv
import dataclasses
import importlib
import importlib.util
import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib_pivotal.training.events import Event, Listener, PicturesMade, StepDone

logger = logging.getLogger(__name__)


def event_record(event: Event) -> dict[str, Any]:
    """An event as JSON-able values, with its kind; numbers that JSON does not know become null."""
    record: dict[str, Any] = {"event": type(event).__name__}
    for field in dataclasses.fields(event):
        if isinstance(event, PicturesMade) and field.name == "grid":
            continue
        record[field.name] = _plain(getattr(event, field.name))
    return record


class JsonLinesLog:
    """Appends every event to a file, one line each, flushed, so that a killed run's log is whole lines."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path

    def __call__(self, event: Event) -> None:
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(event_record(event), ensure_ascii=False) + "\n")


class CsvLog:
    """Steps as a table: step, loss, seconds, then rates and norms by group; columns are fixed by the first step."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._columns: list[str] = []

    def __call__(self, event: Event) -> None:
        if not isinstance(event, StepDone):
            return
        row: dict[str, Any] = {"step": event.step, "phase": event.phase, "seconds": event.seconds, **event.losses}
        for prefix, values in (("rate", event.rates), ("grad", event.gradient_norms), ("norm", event.word_norms)):
            row.update({f"{prefix} {name}": value for name, value in values.items()})
        fresh = not self._path.exists()
        if not self._columns:
            self._columns = list(row) if fresh else self._header()
        with self._path.open("a", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, self._columns, restval="", extrasaction="ignore")
            if fresh:
                writer.writeheader()
            writer.writerow(row)

    def _header(self) -> list[str]:
        with self._path.open(encoding="utf-8", newline="") as stream:
            return next(csv.reader(stream), [])


class TensorBoardLog:
    """Scalars and pictures for TensorBoard."""

    def __init__(self, folder: Path) -> None:
        self._writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter(str(folder))

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone):
            groups = {"loss": event.losses, "rate": event.rates, "grad": event.gradient_norms, "norm": event.word_norms}
            for group, values in groups.items():
                for name, value in values.items():
                    self._writer.add_scalar(f"{group}/{name}", value, event.step)
        elif isinstance(event, PicturesMade):
            import numpy as np

            self._writer.add_image("parts", np.asarray(event.grid), event.step, dataformats="HWC")


def default_logs(folder: Path, name: str) -> list[Listener]:
    """The logs of a run in its folder; TensorBoard only where the package is there."""
    logs: list[Listener] = [JsonLinesLog(folder / f"{name}.events.jsonl"), CsvLog(folder / f"{name}.steps.csv")]
    if importlib.util.find_spec("tensorboard") is not None:
        logs.append(TensorBoardLog(folder / f"{name}.tensorboard"))
    return logs


def fan_out(listeners: Sequence[Listener]) -> Listener:
    """One listener that tells several; one that fails is named in the log and does not stop the run."""

    def tell(event: Event) -> None:
        for listener in listeners:
            try:
                listener(event)
            except Exception:  # a full disk under a log must not end a run
                logger.exception("a listener failed on %s", type(event).__name__)

    return tell


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
