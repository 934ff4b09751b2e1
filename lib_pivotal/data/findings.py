"""What the lint says: a finding with its pictures, and remedies that can be named in a file or a request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lib_pivotal.data.records import Level, Problem
from lib_pivotal.errors import DataError

RANK: Mapping[Level, int] = {"error": 0, "warning": 1, "info": 2}


@dataclass(frozen=True)
class Remedy:
    """A change of the run by its name and arguments; `runs.remedies` makes it. `label` is what a button says."""

    id: str
    label: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"id": self.id, "label": self.label, "arguments": dict(self.arguments)}

    @classmethod
    def from_dict(cls, plain: Any) -> Remedy:
        """From JSON; the label may be missing.

        Raises:
            DataError: it is no remedy.
        """
        if not isinstance(plain, Mapping) or not isinstance(plain.get("id"), str):
            raise DataError(f"remedy = {plain!r}: must be an object with an id and arguments, as a plan gives it.")
        arguments = plain.get("arguments", {})
        if not isinstance(arguments, Mapping):
            raise DataError(f"arguments = {arguments!r} of the remedy {plain['id']}: must be an object.")
        return cls(plain["id"], str(plain.get("label", "")), dict(arguments))


@dataclass(frozen=True)
class Finding:
    """Something about a dataset with a run: `kind` for programs, `text` for people.

    `error`: the run cannot be started like this; `warning`: it will disappoint; `info`: good to know. `keys` are the
    pictures concerned, `words` the words; of `remedies` the first is the one to take if one does not want to think.
    """

    kind: str
    severity: Level
    text: str
    keys: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    remedies: tuple[Remedy, ...] = ()

    @property
    def remedy(self) -> Remedy | None:
        """The first remedy."""
        return self.remedies[0] if self.remedies else None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "text": self.text,
            "keys": list(self.keys),
            "words": list(self.words),
            "remedies": [remedy.as_dict() for remedy in self.remedies],
        }


def of_problem(problem: Problem) -> Finding:
    """What a scan says as a finding; its code is the kind."""
    return Finding(problem.code, problem.level, problem.message, problem.keys)


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors, warnings, the rest; otherwise in their order."""
    return tuple(sorted(findings, key=lambda finding: RANK[finding.severity]))


def listed(names: Iterable[str], most: int = 4) -> str:
    """`a, b, c, d and 3 more`."""
    found = list(names)
    shown = ", ".join(found[:most])
    return f"{shown} and {len(found) - most} more" if len(found) > most else shown


def count_of(number: int, name: str) -> str:
    """`1 picture`, `2 pictures`."""
    return f"{number} {name}{'' if number == 1 else 's'}"
