"""What becomes of each key of a dataset file: a setting of the run, of one folder alone, or nothing, and said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from glob import escape
from pathlib import Path
from typing import Any

from lib_pivotal.data.records import DatasetProblem
from lib_pivotal.data.sources.source import PictureSource, SourceReading, labels
from lib_pivotal.importing import reading

OF_PARTS = frozenset(
    "loss_weight shuffle_tags keep_first keep_separator tag_dropout tag_dropout_classes tag_dropout_mode "
    "caption_dropout caption_dropout_epochs caption_warmup_steps caption_warmup_tags wildcards templates flip crop "
    "crops transparency masks".split()
)
"""Settings of the section `data` that folders may have of their own (`config.PartConfig`)."""
PARTS = "data.parts"
LOSS_WEIGHT = "data.loss_weight"
"""A setting of parts alone: a whole run's pictures count once."""
_WHOLE = -1


class ImportLog:
    """Gathers settings of sources, one after the other, and keys with their fates.

    `usual` are the other tool's own defaults by setting: what a source has that does not say it where others do.
    """

    def __init__(self, name: str, usual: Mapping[str, Any] | None = None) -> None:
        self._name, self._usual = name, dict(usual or {})
        self._wishes: dict[str, dict[int, Any]] = {}
        self._keys: dict[str, str] = {}
        self._taken: dict[str, None] = {}
        self._translated: dict[str, None] = {}
        self._untaken: dict[str, None] = {}
        self._problems: list[DatasetProblem] = []
        self._source = _WHOLE

    def source(self) -> None:
        """From here on the next source speaks."""
        self._source += 1

    def wish(self, setting: str, value: Any, key: str = "") -> None:
        """The source asks for this setting of the run, by its `key`."""
        self._wishes.setdefault(setting, {})[self._source] = value
        self._keys.setdefault(setting, key or setting.rpartition(".")[2])

    def whole(self, setting: str, value: Any, key: str) -> None:
        """The file as a whole asks for it."""
        self._wishes.setdefault(setting, {})[_WHOLE] = value
        self._keys[setting] = key

    def regular(self, folders: Sequence[Path], key: str, many: str) -> None:
        """Folders of class pictures, of which a run has one; `many` is said where there are more."""
        if len(folders) == 1:
            self.whole("regularisation.folder", str(folders[0]), key)
        elif folders:
            self.untaken(f"{len(folders)} {many}")

    def taken(self, key: str) -> None:
        """A key that holds as it is, without a setting: folders, repeats, captions."""
        self._taken[key] = None

    def translated(self, key: str, how: str) -> None:
        """A key that means the same in another way."""
        self._translated[f"{key} ({how})"] = None

    def untaken(self, key: str) -> None:
        """A key that has no counterpart."""
        self._untaken[key] = None

    def say(self, code: str, message: str) -> None:
        """Something that is wrong with the file."""
        self._problems.append(DatasetProblem("warning", code, f"{self._name}: {message}"))

    def settings(self, labels: Sequence[str]) -> dict[str, Any]:
        """Settings that all sources agree on, and where they differ `data.parts`; `labels` are those of the sources."""
        found: dict[str, Any] = {}
        parts: list[dict[str, Any]] = [{} for _ in labels]
        for setting, by_source in self._wishes.items():
            section, _, name = setting.partition(".")
            values = [by_source.get(index, self._usual.get(setting)) for index in range(len(labels))]
            if _WHOLE in by_source:
                found[setting] = by_source[_WHOLE]
                self._tell(setting, found[setting])
            elif all(value == values[0] for value in values) and setting != LOSS_WEIGHT:
                found[setting] = values[0]
                self._tell(setting, values[0])
            elif setting == LOSS_WEIGHT and all(value == 1.0 for value in values):
                self.taken(self._keys[setting])
            elif section == "data" and name in OF_PARTS:
                for part, value in zip(parts, values, strict=True):
                    part |= {} if value is None else {name: value}
                self.translated(self._keys[setting], f"each folder its own, {PARTS}")
            else:
                self.untaken(f"{self._keys[setting]} ({setting} differs from folder to folder)")
        patterns = [f"{pattern(label)}/*" if label else "*" for label in labels]
        own = [{"applies_to": where, **part} for where, part in zip(patterns, parts, strict=True) if part]
        return {**found, PARTS: tuple(own)} if own else found

    def _tell(self, setting: str, value: Any) -> None:
        shown = str(value).lower() if isinstance(value, bool) else str(value)
        self._taken[f"{self._keys[setting]} ({setting} = {shown[:60]})"] = None

    def problems(self) -> tuple[DatasetProblem, ...]:
        """All that is to be said, with a line for each fate of keys; call `settings` before."""
        lines = (
            ("setting_taken", "taken", self._taken),
            ("setting_translated", "translated", self._translated),
            ("setting_not_taken", "not taken, as a run here has no such setting", self._untaken),
        )
        told = [
            DatasetProblem("info", code, f"{self._name}: {what}: {', '.join(keys)}.")
            for code, what, keys in lines
            if keys
        ]
        return (*self._problems, *told)

    def reading(self, layout: str, title: str, folder: Path, sources: Sequence[PictureSource]) -> SourceReading:
        """All of it: the sources with labels where there are several, their settings, and what is to be said."""
        named = labels([source.root for source in sources])
        settings = self.settings(named)
        labelled = tuple(replace(source, label=label) for source, label in zip(sources, named, strict=True))
        return SourceReading(layout, title, folder, labelled, settings, self.problems(), tuple(self._untaken))


def pattern(label: str) -> str:
    """A folder's name as it stands in a pattern of paths, and in a line of the page, which `|` would cut."""
    return escape(label).replace("|", "?")


# ---- values and places ----


def place(written: Any, base: Path) -> Path | None:
    """A folder or file as a dataset file names it: as it is, or from the file's own folder or one above; None if gone.

    A whole dataset that was moved is found too, by the last parts of a path that is gone: the more of them, the better,
    beside the file, or two or more of them beside its folder.
    """
    if not isinstance(written, str) or not written.strip() or "\0" in written:
        return None
    path = Path(written.strip().replace("\\", "/")).expanduser()
    tries = [path] if path.is_absolute() else [folder / path for folder in (base, *base.parents)]
    last = [part for part in path.parts if part != path.anchor and not part.endswith(":")]
    if ".." not in last:
        ends = [Path(*last[start:]) for start in range(len(last))]
        tries += [base / end for end in ends] + [base.parent / end for end in ends if len(end.parts) > 1]
    try:
        return next((found for found in tries if path.name not in ("", "..") and found.exists()), None)
    except OSError:
        return None


def number(value: Any, otherwise: float = 1.0) -> float:
    """A finite number of 0 or more, also as text; else `otherwise`."""
    found = reading.number(value)
    return found if found is not None and found >= 0 else otherwise


def mapping(value: Any) -> Mapping[str, Any]:
    """A mapping as it is, anything else as an empty one."""
    return {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else {}
