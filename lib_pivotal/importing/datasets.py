"""The pictures of a run as another trainer's own file describes them: read here as a scan reads them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lib_pivotal.config_schema import to_plain
from lib_pivotal.data.folders import Folder
from lib_pivotal.data.sources.layout import read_layout
from lib_pivotal.data.sources.source import DatasetFile, Reading, Source
from lib_pivotal.errors import ConfigError, DataError
from lib_pivotal.importing import hcp_dataset, kohya_dataset, onetrainer_dataset
from lib_pivotal.importing.reading import parse_text, read_bytes
from lib_pivotal.importing.sheet import Sheet

MOST_SHARE = 0.9999
"""Of a run that only warms up."""
AT_THE_START = "becomes steps at Scan or at the start, with the pictures that are there then"
AT_SCAN = "computed at Scan: pictures × repeats ÷ (batch × accumulation), rounded up, × epochs"


def read_plain(path: Path) -> Any:
    """The plain values in a json, yaml or toml file; nothing in it is executed.

    Raises:
        DataError: it cannot be read, or is far too large for what it should be.
    """
    try:
        return parse_text(read_bytes(path), path.name)
    except ConfigError as error:
        told = "; ".join(f"{fault.problem}. {fault.remedy}".strip() for fault in error.faults)
        raise DataError(f"{path.name}: {told}") from error


DATASET_FILES: tuple[DatasetFile, ...] = tuple(
    DatasetFile(layout, title, suffixes, read_plain, fits, read)
    for layout, title, suffixes, fits, read in (
        (
            "kohya_toml",
            "kohya's dataset file (.toml)",
            (".toml",),
            kohya_dataset.is_kohya,
            kohya_dataset.read_kohya,
        ),
        (
            "hcp",
            "HCP-Diffusion's dataset file (.yaml)",
            (".yaml", ".yml"),
            hcp_dataset.is_hcp,
            hcp_dataset.read_hcp,
        ),
        (
            "onetrainer",
            "OneTrainer's concepts (.json)",
            (".json",),
            onetrainer_dataset.is_onetrainer,
            onetrainer_dataset.read_onetrainer,
        ),
    )
)
"""What a scan understands besides folders; hand it over as `files`."""


def read_described(path: Path, layout: str, may_read: Callable[[Path], bool]) -> Reading | None:
    """What a dataset file describes; None where its folders are not on this computer, or may not be looked at."""
    try:
        reading = read_layout(path, layout, files=DATASET_FILES)
    except DataError:
        return None
    return reading if all(may_read(place) for source in reading.sources for place in source.places()) else None


def take_described(sheet: Sheet, reading: Reading, path: Path, key: str) -> None:
    """The run's pictures are those of this file, with the settings that its folders ask for; remarks for the rest.

    `key` is what led to the file.
    """
    sheet.put("data.folder", str(path))
    for setting, value in reading.settings.items():
        sheet.default(f"{key}: {setting.partition('.')[2]}", setting, to_plain(value), f"{path.name} says so")
    for problem in reading.problems:
        if problem.level != "info" or problem.code in ("setting_translated", "setting_not_taken"):
            sheet.remark(problem.message)


def draws_an_epoch(reading: Reading) -> int:
    """Pictures × repeats of all its folders, each rounded down, as the trainers count."""
    return sum(math.floor(_count(one) * one.repeats + 1e-2) for one in reading.sources)


def take_interval(sheet: Sheet, key: str, epochs: int, path: str) -> None:
    """An interval in epochs, which stays one until the pictures are known; `path` is that in steps (`..._steps`)."""
    sheet.translated(key, f"{path.removesuffix('_steps')}_epochs", epochs, AT_THE_START)


def share_of_epochs(sheet: Sheet, epochs: int) -> float | None:
    """What share of the run so many epochs are; None where its length in epochs is not given."""
    return min(1.0, epochs / sheet.epochs) if sheet.epochs else None


def take_warmup(sheet: Sheet, key: str, share: float, why: str) -> None:
    """A warm-up as a share of the run: steps where the file gives the run's length in steps, else it stays a share."""
    share = min(share, MOST_SHARE)
    steps = int(sheet.read("schedule.max_steps"))
    value = share if sheet.epochs else int(share * steps + 1e-9)
    told = f"{why}; it stays one until the length is known" if sheet.epochs else why
    sheet.translated(key, "schedule.warmup_steps", value, told)


def _count(source: Source) -> int:
    return len(Folder(source.root, below=source.below).pictures())


def take_epochs(sheet: Sheet, key: str, epochs: int, draws: int) -> int:
    """Epochs as steps where the pictures are here, else as epochs that a scan turns into steps; returns steps of one
    epoch, 0 where they are not known. Batch and accumulation must be in the sheet already."""
    sheet.epochs = epochs
    pictures = int(sheet.read("schedule.batch_size")) * int(sheet.read("schedule.accumulation"))
    if not draws:
        sheet.translated(key, "schedule.epochs", epochs, AT_SCAN)
        return 0
    each = math.ceil(draws / pictures)
    why = f"{draws} pictures an epoch with repeats ÷ {pictures} a step = {each} steps an epoch"
    sheet.translated(key, "schedule.max_steps", each * epochs, why)
    return each
