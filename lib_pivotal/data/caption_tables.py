"""Files that hold the captions of many pictures: json, jsonl, csv and yaml, by file name.

json and yaml: `{"name": caption}` as HCP-Diffusion's, or `{"name": {"caption": ..., "tags": ...}}` as kohya's, names
with or without ending or folder; or a list of rows. jsonl and csv: rows with a file's name (`file_name`, `image_path`,
`image`, `file`, ...) and its text, as HuggingFace's `metadata.jsonl`.
"""

from __future__ import annotations

import csv
import importlib
import io
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from lib_pivotal.data.captions import read_text
from lib_pivotal.data.metadata import NOTHING, Entry, entry_of
from lib_pivotal.data.pictures import EXTENSIONS
from lib_pivotal.errors import DataError
from lib_pivotal.plain_json import parse_json

SUFFIXES = (".jsonl", ".json", ".csv", ".yaml", ".yml")
LARGEST_BYTES = 2**27
NOT_CAPTIONS = frozenset({"emb_init.json", "core_tag.json", "run.json", "emb_init.csv"})
_NAME_KEYS = ("file_name", "filename", "image_path", "image", "file", "path", "name", "key")


class CaptionTable:
    """Entries by file name. A name with folders is looked for first, then one without, each also without ending."""

    def __init__(self, rows: Mapping[str, Entry], *, root: Path) -> None:
        self._by_path: dict[str, Entry] = {}
        self._by_name: dict[str, Entry | None] = {}
        for written, entry in rows.items():
            path = _relative(written, root)
            self._by_path[_bare(path)] = entry
            name = _bare(PurePosixPath(path).name)
            self._by_name[name] = entry if self._by_name.get(name, entry) == entry else None

    def __len__(self) -> int:
        return len(self._by_path)

    def find(self, key: str) -> Entry:
        """The entry of a picture by its path below the root; a name that several folders have means nobody."""
        found = self._by_path.get(_bare(key))
        if found is None:
            found = self._by_name.get(_bare(PurePosixPath(key).name))
        return found or NOTHING


def read_table(path: Path, *, root: Path) -> CaptionTable:
    """The captions in a file, for pictures below `root`.

    Raises:
        DataError: the file cannot be read, is no such file, or far too large.
    """
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise DataError(f"{path.name}: is larger than {LARGEST_BYTES >> 20} MB; that is no file of captions.")
        text = read_text(path)[0]
        rows = dict(_rows(path.suffix.lower(), text))
    except (OSError, ValueError, TypeError, KeyError, ArithmeticError, RecursionError, csv.Error) as error:
        what = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DataError(f"{path.name}: cannot be read as captions ({what}). Fix the file, or take it away.") from error
    return CaptionTable({name: entry for name, entry in rows.items() if entry}, root=root)


def _rows(suffix: str, text: str) -> Iterable[tuple[str, Entry]]:
    if suffix == ".jsonl":
        return _named(parse_json(line) for line in text.splitlines() if line.strip())
    if suffix == ".csv":
        return _of_csv(text)
    plain = _yaml(text) if suffix in (".yaml", ".yml") else parse_json(text)
    if isinstance(plain, list):
        return _named(plain)
    if not isinstance(plain, dict):
        raise ValueError("it is no table of names and captions")
    return [(str(name), entry_of(value)) for name, value in plain.items()]


def _named(rows: Iterable[Any]) -> list[tuple[str, Entry]]:
    found = []
    for row in rows:
        if isinstance(row, dict):
            name = next((row[key] for key in _NAME_KEYS if isinstance(row.get(key), str)), "")
            if name:
                found.append((name, entry_of(row)))
    return found


def _of_csv(text: str) -> list[tuple[str, Entry]]:
    """Rows with a heading (`file_name,text`), or without one: the name first, the text second."""
    sample = text[:10_000]
    separator = max(",;\t", key=lambda mark: sum(mark in line for line in sample.splitlines()))
    rows = [row for row in csv.reader(io.StringIO(text), delimiter=separator) if row]
    if not rows:
        return []
    heading = [cell.strip().lower() for cell in rows[0]]
    if any(key in heading for key in _NAME_KEYS):
        return _named(dict(zip(heading, row, strict=False)) for row in rows[1:])
    return [(row[0].strip(), entry_of(row[1])) for row in rows if len(row) > 1 and row[0].strip()]


def _yaml(text: str) -> Any:
    try:
        yaml = importlib.import_module("yaml")
    except ImportError as error:
        raise ValueError("the Python package PyYAML is not installed") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def _relative(written: str, root: Path) -> str:
    """A name as written, below the root if it is a full path there; else its last part, if it is a full path."""
    text = written.replace("\\", "/").strip()
    start = root.as_posix().rstrip("/") + "/"
    if text.startswith(start):
        return text[len(start) :]
    full = text.startswith("/") or text[1:3] == ":/"
    return text.rsplit("/", 1)[-1] if full else text.removeprefix("./")


def _bare(path: str) -> str:
    """Without the ending of a picture, in small letters."""
    stem, dot, ending = path.rpartition(".")
    return (stem if dot and f".{ending.lower()}" in EXTENSIONS else path).lower()
