"""Other tools' dataset files: plain values out of json, yaml and toml, and folders out of paths."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lib_pivotal.errors import ConfigError, DataError
from lib_pivotal.importing.reading import parse_text, read_bytes


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
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return otherwise
    return found if math.isfinite(found) and found >= 0 and not isinstance(value, bool) else otherwise


def labels(roots: Sequence[Path]) -> list[str]:
    """What stands in front of the keys of each folder's pictures: nothing for one alone, else names that differ."""
    if len(roots) < 2:
        return ["" for _ in roots]
    names: list[str] = []
    for root in roots:
        name, count = root.name or "folder", 2
        while name in names:
            name, count = f"{root.name or 'folder'}-{count}", count + 1
        names.append(name)
    return names


def mapping(value: Any) -> Mapping[str, Any]:
    """A mapping as it is, anything else as an empty one."""
    return {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else {}
