"""Lists that wildcards and templates draw from: lines of a setting, and files of a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lib_pivotal.data.captions import read_text
from lib_pivotal.errors import DataError
from lib_pivotal.files import typed_path


def parse_lists(lines: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """`who = girl | woman` lines by name; an empty choice is a choice."""
    found: dict[str, tuple[str, ...]] = {}
    for line in lines:
        name, equals, choices = line.partition("=")
        if not (name.strip() and equals):
            raise DataError(f"word list {line!r}: write `name = first | second`.")
        found[name.strip()] = tuple(choice.strip() for choice in choices.split("|"))
    return found


def read_lists(folder: Path | str) -> dict[str, tuple[str, ...]]:
    """Wildcard files as sd-dynamic-prompts has them: `hair/colour.txt` is the list `hair/colour`, a choice a line.

    Empty lines and lines that begin with `#` are no choices.

    Raises:
        DataError: there is no such folder.
    """
    root = typed_path(folder)
    if not root.is_dir():
        raise DataError(f"{root}: is not a folder. Give one with lists, `name.txt`, one choice per line.")
    found: dict[str, tuple[str, ...]] = {}
    for path in sorted(root.rglob("*.txt")):
        lines = (line.strip() for line in read_text(path)[0].splitlines())
        choices = tuple(line for line in lines if line and not line.startswith("#"))
        if choices:
            found[path.relative_to(root).with_suffix("").as_posix()] = choices
    return found
