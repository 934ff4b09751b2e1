"""Settings of our run as they are gathered, and beside each key of the other trainer's file what became of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from lib_pivotal.config import Run, run_to_dict
from lib_pivotal.config_schema import describe, parse, walk
from lib_pivotal.importing.reading import flag, leaves, number
from lib_pivotal.importing.report import Fate, Line, Report, shown

UNKNOWN = "this key is not known to the importer"
OFF = "off, as here"


class Sheet:
    """One file being translated. Every key must be claimed; what is left over is told as unknown."""

    def __init__(self, plain: Mapping[str, Any]) -> None:
        self.values: dict[str, Any] = dict(leaves(dict(plain)))
        self.run: dict[str, Any] = run_to_dict(Run())
        self._ours = run_to_dict(Run())
        self.remarks: list[str] = []
        self.set_paths: dict[str, Any] = {}
        self.epoch_steps = 0
        """Steps of an epoch, where the pictures are here."""
        self.epochs = 0
        """The run's length in epochs, where the file gives it so."""
        self._lines: dict[str, Line] = {}
        self._added: list[Line] = []

    # ---- looking ----

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key; `default` where the file does not have it."""
        return self.values.get(key, default)

    def has(self, key: str) -> bool:
        """Whether the file has this key."""
        return key in self.values

    def keys_under(self, prefix: str) -> list[str]:
        """Keys that are `prefix` or begin with it and a dot."""
        return [key for key in self.values if key == prefix or key.startswith(f"{prefix}.")]

    def number(self, key: str, default: float) -> float:
        """A key's number; `default` where it has none."""
        found = number(self.values.get(key))
        return default if found is None else found

    def flag(self, key: str, default: bool = False) -> bool:
        """A key's truth; `default` where the file does not have it or it is neither."""
        found = flag(self.values[key]) if key in self.values else None
        return default if found is None else found

    def claimed(self, key: str) -> bool:
        """Whether there is a line for this key already."""
        return key in self._lines

    # ---- lines ----

    def taken(self, key: str, path: str, value: Any, why: str = "") -> bool:
        """The setting `path` gets the file's value as it is."""
        return self._settle(key, "taken", path, value, why)

    def translated(self, key: str, path: str, value: Any, why: str) -> bool:
        """The setting `path` gets another value than the file's, which means the same here."""
        return self._settle(key, "translated", path, value, why)

    def default(self, name: str, path: str, value: Any, why: str) -> None:
        """A default of the other trainer that the file does not mention, where it differs from ours."""
        differs = _read(self._ours, path) != value
        if not self.put(path, value) and differs:
            self._added.append(Line(name, None, "taken", f"{path} = {shown(value)}", why, added=True))

    def note(self, key: str, fate: Fate, why: str, became: str = "") -> None:
        """A line without a setting of ours. A key that the file does not have gets none."""
        if key in self.values:
            self._lines[key] = Line(key, self.values[key], fate, became, why)

    def refused(self, key: str, why: str, became: str = "") -> None:
        """Not supported, and why."""
        self.note(key, "not supported", why, became)

    def ignored(self, key: str, why: str) -> None:
        """Does not concern training, and why."""
        self.note(key, "ignored", why)

    def honoured(self, key: str, why: str = OFF, became: str = "") -> None:
        """Holds here too, without a setting of its own."""
        self.note(key, "taken", why, became)

    def remark(self, text: str) -> None:
        """A sentence about the file or the run as a whole."""
        if text not in self.remarks:
            self.remarks.append(text)

    def report(self, peer: str, title: str) -> Report:
        """All lines in the file's order; what nobody claimed is unknown."""
        lines = [
            self._lines.get(key) or Line(key, value, "not supported", "", UNKNOWN, known=False)
            for key, value in self.values.items()
        ]
        return Report(peer, title, (*lines, *self._added), tuple(self.remarks))

    # ---- the run ----

    def read(self, path: str) -> Any:
        """The run's setting as gathered so far."""
        return _read(self.run, path)

    def put(self, path: str, value: Any) -> str:
        """Write a setting; returns why it cannot have this value, or ""."""
        if reason := unfit(path, value):
            return reason
        *parents, last = path.split(".")
        target = self.run
        for parent in parents:
            target = target[parent]
        target[last] = value
        self.set_paths[path] = value
        return ""

    def _settle(self, key: str, fate: Fate, path: str, value: Any, why: str) -> bool:
        if reason := self.put(path, value):
            self.refused(key, f"{path} {reason}; it stays {shown(self.read(path))}")
            return False
        self.note(key, fate, why, f"{path} = {shown(value)}")
        return True


def _read(plain: Any, path: str) -> Any:
    for part in path.split("."):
        plain = plain[part]
    return plain


def unfit(path: str, value: Any) -> str:
    """Why our setting `path` cannot have this value; "" if it can."""
    nested: Any = value
    for part in reversed(path.split(".")):
        nested = {part: nested}
    try:
        faults = parse(Run, nested)[1]
    except OverflowError:
        return "is too large a number"
    return faults[0].problem if faults else ""


@cache
def choices(path: str) -> tuple[str, ...]:
    """What a setting with choices offers; grows with the rest of the program."""
    for found, field, _ in walk(Run):
        if found == path:
            return describe(field).choices
    raise KeyError(path)


# ---- rules of tables: what becomes of one key ----

Rule = Callable[[Sheet, str, Any], None]


def to(path: str, convert: Callable[[Any], Any] | None = None, why: str = "") -> Rule:
    """The value goes to `path`; with `convert` it is translated (None from it: it cannot be read)."""

    def rule(sheet: Sheet, key: str, value: Any) -> None:
        found = value if convert is None else convert(value)
        if found is None:
            sheet.refused(key, f"{shown(value)} cannot be read; {path} stays {shown(sheet.read(path))}")
        elif why and found != value:
            sheet.translated(key, path, found, why)
        else:
            sheet.taken(key, path, found, why)

    return rule


def aside(why: str) -> Rule:
    """Does not concern training."""
    return lambda sheet, key, value: sheet.ignored(key, why)


def missing(why: str, off: tuple[Any, ...] = (None, "", False, 0, "0", "False", "none")) -> Rule:
    """Something that we do not have: told where it is on."""

    def rule(sheet: Sheet, key: str, value: Any) -> None:
        plain_off = (not value) if isinstance(value, list | dict) else any(_same(value, item) for item in off)
        if plain_off:
            sheet.honoured(key)
        else:
            sheet.refused(key, why)

    return rule


def _same(value: Any, item: Any) -> bool:
    """Equal as values, where 0 and False are not the same unless both are numbers."""
    if isinstance(value, bool) or isinstance(item, bool):
        return value is item
    return bool(value == item)


def apply_rules(sheet: Sheet, rules: Mapping[str, Rule]) -> None:
    """Each key of the file that is still open and has a rule."""
    for key, value in sheet.values.items():
        if key in rules and not sheet.claimed(key):
            rules[key](sheet, key, value)
