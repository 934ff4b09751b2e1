"""A sweep: the same run over several values of one or two settings, each under a name that tells its values."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

from lib_pivotal.config import Run, run_from_dict, run_to_dict
from lib_pivotal.errors import ConfigError, Fault
from lib_pivotal.file_names import legal_file_name
from lib_pivotal.plain_json import parse_json
from lib_pivotal.runs.queue import Axis
from lib_pivotal.training.results import NAMELESS

MOST_RUNS = 64
"""So many runs a sweep may have: more would be a slip of the hand."""
MOST_AXES = 2


def read_axis(text: str) -> Axis:
    """An axis as it is typed: `network.unet_lr = 1e-4, 3e-4`. Values that are lists are given as one JSON list.

    Raises:
        ConfigError: there is no `=`, or no value.
    """
    path, equals, values = text.partition("=")
    found = _values(values.strip())
    if not equals or not path.strip() or not found:
        raise ConfigError([Fault("sweep", text, "is no setting with its values", "Write network.unet_lr = 1e-4, 3e-4")])
    return Axis(path.strip(), found)


def sweep_runs(run: Run, axes: Sequence[Axis]) -> list[tuple[tuple[int, ...], Run]]:
    """A run for each value, or pair of values, behind its place: the number of the value of each axis.

    The first axis counts slowest. Names are `aoi-unet_lr-0.0001`: the run's, the setting's last word and the value.

    Raises:
        ConfigError: too many axes or runs, values given twice, no such setting, or values that it cannot have.
    """
    _check(axes)
    made, faults = [], []
    for place in itertools.product(*(range(len(axis.values)) for axis in axes)):
        plain = run_to_dict(run)
        for axis, number in zip(axes, place, strict=True):
            set_value(plain, axis.path, deepcopy(axis.values[number]))
        plain["name"] = legal_file_name("-".join([run.name or NAMELESS, *labels(axes, place)]))
        try:
            made.append((place, run_from_dict(plain)))
        except ConfigError as error:
            faults += [fault for fault in error.faults if fault not in faults]
    if faults:
        raise ConfigError(faults)
    return _told_apart(made)


def labels(axes: Sequence[Axis], place: Sequence[int]) -> list[str]:
    """The value of each axis as text: `unet_lr-0.0001`."""
    return [label(axis, number) for axis, number in zip(axes, place, strict=True)]


def label(axis: Axis, number: int) -> str:
    """One value of an axis as text: the setting's last word and the value."""
    return f"{axis.path.rpartition('.')[2]}-{value_text(axis.values[number])}"


def value_text(value: Any) -> str:
    """A value as people write it: text as it is, everything else as JSON without blanks."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def set_value(plain: dict[str, Any], path: str, value: Any) -> None:
    """Set a setting of a run's plain values by its dotted path; numbers count in lists (`embeddings.0.vectors`).

    Raises:
        ConfigError: a run has no such setting.
    """
    *parents, last = path.split(".")
    holder: Any = plain
    try:
        for name in parents:
            holder = holder[int(name)] if isinstance(holder, list) else holder[name]
        key: Any = int(last) if isinstance(holder, list) else last
        known = key in range(len(holder)) if isinstance(holder, list) else key in holder
    except (KeyError, IndexError, ValueError, TypeError):
        known = False
    if not known:
        raise ConfigError([Fault("sweep", path, "is no setting of a run", "Take a name as in run.json.")])
    holder[key] = value


def _values(text: str) -> tuple[Any, ...]:
    if text.startswith("["):
        listed = _json(text)
        if isinstance(listed, list):
            return tuple(listed)
    return tuple(_json(part.strip()) for part in text.split(",") if part.strip())


def _json(text: str) -> Any:
    """JSON where it is some, else the text itself."""
    try:
        return parse_json(text)
    except ValueError:
        return text


def _check(axes: Sequence[Axis]) -> None:
    if not 1 <= len(axes) <= MOST_AXES:
        raise ConfigError([Fault("sweep", len(axes), f"must have 1 to {MOST_AXES} settings")])
    count = 1
    for axis in axes:
        count *= len(axis.values)
        texts = [value_text(value) for value in axis.values]
        if not texts or len(set(texts)) < len(texts):
            raise ConfigError([Fault(f"sweep {axis.path}", ", ".join(texts), "must be values that differ")])
        if axis.path in ("name", "version"):
            raise ConfigError([Fault("sweep", axis.path, "cannot be swept: each run has its own")])
    if len(axes) == MOST_AXES and axes[0].path == axes[1].path:
        raise ConfigError([Fault("sweep", axes[0].path, "is given twice")])
    if count > MOST_RUNS:
        raise ConfigError([Fault("sweep", count, f"are more runs than a sweep may have ({MOST_RUNS})")])


def _told_apart(made: Sequence[tuple[tuple[int, ...], Run]]) -> list[tuple[tuple[int, ...], Run]]:
    """Two values may become one in a file's name (`a/b`, `a:b`): later ones get a number."""
    seen: dict[str, int] = {}
    found = []
    for place, run in made:
        number = seen[run.name.lower()] = seen.get(run.name.lower(), 0) + 1
        found.append((place, run if number == 1 else replace(run, name=f"{run.name}-{number}")))
    return found


def as_axes(plain: Mapping[str, Any]) -> tuple[Axis, ...]:
    """Axes of `{"network.unet_lr": [1e-4, 3e-4]}`, in that order.

    Raises:
        ConfigError: a setting has no list of values.
    """
    for path, values in plain.items():
        if not isinstance(values, list):
            raise ConfigError([Fault(f"sweep {path}", values, "must be a list of values")])
    return tuple(Axis(path, tuple(values)) for path, values in plain.items())
