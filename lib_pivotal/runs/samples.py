"""The samples that a run has left in its folder: read from its events, by step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_pivotal.plain_json import parse_json


@dataclass(frozen=True)
class StepSamples:
    """The parts grid of a step: the labelled sheet, prompts as columns, and files by row; the bundle behind them."""

    step: int
    columns: tuple[str, ...]
    cells: Mapping[str, tuple[Path, ...]]
    grid: Path | None
    bundle: Path | None


def run_events(folder: Path) -> Iterator[dict[str, Any]]:
    """The events of a run's folder in their order; lines that are none are passed over."""
    for path in sorted(folder.glob("*.events.jsonl")):
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    event = parse_json(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(event, dict):
                    yield event


def run_samples(folder: Path) -> list[StepSamples]:
    """Samples by step, the earliest first; of a step that was drawn twice (a run that was continued), the last."""
    found: dict[int, StepSamples] = {}
    for event in run_events(folder):
        if event.get("event") == "PicturesMade" and isinstance(event.get("step"), int):
            found[event["step"]] = _samples(folder, event)
    return [found[step] for step in sorted(found)]


def folder_of_file(file: Path, runs_folder: Path) -> Path | None:
    """The newest folder below `runs_folder` whose run wrote this bundle; None where none did."""
    from lib_pivotal.config import read_run
    from lib_pivotal.errors import ConfigError
    from lib_pivotal.training.results import Results

    records = [*runs_folder.glob("*.run.json"), *runs_folder.glob("*/*.run.json")]
    for record in sorted(records, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            if Results.of(read_run(record)).has(file):
                return record.parent
        except (ConfigError, OSError):
            continue
    return None


def _samples(folder: Path, event: Mapping[str, Any]) -> StepSamples:
    cells = event.get("cells")
    rows = cells if isinstance(cells, dict) else {}
    return StepSamples(
        step=event["step"],
        columns=tuple(str(column) for column in event.get("columns") or ()),
        cells={str(row): tuple(_moved(folder, str(path)) for path in paths) for row, paths in rows.items()},
        grid=_moved(folder, event["path"]) if event.get("path") else None,
        bundle=_moved(folder, event["bundle"]) if event.get("bundle") else None,
    )


def _moved(folder: Path, text: str) -> Path:
    """A path of the log, also where the run's folder was moved since: what lies in it is found by its end."""
    path = Path(text)
    if path.exists():
        return path
    for depth in (3, 2, 1):
        candidate = folder.joinpath(*path.parts[-depth:])
        if candidate.exists():
            return candidate
    return path
