"""How a setting is described, checked, written to JSON and read back.

`setting()` puts help, unit and limits into a dataclass field's metadata; `parse()` turns plain JSON values into the
dataclass and gathers every fault instead of stopping at the first; paths (unit "path") lose what was pasted around
them. The settings themselves stand in `config.py`.

Choices that a room above implements (losses, optimisers, ...) are listed there and nowhere else. A setting names the
function or the `Literal` type that lists them, `choices="training.objective:loss_names"`: as text, since config imports
no room, and asked when a value is looked at, so that reading a run of defaults needs no torch.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from lib_pivotal.errors import Fault
from lib_pivotal.files import typed_text

T = TypeVar("T")


def listed_at(place: str) -> Any:
    """A function or a type of a room above by `module:name`, as text."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(f"lib_pivotal.{module}"), name)


def asked(registry: str, *about: str) -> tuple[str, ...]:
    """What a registry lists, `module:name` as text: a function, called with `about`, or a `Literal` type."""
    found = listed_at(registry)
    names: tuple[str, ...] = typing.get_args(found) or found(*about)
    return names


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is known of one setting besides its type and default."""

    help: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    listed: tuple[Any, ...] | str = ()
    """The choices, or where they are listed: `ROOM.MODULE:NAME`."""
    above_minimum: bool = False
    good_range: str = ""

    @property
    def choices(self) -> tuple[Any, ...]:
        """What the setting offers; empty where it is free."""
        if not isinstance(self.listed, str):
            return self.listed
        return asked(self.listed)


def setting(
    default: Any,
    help: str,  # noqa: A002 - the word that users of dataclass metadata expect
    *,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: Sequence[Any] | str = (),
    above_minimum: bool = False,
    good_range: str = "",
) -> Any:
    """Declare a dataclass field; `choices` are the values or the registry that lists them (see above);
    `above_minimum` excludes the minimum itself."""
    listed = choices if isinstance(choices, str) else tuple(choices)
    described = Setting(help, unit, minimum, maximum, listed, above_minimum, good_range)
    if callable(default):
        return dataclasses.field(default_factory=default, metadata={"setting": described})
    return dataclasses.field(default=default, metadata={"setting": described})


def describe(field: dataclasses.Field[Any]) -> Setting:
    """The `Setting` of a field made by `setting()`."""
    described = field.metadata["setting"]
    assert isinstance(described, Setting)
    return described


def walk(section: type[Any], prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any], Any]]:
    """Yield (dotted path, field, type) of every leaf setting of a section, in order."""
    hints = typing.get_type_hints(section)
    for field in dataclasses.fields(section):
        path = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(hints[field.name]):
            yield from walk(hints[field.name], f"{path}.")
        else:
            yield path, field, hints[field.name]


def to_plain(value: Any) -> Any:
    """Dataclasses and tuples to dicts and lists, for `json.dumps`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {name: to_plain(item) for name, item in value.items()}
    return value


def parse(section: type[T], plain: Any, *, path: str = "") -> tuple[T, list[Fault]]:
    """Build `section` from plain JSON. A value at fault is replaced by its default, and its fault is listed."""
    defaults = section()
    if not isinstance(plain, dict):
        return defaults, [Fault(path or section.__name__, plain, "must be an object of settings", "See run.json.")]
    faults: list[Fault] = []
    known = {field.name for field in dataclasses.fields(section)}  # type: ignore[arg-type]
    for key in plain:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            remedy = f"Did you mean {near[0]!r}?" if near else "Remove it."
            faults.append(Fault(f"{path}{key}", plain[key], "is not a setting", remedy))
    hints = typing.get_type_hints(section)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(section):  # type: ignore[arg-type]
        if field.name not in plain:
            continue
        value, found = _parse_value(hints[field.name], plain[field.name], f"{path}{field.name}")
        if isinstance(value, str) and "setting" in field.metadata and describe(field).unit == "path":
            value = typed_text(value)  # the one place: whoever checks or opens it sees the same path
        if not found and "setting" in field.metadata and value != getattr(defaults, field.name):
            found = check_limits(describe(field), value, f"{path}{field.name}")
            value = None if found else value
        faults += found
        values[field.name] = getattr(defaults, field.name) if found and value is None else value
    return dataclasses.replace(defaults, **values), faults  # type: ignore[type-var]


def check_limits(described: Setting, value: Any, path: str) -> list[Fault]:
    """Faults of one value against its choices, minimum and maximum."""
    choices = described.choices
    if choices and value is not None and not isinstance(value, tuple) and value not in choices:
        allowed = ", ".join(str(choice) for choice in choices)
        return [Fault(path, value, "is not one of the choices", f"Use one of: {allowed}.")]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return []
    if not math.isfinite(value):
        return [Fault(path, value, "is not a finite number")]
    unit = f" {described.unit}" if described.unit else ""
    low, high = described.minimum, described.maximum
    if low is not None and (value < low or (described.above_minimum and value == low)):
        bound = "above" if described.above_minimum else "at least"
        return [Fault(path, value, f"must be {bound} {low:g}{unit}")]
    if high is not None and value > high:
        return [Fault(path, value, f"must be at most {high:g}{unit}")]
    return []


def _parse_value(hint: Any, plain: Any, path: str) -> tuple[Any, list[Fault]]:
    """One JSON value against its type: a scalar, an optional scalar, a section, or a tuple of these."""
    if dataclasses.is_dataclass(hint):
        return parse(hint, plain, path=f"{path}.")  # type: ignore[arg-type]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if plain is None:
            return None, []
        return _parse_value(next(a for a in arguments if a is not type(None)), plain, path)
    if origin is typing.Literal:
        return plain, []
    if origin is Mapping:  # what it may hold is checked by whoever describes it
        return (dict(plain), []) if isinstance(plain, dict) else (None, [Fault(path, plain, "must be an object")])
    if origin is tuple:
        if not isinstance(plain, list | tuple):
            return None, [Fault(path, plain, "must be a list")]
        items, faults = [], []
        for index, item in enumerate(plain):
            value, found = _parse_value(arguments[0], item, f"{path}.{index}")
            if not (found and value is None):
                items.append(value)
            faults += found
        return tuple(items), faults
    return _parse_scalar(hint, plain, path)


def _parse_scalar(kind: type[Any], plain: Any, path: str) -> tuple[Any, list[Fault]]:
    if kind is float and isinstance(plain, int | float) and not isinstance(plain, bool):
        return float(plain), []
    if kind is int and isinstance(plain, float) and plain.is_integer():
        return int(plain), []
    if isinstance(plain, kind) and not (kind is int and isinstance(plain, bool)):
        return plain, []
    names = {float: "a number", int: "a whole number", str: "text", bool: "true or false"}
    return None, [Fault(path, plain, f"must be {names.get(kind, kind.__name__)}")]
