"""What a scan found as plain data: the same for `scan --json` and for the web API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lib_pivotal.config import DataConfig, Run
from lib_pivotal.config_schema import parse
from lib_pivotal.data.lint import UNNAMED_MARK, mark_told, unnamed_mark
from lib_pivotal.data.records import Dataset, Problem
from lib_pivotal.data.tags import tag_shares
from lib_pivotal.errors import ConfigError
from lib_pivotal.runs.circumstances import Circumstances
from lib_pivotal.training.scanning import cut_as, scan_pictures, with_settings

TAGS_TOLD = 40


def report_of(
    folder: str, settings: Mapping[str, Any], *, circumstances: Circumstances | None = None
) -> dict[str, Any]:
    """Scan a folder by settings of a run's `data` (`{"layout": "kohya"}`) and say what is there.

    Raises:
        ConfigError: a setting is wrong; all faults at once.
        DataError: there is no such folder, or it is not of that layout.
    """
    data = pictures_of(folder, settings)
    data = data if circumstances is None else circumstances.scanned_as(data)
    dataset = scan_pictures(data)
    asked = with_settings(Run(data=data), dataset.settings).data  # what the folder's own file says of captions
    return scan_report(dataset if "keep_separator" in settings else cut_as(asked, dataset))


def pictures_of(folder: str, settings: Mapping[str, Any]) -> DataConfig:
    """Settings of a run's `data`, with the folder.

    Raises:
        ConfigError: a setting is wrong; all faults at once.
    """
    data, faults = parse(DataConfig, {**settings, "folder": folder}, path="data.")
    if faults:
        raise ConfigError(faults)
    return data


def scan_report(dataset: Dataset) -> dict[str, Any]:
    """Layout, sources, counts, concepts with their pictures, sizes, the most frequent tags, and every problem."""
    report = dataset.summary()
    for name, keys in dataset.concepts.items():
        report["concepts"][name]["keys"] = list(keys)
    flat = [picture.flat for picture in dataset.pictures]
    if mark := unnamed_mark(dataset.pictures):
        problem = Problem("info", UNNAMED_MARK, f'{mark_told(mark)} (here: --keep-separator "{mark}").')
        report["problems"].append(problem.as_dict())
    report["tags"] = {item.tag: round(item.share, 4) for item in tag_shares(flat)[:TAGS_TOLD]}
    return report
