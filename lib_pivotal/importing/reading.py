"""Files of settings as plain values: JSON, YAML and TOML, with limits, and nothing in them is ever executed."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_pivotal.errors import ConfigError, Fault
from lib_pivotal.plain_json import parse_json

LARGEST_BYTES = 2**20
"""Settings are a few kilobytes; what is larger is something else."""
MOST_LEAVES = 20_000
DEEPEST = 40
LARGEST_BITS = 4096
SUFFIXES = (".json", ".yaml", ".yml", ".toml")

TOML_PACKAGES = ("tomllib", "tomli", "pip._vendor.tomli")
"""Python 3.11 brings the first; pip, which every web UI has, brings the last."""


@dataclass(frozen=True)
class Origin:
    """Where a settings file comes from: `folder` is None for text that came without a place on this computer.

    The bases of an `uploaded` file are looked for in its folder and below. `may_read` says which of the files and
    folders that it names may be looked at (None: all of them).
    """

    name: str
    folder: Path | None = None
    uploaded: bool = False
    may_read: Callable[[Path], bool] | None = None

    def allows(self, path: Path) -> bool:
        """Whether a file or folder may be looked at."""
        return self.may_read is None or self.may_read(path)

    def find(self, written: Any) -> Path | None:
        """A file or folder that the settings name, where it is here: as written, or from a folder above the file."""
        text = str(written or "").strip()
        if not text or "\0" in text or len(text) > 1000:
            return None
        path = Path(text)
        places = [path] if path.is_absolute() else []
        if not places and self.folder is not None:
            places = [folder / path for folder in (self.folder, *self.folder.parents)]
        try:
            return next((place for place in places if self.allows(place) and place.exists()), None)
        except (OSError, ValueError):
            return None


def refuse(name: str, problem: str, remedy: str = "") -> ConfigError:
    """The one error of this room: a file that cannot be read."""
    return ConfigError([Fault(name, "", problem, remedy)])


def read_bytes(path: Path) -> bytes:
    """The bytes of a settings file.

    Raises:
        ConfigError: it is missing, no file, or too large.
    """
    try:
        if not path.is_file():
            raise refuse(str(path), "is not a file", "Give the path of a settings file.")
        if path.stat().st_size > LARGEST_BYTES:
            raise refuse(str(path), f"is larger than {LARGEST_BYTES // 1024} KB", "Settings are much smaller.")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise refuse(str(path), f"cannot be read: {error}") from error


def parse_text(content: bytes, name: str) -> Any:
    """The plain values in `content`; `name` is a file name, whose ending tells the format.

    Raises:
        ConfigError: the text cannot be read, or holds more than settings ever do.
    """
    if len(content) > LARGEST_BYTES:
        raise refuse(name, f"is larger than {LARGEST_BYTES // 1024} KB", "Settings are much smaller.")
    suffix = Path(name).suffix.lower()
    parsers: dict[str, Callable[[str], Any]] = {
        ".json": parse_json,
        ".yaml": _yaml,
        ".yml": _yaml,
        ".toml": _toml_parser() if suffix == ".toml" else _yaml,
    }
    if suffix not in parsers:
        raise refuse(name, "is none of " + ", ".join(SUFFIXES), "Give the settings file of another trainer.")
    try:
        plain = parsers[suffix](content.decode("utf-8-sig"))
    except ConfigError:
        raise
    except (ValueError, ArithmeticError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise refuse(name, f"cannot be read as {suffix[1:].upper()}: {what[:200]}") from error
    check_size(plain, name)
    return plainly(plain)


def plainly(item: Any) -> Any:
    """Only dicts with text keys, lists, text, numbers, booleans and None; what else a format can say becomes text."""
    if isinstance(item, dict):
        return {_text(key): plainly(value) for key, value in item.items()}
    if isinstance(item, list | tuple | set):
        return [plainly(value) for value in item]
    if item is None or isinstance(item, bool | int) or (isinstance(item, float) and math.isfinite(item)):
        return item
    return _text(item)


def _text(item: Any) -> str:
    return str(item).encode("utf-8", "replace").decode("utf-8")


def _yaml(text: str) -> Any:
    """YAML with plain types only: a tag that would make an object is an error."""
    yaml = package("yaml", ("yaml",), "PyYAML")
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def _toml_parser() -> Callable[[str], Any]:
    loads: Callable[[str], Any] = package("toml", TOML_PACKAGES, "tomli").loads
    return loads


def package(kind: str, names: tuple[str, ...], install: str) -> Any:
    """The first of these modules that is here.

    Raises:
        ConfigError: none is; says what to install.
    """
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise refuse(
        f".{kind}",
        f"cannot be read: the package {install} is not installed",
        f"Run `pip install {install}` in this Python environment.",
    )


def check_size(plain: Any, name: str) -> None:
    """Refuse what holds too many values, is nested too deep, or has a whole number that no setting ever has (Python
    does not even make text of one with some thousand digits); also a structure that holds itself.

    Raises:
        ConfigError: with which of these it is.
    """
    left = MOST_LEAVES
    level = [plain]
    for _ in range(DEEPEST):
        keys = [key for item in level if isinstance(item, dict) for key in item]
        if any(isinstance(item, int) and item.bit_length() > LARGEST_BITS for item in (*level, *keys)):
            raise refuse(name, f"holds a whole number of more than {LARGEST_BITS} bits", "That is no setting.")
        level = [child for item in level for child in children(item)]
        left -= len(level)
        if left < 0:
            raise refuse(name, f"holds more than {MOST_LEAVES} values", "That is no settings file.")
        if not level:
            return
    raise refuse(name, f"is nested more than {DEEPEST} levels deep", "That is no settings file.")


def children(item: Any) -> list[Any]:
    """The values directly inside a mapping or a list."""
    if isinstance(item, dict):
        return list(item.values())
    return list(item) if isinstance(item, list | tuple | set) else []


def leaves(plain: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything that is no mapping; a list of plain values is one value."""
    if isinstance(plain, dict) and plain:
        for key, value in plain.items():
            yield from leaves(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(plain, list) and any(isinstance(item, dict | list) for item in plain):
        for index, value in enumerate(plain):
            yield from leaves(value, f"{prefix}.{index}" if prefix else str(index))
    else:
        yield prefix, plain


def number(value: Any) -> float | None:
    """A finite number, also one that is written as text (YAML reads `1e-4` as text); else None."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, str):
        if not 0 < len(value.strip()) <= 40:
            return None
        value = value.strip()
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def whole(value: Any) -> int | None:
    """A whole number, also as text; else None."""
    found = number(value)
    return int(found) if found is not None and found.is_integer() else None


def flag(value: Any) -> bool | None:
    """true or false, also as 0, 1 or text; None if it is neither."""
    if isinstance(value, bool):
        return value
    if value is None or value == "":
        return False
    text = str(value).strip().lower()
    if text in ("true", "1", "1.0", "yes", "on"):
        return True
    if text in ("false", "0", "0.0", "no", "off", "none"):
        return False
    return None


def numbers(value: Any) -> list[float]:
    """The numbers of a list, or of text with commas or spaces between; [] where one of them is none."""
    items = value if isinstance(value, list) else str(value).replace(",", " ").split()
    found = [number(item) for item in items]
    return [] if None in found else [item for item in found if item is not None]
