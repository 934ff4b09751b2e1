"""The files that kgrid's pipeline leaves beside a dataset: how words begin, and what they stand for.

`emb_init.json` (`{"name": ["tag", ...]}`) or csv (`name,init text` a row), and `core_tag.json` (`{"Name": {"kept":
[...], "dropped": [...], "emb_init": [...]}}`, or `{"Name": ["tag", ...]}` of its earlier versions); source:
https://github.com/cyber-meow/anime_screenshot_pipeline/blob/c9e3fb8/anime2sd/emb_utils.py and tagging_character.py.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from lib_pivotal.data.captions import legal_name, read_text
from lib_pivotal.plain_json import parse_json

T = TypeVar("T")
PLACES = ("", "training")
"""Where below the dataset's folder the files may lie; beside it they lie when the folder is `training` itself."""


@dataclass(frozen=True)
class CoreTags:
    """What one character's word absorbs, and what of its core tags stays in the captions."""

    dropped: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


@dataclass(frozen=True)
class KgridFiles:
    """Tags that begin each word, and core tags, by legal name; `faults` are files that could not be read."""

    initial: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    core: Mapping[str, CoreTags] = field(default_factory=dict)
    faults: tuple[str, ...] = ()


def read_kgrid_files(folder: Path) -> KgridFiles:
    """What lies in the dataset's folder; empty where there is nothing of the kind, which is normal."""
    faults: list[str] = []

    def found(names: tuple[str, ...], read: Callable[[str], dict[str, T]]) -> dict[str, T]:
        for path in (folder / place / name for place in PLACES for name in names):
            if path.is_file():
                try:
                    return read(read_text(path)[0])
                except (OSError, ValueError, csv.Error, RecursionError) as error:
                    faults.append(f"{path.name} cannot be read: {error}")
        return {}

    initial = found(("emb_init.json",), _initial_of_json) or found(("emb_init.csv",), _initial_of_csv)
    return KgridFiles(initial, found(("core_tag.json",), _core_of_json), tuple(faults))


def _initial_of_json(text: str) -> dict[str, tuple[str, ...]]:
    return {legal_name(name): _tags(tags) for name, tags in _object(text).items()}


def _initial_of_csv(text: str) -> dict[str, tuple[str, ...]]:
    rows = (row for row in csv.reader(io.StringIO(text, newline=None)) if row and row[0].strip())
    return {legal_name(row[0]): _tags(row[1:]) for row in rows}


def _core_of_json(text: str) -> dict[str, CoreTags]:
    found: dict[str, CoreTags] = {}
    for name, tags in _object(text).items():
        if isinstance(tags, dict):
            dropped = (*_tags(tags.get("dropped", ())), *_tags(tags.get("emb_init", ())))
            found[legal_name(name)] = CoreTags(tuple(dict.fromkeys(dropped)), _tags(tags.get("kept", ())))
        else:
            found[legal_name(name)] = CoreTags(_tags(tags))
    return found


def _object(text: str) -> dict[str, Any]:
    plain = parse_json(text)
    if not isinstance(plain, dict):
        raise ValueError("it is no JSON object of names")
    return plain


def _tags(plain: Any) -> tuple[str, ...]:
    items = [plain] if isinstance(plain, str) else plain
    if not isinstance(items, list | tuple):
        raise ValueError(f"{items!r} is no list of tags")
    return tuple(part.strip() for item in items for part in str(item).split(",") if part.strip())
