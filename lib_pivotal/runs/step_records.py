"""The kept steps of a run's folder, with what its events say of them.

The seam for whoever measures more: an event with a figure of each step has its line in `READERS`.
"""

from __future__ import annotations

import math
import re
import statistics
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from PIL import Image

from lib_pivotal.bundle.metadata import finite_number
from lib_pivotal.evaluation.picture_scorers import PictureScorer, ScoredPicture, embedding_of, mean_score
from lib_pivotal.evaluation.step_choice import PICTURES, StepRecord
from lib_pivotal.plain_json import parse_json
from lib_pivotal.runs.samples import StepSamples, run_events, run_samples

FIGURES_SUFFIX = ".figures.json"
"""Of the file with figures that were measured afterwards: `{step: {figure: number}}`."""
_OF_A_STEP = re.compile(r".+-(\d{6,8})\.safetensors")


def _separation(event: Mapping[str, Any]) -> dict[str, float]:
    shares = event.get("shares")
    numbers = [finite_number(share) for share in shares.values()] if isinstance(shares, dict) else []
    known = [min(max(number, 0.0), 1.0) for number in numbers if number is not None]
    return {"separation": statistics.fmean(known)} if known else {}


def _validation(event: Mapping[str, Any]) -> dict[str, float]:
    """The mean loss on held-out pictures."""
    loss = finite_number(event.get("held_out_mean"))
    return {} if loss is None else {"validation": loss}


READERS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, float]]] = MappingProxyType(
    {"SeparationMeasured": _separation, "Validated": _validation}
)
"""Name of an event (with a `step`) -> the figures in it, by the names of `evaluation.step_choice.FIGURES`."""


def step_records(folder: Path) -> list[StepRecord]:
    """Kept steps, the earliest first: files behind samples, files saved on the way, and the result. A figure is
    the one that was measured last by then."""
    samples = {one.step: one for one in run_samples(folder)}
    files = dict(_files(folder)) | {step: one.bundle for step, one in samples.items() if one.bundle is not None}
    figures = _figures(folder)
    return [
        StepRecord(
            step,
            file,
            picture=_picture(samples.get(step)),
            figures={name: value for name in figures if (value := _known_by(figures[name], step)) is not None},
        )
        for step, file in sorted(files.items())
        if file.is_file()
    ]


def scored(
    records: Sequence[StepRecord], folder: Path, scorers: Mapping[str, PictureScorer], *, embeddings: Sequence[str]
) -> list[StepRecord]:
    """The records with a figure of each scorer: the mean over a step's samples with all parts on.

    Raises:
        HostError: a scorer failed.
    """
    pictures = {one.step: list(_full(one, embeddings)) for one in run_samples(folder)}
    found = []
    for record in records:
        shown = pictures.get(record.step, [])
        scores = {PICTURES + name: mean_score(scorer, shown, name=name) for name, scorer in scorers.items() if shown}
        known = {name: score for name, score in scores.items() if score is not None}
        found.append(replace(record, figures={**record.figures, **known}))
    return found


def _files(folder: Path) -> Iterator[tuple[int, Path]]:
    """Files by step: those that lie in the run's folder, and the bundles that it says it saved, the last one too. Of
    two the one in the folder: a file elsewhere may have been replaced by another run's since."""
    for event in run_events(folder):
        if event.get("event") == "FileSaved" and event.get("kind") == "bundle" and isinstance(event.get("step"), int):
            said = Path(str(event.get("path")))
            own = folder / said.name
            yield event["step"], own if own.is_file() else said
    for path in (*folder.glob("*.safetensors"), *folder.glob("steps/*.safetensors")):
        if match := _OF_A_STEP.fullmatch(path.name):
            yield int(match[1]), path


def _figures(folder: Path) -> dict[str, dict[int, float]]:
    """Figures by name and step."""
    found: dict[str, dict[int, float]] = {}
    for event in run_events(folder):
        reader, step = READERS.get(str(event.get("event"))), event.get("step")
        if reader is None or not isinstance(step, int):
            continue
        for name, value in reader(event).items():
            if math.isfinite(value):
                found.setdefault(name, {})[step] = value
    for path in folder.glob(f"*{FIGURES_SUFFIX}"):
        for step, values in _measured_afterwards(path):
            for name, value in values.items():
                found.setdefault(name, {})[step] = value
    return found


def _measured_afterwards(path: Path) -> Iterator[tuple[int, dict[str, float]]]:
    try:
        plain = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # it can be measured again
        return
    for step, values in plain.items() if isinstance(plain, dict) else ():
        if step.isdigit() and isinstance(values, dict):
            yield int(step), {name: n for name, v in values.items() if (n := finite_number(v)) is not None}


def _known_by(values: Mapping[int, float], step: int) -> float | None:
    steps = sorted(values)
    place = bisect_right(steps, step)
    return values[steps[place - 1]] if place else None


def _picture(samples: StepSamples | None) -> Path | None:
    """The first sample with all parts on, else the sheet."""
    if samples is None:
        return None
    full = samples.cells.get("whole", ())
    return next((path for path in (*full[:1], samples.grid) if path is not None and path.is_file()), None)


def _full(samples: StepSamples, embeddings: Sequence[str]) -> Iterator[ScoredPicture]:
    for prompt, path in zip(samples.columns, samples.cells.get("whole", ()), strict=False):
        if path.is_file():
            with Image.open(path) as picture:
                yield ScoredPicture(picture.convert("RGB"), prompt, embedding_of(prompt, embeddings))
