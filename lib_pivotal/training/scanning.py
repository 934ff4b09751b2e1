"""Scanning a run's folder by the run's own settings, and parts of the pictures with settings of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import is_
from typing import Any

from lib_pivotal.config import Run, check_run, run_to_dict
from lib_pivotal.config_pictures import DataConfig
from lib_pivotal.config_schema import to_plain
from lib_pivotal.data.captions import Cut
from lib_pivotal.data.dataset import Dataset, scan
from lib_pivotal.data.pruning import applies
from lib_pivotal.data.records import Picture
from lib_pivotal.data.sources.source import DatasetFile


class PictureParts:
    """The settings of each picture: the run's, with those of the first part that it belongs to over them."""

    def __init__(self, data: DataConfig) -> None:
        self._data = data
        self._own = [(part.applies_to, part.over(data), part.loss_weight) for part in data.parts]
        self.all = (data, *(own for _, own, _ in self._own))
        """Every settings object that `settings_of` can give."""

    def settings_of(self, picture: Picture) -> DataConfig:
        """One object for all pictures of a part."""
        return next((own for pattern, own, _ in self._own if applies([pattern], picture)), self._data)

    def cut(self, pictures: Sequence[Picture]) -> tuple[Picture, ...]:
        """The pictures with their captions cut as these settings say."""
        marks = {data.keep_separator: Cut(data.keep_separator) for data in self.all}
        if len(marks) == 1:
            (common,) = marks.values()
            return tuple(one if one.cut == common else replace(one, cut=common) for one in pictures)
        own = ((one, marks[self.settings_of(one).keep_separator]) for one in pictures)
        return tuple(one if one.cut == cut else replace(one, cut=cut) for one, cut in own)

    def differing(self, pictures: Sequence[Picture]) -> dict[str, DataConfig]:
        """Settings by key of the pictures that belong to a part."""
        found = {picture.key: self.settings_of(picture) for picture in pictures} if self._own else {}
        return {key: data for key, data in found.items() if data is not self._data}

    def loss_weights(self, pictures: Sequence[Picture]) -> dict[str, float]:
        """Weights of the loss by key; those of 1 are left out."""
        weights = {
            picture.key: next((weight for pattern, _, weight in self._own if applies([pattern], picture)), 1.0)
            for picture in (pictures if self._own else ())
        }
        return {key: weight for key, weight in weights.items() if weight != 1.0}


def scan_pictures(data: DataConfig, folder: str = "", *, files: Sequence[DatasetFile] = ()) -> Dataset:
    """Look at the pictures of a run, or at another folder in the same way (by its own layout).

    `files` reads other trainers' dataset files: commands hand over those that `importing` knows.

    Raises:
        DataError: there is no such folder, or it is not of that layout.
    """
    settings = scan_settings(data)
    layout = "auto" if folder else data.layout
    found = scan(folder or data.folder, **{**settings, "layout": layout}, files=files)
    return cut_as(data, found)


def cut_as(data: DataConfig, dataset: Dataset) -> Dataset:
    """A dataset whose captions are cut into tags as the settings say."""
    pictures = PictureParts(data).cut(dataset.pictures)
    return dataset if all(map(is_, pictures, dataset.pictures)) else replace(dataset, pictures=pictures)


def hangs_on(data: DataConfig) -> dict[str, Any]:
    """All of a run's settings that a scanned dataset hangs on: of a scan, and of how captions are cut."""
    parts = [(part.applies_to, part.keep_separator) for part in data.parts]
    return {**scan_settings(data), "keep_separator": (data.keep_separator, parts)}


def scan_settings(data: DataConfig) -> dict[str, Any]:
    """What of a run's settings a scan hangs on, by the names of `scan`'s arguments."""
    return {
        "layout": data.layout,
        "captions_from": data.captions_from,
        "caption_lines": data.caption_lines,
        "missing_caption": data.missing_caption,
        "names": (data.name_words, data.name_join),
        "duplicates": data.duplicates,
        "minimum_px": min(data.least_px, data.resolution_px),
    }


def with_settings(run: Run, settings: Mapping[str, Any]) -> Run:
    """The run with what a dataset's layout asks for (`{"data.flip": True}`); values not allowed are left out."""
    for path, value in settings.items():
        section, _, name = path.partition(".")
        plain = run_to_dict(run)
        plain[section][name] = to_plain(value)
        checked, faults = check_run(plain)
        if not any(fault.field == path or fault.field.startswith(f"{path}.") for fault in faults):
            part = replace(getattr(run, section), **{name: getattr(getattr(checked, section), name)})
            run = replace(run, **{section: part})
    return run
