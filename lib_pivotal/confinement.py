"""Folders outside which a client that nobody has asked for a password may not read or write.

A path is judged by where it leads: links and `..` are followed first, in every way in which the rest of the project
may understand it (quotes or blanks around it, `~`, a `file:` address).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lib_pivotal.config import DataConfig, Run
from lib_pivotal.config_schema import describe
from lib_pivotal.data.sources.layout import read_layout
from lib_pivotal.data.sources.source import DatasetFile
from lib_pivotal.errors import DataError, FolderError
from lib_pivotal.files import typed_meanings, typed_path

NOT_READ = ("saving.folder",)
"""Paths in a run's settings that only the command line follows."""


@dataclasses.dataclass(frozen=True)
class Confinement:
    """`folders` may be read and written, with all below them; None: every folder may. `remedy` ends the refusal."""

    folders: tuple[Path, ...] | None = None
    remedy: str = ""

    @classmethod
    def to(cls, folders: Iterable[Path | str], remedy: str) -> Confinement:
        """Those of `folders` that can be understood, links followed."""
        found = (resolved for folder in folders if (resolved := _resolved(typed_path(folder))) is not None)
        return cls(tuple(dict.fromkeys(found)), remedy)

    def allows(self, path: Path | str) -> bool:
        """Whether a path leads to one of the folders or below it, however it is understood."""
        if self.folders is None:
            return True
        return all(self._holds(meaning) for meaning in _meanings(str(path)))

    def check(self, path: Path | str) -> None:
        """Refuse a path that leads elsewhere; an empty one names nothing.

        Raises:
            FolderError: what to do about it.
        """
        if str(path).strip() and not self.allows(path):
            raise FolderError(f"{path} is outside of the folders that may be used here without a login. {self.remedy}")

    def check_data(self, folder: Path | str, layout: str = "auto", *, files: Sequence[DatasetFile]) -> None:
        """A folder of pictures, and those that its dataset file names: `files` are all kinds that a scan would read.

        Raises:
            FolderError: one of them leads elsewhere.
        """
        self.check(folder)
        if self.folders is None or not str(folder).strip():
            return
        try:
            reading = read_layout(typed_path(folder), layout, files=files)
        except (DataError, OSError, ValueError, RuntimeError):
            return  # whoever reads it says what is wrong with it
        if reading.layout == "archive":  # unpacked into our own cache, where no member leads out of it
            return
        for source in reading.sources:
            for place in source.places():
                self.check(place)

    def check_pictures(self, data: DataConfig, *, files: Sequence[DatasetFile]) -> None:
        """The folders in a run's `data`.

        Raises:
            FolderError: one of them leads elsewhere.
        """
        for _, path in paths_in(data):
            self.check(path)
        self.check_data(data.folder, data.layout, files=files)

    def check_run(self, run: Run, *, files: Sequence[DatasetFile]) -> None:
        """Every file and folder that a run names.

        Raises:
            FolderError: one of them leads elsewhere.
        """
        for field, path in paths_in(run):
            if field not in NOT_READ:
                self.check(path)
        self.check_data(run.data.folder, run.data.layout, files=files)
        self.check_data(run.regularisation.folder, files=files)
        self.check_data(run.validation.folder, files=files)

    def _holds(self, path: Path) -> bool:
        resolved = _resolved(path)
        return resolved is not None and any(resolved.is_relative_to(folder) for folder in self.folders or ())


def paths_in(section: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted name, path) of every setting that is a path and not empty: those whose unit is "path"."""
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        name = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from paths_in(value, f"{name}.")
        elif isinstance(value, tuple):
            for index, item in enumerate(value):
                if dataclasses.is_dataclass(item):
                    yield from paths_in(item, f"{name}.{index}.")
        elif isinstance(value, str) and value and "setting" in field.metadata and describe(field).unit == "path":
            yield name, value


def _meanings(text: str) -> list[Path]:
    """Every path that a text may be taken for."""
    found = typed_meanings(text)
    slashed = (meaning for path in found for meaning in typed_meanings(str(path).replace("\\", "/")))
    return list(dict.fromkeys([*found, *slashed]))


def _resolved(path: Path) -> Path | None:
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError):  # a null character, a circle of links
        return None
