"""The engine: a trainer's table is walked over the values of one file, and a line says what became of each key.

A table is a sequence of rows `("key other_key prefix.*", rule)`, and of steps, functions of the sheet for what several
keys decide together. A rule gets a key that the file has and that is still open. What no row claims is told as unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lib_pivotal.config import Run, run_to_dict
from lib_pivotal.config_schema import describe, parse, walk
from lib_pivotal.data.sources.source import SourceReading
from lib_pivotal.importing.reading import Origin, flag, leaves, number, whole
from lib_pivotal.importing.report import KeyFate, KeyReport, Report, shown

UNKNOWN = "this key is not known to the importer"
OFF = "off, as here"
EMPTY: tuple[Any, ...] = (None, "", [], {})
"""What a key holds that nobody filled in."""
NOTHING = (None, "", False, 0, "0", "False", "none")
"""What says that a thing is off."""


class ConfigTranslation:
    """One file being translated: its values by dotted key, our run as gathered so far, and a line for each key.

    `names` are the file's own names for keys that a reader has called otherwise, `dialect` says which of a trainer's
    kinds of files it is, `usual` how a default of its is told. Where `key` may be several keys, all of them get the
    line.
    """

    def __init__(
        self,
        plain: Mapping[str, Any],
        origin: Origin | None = None,
        *,
        names: Mapping[str, str] | None = None,
        dialect: str = "",
        usual: str = "",
    ) -> None:
        self.plain, self.origin, self.dialect, self.usual = plain, origin or Origin(""), dialect, usual
        self.values: dict[str, Any] = dict(leaves(dict(plain)))
        self.run: dict[str, Any] = run_to_dict(Run())
        self._ours = run_to_dict(Run())
        self.remarks: list[str] = []
        self.described: tuple[SourceReading, Path] | None = None
        """The pictures as a scan reads them from a dataset file, and that file; None where they are not here."""
        self.epoch_steps = 0
        """Steps of an epoch, where the pictures are here."""
        self.epochs = 0
        """The run's length in epochs, where the file gives it so."""
        self._names = names or {}
        self._lines: dict[str, KeyReport] = {}
        self._added: list[KeyReport] = []

    # ---- looking ----

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key; `default` where the file does not have it."""
        return self.values.get(key, default)

    def has(self, key: str) -> bool:
        """Whether the file has this key."""
        return key in self.values

    def given(self, key: str) -> bool:
        """Whether the file has a value there: files list keys that nobody filled in."""
        return given(self.values.get(key))

    def under(self, prefix: str, *, still_open: bool = False) -> list[str]:
        """Keys that are `prefix` or begin with it and a dot; `still_open`: of which nothing is told yet."""
        found = [key for key in self.values if key == prefix or key.startswith(f"{prefix}.")]
        return [key for key in found if key not in self._lines] if still_open else found

    def number(self, key: str, default: Any = None) -> Any:
        """A key's number; `default` where it has none."""
        found = number(self.values.get(key))
        return default if found is None else found

    def whole(self, key: str, default: int = 0) -> int:
        """A key's whole number; `default` where it has none."""
        found = whole(self.values.get(key))
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

    def renamed(self, key: str, path: str, value: Any, theirs: Any) -> bool:
        """A choice: taken where it is called alike, else translated."""
        if theirs == value:
            return self.taken(key, path, value)
        return self.translated(key, path, value, f"{theirs} is called {value} here")

    def default(self, name: str, path: str, value: Any, why: str) -> None:
        """A default of the other trainer that the file does not mention, where it differs from ours."""
        differs = _read(self._ours, path) != value
        if not self.put(path, value) and differs:
            self._added.append(KeyReport(name, None, "taken", f"{path} = {shown(value)}", why, added=True))

    def own(self, key: str, path: str, value: Any, default: Any, why: str = "") -> None:
        """A key's value as it is, or where the file has none the other trainer's default."""
        if self.given(key):
            self.taken(key, path, value, why)
        else:
            self.honoured(key, self.usual, f"{path} = {shown(default)}")
            self.default(key, path, default, self.usual)

    def note(self, key: str | Iterable[str], fate: KeyFate, why: str, became: str = "") -> None:
        """A line without a setting of ours. A key that the file does not have gets none."""
        for one in [key] if isinstance(key, str) else key:
            if one in self.values:
                self._lines[one] = KeyReport(self._names.get(one, one), self.values[one], fate, became, why)

    def refused(self, key: str | Iterable[str], why: str, became: str = "") -> None:
        """Not supported, and why."""
        self.note(key, "not supported", why, became)

    def ignored(self, key: str | Iterable[str], why: str) -> None:
        """Does not concern training, and why."""
        self.note(key, "ignored", why)

    def honoured(self, key: str | Iterable[str], why: str = OFF, became: str = "") -> None:
        """Holds here too, without a setting of its own."""
        self.note(key, "taken", why, became)

    def remark(self, text: str) -> None:
        """A sentence about the file or the run as a whole."""
        if text not in self.remarks:
            self.remarks.append(text)

    def report(self, peer: str, title: str) -> Report:
        """All lines in the file's order; what nobody claimed is unknown."""
        lines = [
            self._lines.get(key)
            or KeyReport(self._names.get(key, key), value, "not supported", "", UNKNOWN, known=False)
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
        return ""

    def _settle(self, key: str, fate: KeyFate, path: str, value: Any, why: str) -> bool:
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
    """What a setting with choices offers, as the room that implements them lists it; nothing where there is none."""
    return next((describe(field).choices for found, field, _ in walk(Run) if found == path), ())


@cache
def exists(path: str) -> bool:
    """Whether a run has this setting."""
    return any(found == path for found, _, _ in walk(Run))


# ---- tables ----

Rule = Callable[[ConfigTranslation, str, Any], None]
"""What becomes of one key and its value."""
Step = Callable[[ConfigTranslation], None]
"""What becomes of several keys together."""
Row = tuple[Any, ...]
"""Keys, and the rules for them: (str, Rule, ...)."""
Table = Sequence[Row | Step]


def apply(sheet: ConfigTranslation, table: Table, *, at: str = "") -> ConfigTranslation:
    """Walk a table: each row for the keys of its names that the file has and that are still open; of several rules the
    first that has a line for a key. `at` stands in front of the names."""
    for row in table:
        if not isinstance(row, tuple):
            row(sheet)
            continue
        names, *rules = row
        for name in (f"{at}{name}" for name in names.split()):
            for rule in rules:
                for key in _named(sheet, name):
                    if not sheet.claimed(key):
                        rule(sheet, key, sheet.values[key])
                if isinstance(rule, To) and rule.default is not None and not sheet.has(name):
                    sheet.own(name, rule.path, None, rule.default)
    return sheet


def _named(sheet: ConfigTranslation, name: str) -> list[str]:
    """`key`; `key.*`: it and all below; `pre*`: all that begin so."""
    if name.endswith(".*"):
        return sheet.under(name[:-2])
    if name.endswith("*"):
        return [key for key in sheet.values if key.startswith(name[:-1])]
    return [name] if sheet.has(name) else []


@dataclass(frozen=True)
class To:
    """The rule that a value goes to the setting `path`, by `convert` (None from it: it cannot be read), with `why`
    where that made another value of it. `off` is said where it is nothing, and `path` stays. `default` is the other
    trainer's own, for files without the key."""

    path: str
    convert: Callable[[Any], Any] | None = None
    why: str = ""
    off: str = ""
    default: Any = None

    def __call__(self, sheet: ConfigTranslation, key: str, value: Any) -> None:
        """The line of the key, and the setting."""
        found = value if self.convert is None else self.convert(value)
        if self.default is not None and (found is not None or not given(value)):
            sheet.own(key, self.path, found, self.default, self.why)
        elif self.off and not found:
            sheet.honoured(key, self.off)
        elif found is None:
            sheet.put(self.path, sheet.read(self.path) if self.default is None else self.default)
            sheet.refused(key, f"{shown(value)} cannot be read; {self.path} stays {shown(sheet.read(self.path))}")
        elif self.why and found != value:
            sheet.translated(key, self.path, found, self.why)
        else:
            sheet.taken(key, self.path, found, self.why)


to = To


def aside(why: str) -> Rule:
    """Does not concern training."""
    return lambda sheet, key, value: sheet.ignored(key, why)


def holds(why: str = OFF, became: str = "") -> Rule:
    """Is so here too, or of no effect."""
    return lambda sheet, key, value: sheet.honoured(key, why, became)


def means(why: str, became: str = "") -> Rule:
    """The same, said in another way or found in another place here."""
    return lambda sheet, key, value: sheet.note(key, "translated", why, became)


def refuse(why: str, became: str = "") -> Rule:
    """Not here, whatever its value."""
    return lambda sheet, key, value: sheet.refused(key, why, became)


def missing(why: str, off: Sequence[Any] = NOTHING, *, at: str = "", told: str = OFF) -> Rule:
    """Something that we do not have: told where it is on. `at` is a setting that takes it, once the run has one."""

    def rule(sheet: ConfigTranslation, key: str, value: Any) -> None:
        if (not value) if isinstance(value, list | dict) else any(_same(value, item) for item in off):
            sheet.honoured(key, told)
        elif at and exists(at):
            sheet.taken(key, at, _like(sheet.read(at), value))
        else:
            sheet.refused(key, why)

    return rule


def _like(ours: Any, value: Any) -> Any:
    """A value, which may be written as text, as the kind of value that our setting holds."""
    if isinstance(ours, bool):
        return flag(value)
    return value if isinstance(ours, str) else whole(value) if isinstance(ours, int) else number(value)


def each(rule: Callable[[str], Rule], sentences: Mapping[str, str]) -> Iterator[tuple[str, Rule]]:
    """Rows of one rule: keys, and the sentence for them."""
    return ((keys, rule(sentence)) for keys, sentence in sentences.items())


def given(value: Any) -> bool:
    """Whether anybody filled it in."""
    return value not in EMPTY


def when(matters: Callable[[Any], object], rule: Rule) -> Rule:
    """A rule for values that matter; others stay open."""
    return lambda sheet, key, value: rule(sheet, key, value) if matters(value) else None


def among(values: Sequence[Any], rule: Rule) -> Rule:
    """A rule for these values; others stay open."""
    return when(lambda value: any(_same(value, one) for one in values), rule)


def where(condition: Callable[[ConfigTranslation], object], rule: Rule) -> Rule:
    """A rule that counts under a condition; else the key stays open."""
    return lambda sheet, key, value: rule(sheet, key, value) if condition(sheet) else None


def also(path: str, value: Any, rule: Rule) -> Rule:
    """A rule whose key means that another setting has this value, too."""

    def both(sheet: ConfigTranslation, key: str, written: Any) -> None:
        sheet.put(path, value)
        rule(sheet, key, written)

    return both


def under(condition: Callable[[ConfigTranslation], object], table: Table, otherwise: str = OFF) -> Step:
    """Rows that count under a condition; where it does not hold, `otherwise` is said of their keys."""

    def step(sheet: ConfigTranslation) -> None:
        idle: Table = [(row[0], holds(otherwise)) for row in table if isinstance(row, tuple)]
        apply(sheet, table if condition(sheet) else idle)

    return step


def choice(path: str, names: Mapping[str, str], instead: str, why: str) -> Rule:
    """A choice by the other trainer's name for it, or where that is called alike; else `instead`, and `why`."""

    def rule(sheet: ConfigTranslation, key: str, value: Any) -> None:
        written = str(value)
        ours = names.get(written) or names.get(written.lower()) or written.lower()
        if ours in choices(path):
            sheet.renamed(key, path, ours, value)
        else:
            sheet.refused(key, why, instead and f"{path} = {instead}")

    return rule


def unless(matters: Callable[[Any], object], why: str, told: str = OFF) -> Rule:
    """Not here, where its value matters; else it holds."""
    return lambda sheet, key, value: (refuse(why) if matters(value) else holds(told))(sheet, key, value)


def turned(path: str, convert: Callable[[Any], Any], why: str, *, off: str = OFF) -> Rule:
    """The value means another value of `path`; None: it is off."""

    def rule(sheet: ConfigTranslation, key: str, value: Any) -> None:
        found = convert(value)
        if found is None:
            sheet.honoured(key, off)
        else:
            sheet.translated(key, path, found, why)

    return rule


def _same(value: Any, item: Any) -> bool:
    """Equal as values, where 0 and False are not the same unless both are numbers."""
    if isinstance(value, bool) or isinstance(item, bool):
        return value is item
    return bool(value == item)
