"""What the lint says: a warning with its pictures, fixes that can be named in a file or a request, and groups.

Warnings of one kind are one line: fourteen pairs of doubles are a line with a number, not fourteen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from lib_pivotal.data.records import DatasetProblem, Level
from lib_pivotal.errors import DataError

RANK: Mapping[Level, int] = {"error": 0, "warning": 1, "info": 2}
IN_VERSION_1: Mapping[str, str] = MappingProxyType({"word": "embedding", "remedies": "fixes"})
"""What arguments of a fix were called -> are called."""


@dataclass(frozen=True)
class Fix:
    """A change of the run by its name and arguments; `runs.fixes` makes it. `label` is what a button says."""

    id: str
    label: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"id": self.id, "label": self.label, "arguments": dict(self.arguments)}

    @classmethod
    def from_dict(cls, plain: Any) -> Fix:
        """From JSON; the label may be missing. Arguments are also known by their names in version 1.

        Raises:
            DataError: it is no fix.
        """
        if not isinstance(plain, Mapping) or not isinstance(plain.get("id"), str):
            raise DataError(f"fix = {plain!r}: must be an object with an id and arguments, as a plan gives it.")
        arguments = plain.get("arguments", {})
        if not isinstance(arguments, Mapping):
            raise DataError(f"arguments = {arguments!r} of the fix {plain['id']}: must be an object.")
        named = {IN_VERSION_1.get(key, key): value for key, value in arguments.items()}
        return cls(plain["id"], str(plain.get("label", "")), named)


@dataclass(frozen=True)
class LintWarning:
    """Something about a dataset with a run: `kind` for programs, `text` for people.

    `error`: the run cannot be started like this; `warning`: it will disappoint; `info`: good to know. `keys` are the
    pictures concerned, `embeddings` the embeddings; of `fixes` the first is the one to take if one does not want to
    think.
    """

    kind: str
    severity: Level
    text: str
    keys: tuple[str, ...] = ()
    embeddings: tuple[str, ...] = ()
    fixes: tuple[Fix, ...] = ()

    @property
    def fix(self) -> Fix | None:
        """The first fix."""
        return self.fixes[0] if self.fixes else None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "text": self.text,
            "keys": list(self.keys),
            "embeddings": list(self.embeddings),
            "fixes": [fix.as_dict() for fix in self.fixes],
        }


def of_problem(problem: DatasetProblem) -> LintWarning:
    """What a scan says as a warning; its code is the kind."""
    return LintWarning(problem.code, problem.level, problem.message, problem.keys)


def worst_first(warnings: Iterable[LintWarning]) -> tuple[LintWarning, ...]:
    """Errors, warnings, the rest; otherwise in their order."""
    return tuple(sorted(warnings, key=lambda warning: RANK[warning.severity]))


def listed(names: Iterable[str], most: int = 4) -> str:
    """`a, b, c, d and 3 more`."""
    found = list(names)
    shown = ", ".join(found[:most])
    return f"{shown} and {len(found) - most} more" if len(found) > most else shown


def count_of(number: int, name: str) -> str:
    """`1 picture`, `2 pictures`."""
    return f"{number} {name}{'' if number == 1 else 's'}"


TITLES: Mapping[str, str] = MappingProxyType(
    {
        "animated": "{n} moving pictures: the first frame of each is used",
        "base_missing": "{n} files that a settings file rests on are not here",
        "caption_encoding": "{n} captions in another encoding",
        "caption_unreadable": "{n} captions that cannot be read",
        "captions_unreadable": "{n} files of captions that cannot be read",
        "duplicate": "{n} pictures are there more than once, byte for byte ({pictures})",
        "few_draws": "Embeddings with few samples",
        "folder_missing": "{n} folders are not here",
        "folder_unreadable": "{n} folders cannot be read",
        "masks_missing": "{n} folders of masks are not here",
        "metadata_unreadable": "{n} files of metadata that cannot be read",
        "mirrored": "{n} embeddings have sides, but are mirrored",
        "name": "{n} warnings about names of embeddings",
        "name_unreadable": "{n} folders have files whose names are no text",
        "near_double": "{n} groups of pictures look the same ({pictures})",
        "no_repeats": "{n} pictures are never sampled, as their folder says",
        "no_word": "Captions name no embedding in {n} places ({pictures})",
        "repeats_unreadable": "{n} files of repeats that cannot be read",
        "setting_unreadable": "{n} settings of a dataset file that cannot be read",
        "tags_describe_word": "{n} embeddings have captions that describe what they should learn",
        "template_missing": "{n} templates are not here",
        "too_small": "{n} pictures are too small and left out",
        "unreadable": "{n} pictures cannot be read and are left out",
        "word_always": "{n} embeddings are in every caption",
        "word_explained": "{n} embeddings are explained by others",
        "word_never": "{n} embeddings are in no caption",
        "words_never_apart": "{n} sets of embeddings never appear apart",
    }
)
"""What several warnings of a kind are called together; other kinds get a plain count."""
HANG_TOGETHER = frozenset(("word_explained", "words_never_apart"))
"""Taking one embedding out may end the next warning, too: no fix of several at once is offered."""


@dataclass(frozen=True)
class WarningGroup:
    """Warnings of one kind and severity, each with its number (1 is the first of all); `name` tells groups apart."""

    name: str
    kind: str
    severity: Level
    warnings: tuple[tuple[int, LintWarning], ...]

    @property
    def text(self) -> str:
        """Of a single warning its own; of several what they have in common."""
        if len(self.warnings) == 1:
            return self.warnings[0][1].text
        title = TITLES.get(self.kind, "{n} warnings of the kind `" + self.kind.replace("_", " ") + "`")
        return title.format(n=len(self.warnings), pictures=count_of(len(self.keys), "picture")) + "."

    @property
    def keys(self) -> tuple[str, ...]:
        """Pictures and files of all, each once."""
        return tuple(dict.fromkeys(key for _, warning in self.warnings for key in warning.keys))

    @property
    def fixes(self) -> tuple[Fix, ...]:
        """What ends all of them; empty where each wants a look of its own."""
        if len(self.warnings) == 1:
            return self.warnings[0][1].fixes
        first = [warning.fix for _, warning in self.warnings]
        given = [fix for fix in first if fix is not None]
        if len(given) < len(first):
            return ()
        if all(fix == given[0] for fix in given):
            common = [r for r in self.warnings[0][1].fixes if all(r in f.fixes for _, f in self.warnings)]
            return tuple(common)
        if self.kind in HANG_TOGETHER or len({fix.id for fix in given}) > 1:
            return ()
        return (fix_of_all(given),)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `warnings` are numbers, 1 is the first of the list beside it."""
        return {
            "name": self.name,
            "kind": self.kind,
            "severity": self.severity,
            "text": self.text,
            "warnings": [number for number, _ in self.warnings],
            "pictures": len(self.keys),
            "fixes": [fix.as_dict() for fix in self.fixes],
        }


def grouped(warnings: Iterable[LintWarning]) -> tuple[WarningGroup, ...]:
    """The worst first, otherwise in the order of their first; numbers count `worst_first(warnings)`."""
    members: dict[tuple[str, Level], list[tuple[int, LintWarning]]] = {}
    for number, warning in enumerate(worst_first(warnings), 1):
        members.setdefault((warning.kind, warning.severity), []).append((number, warning))
    names: set[str] = set()
    found = []
    for (kind, severity), inside in members.items():
        name = f"{kind}-{severity}" if kind in names else kind
        names.add(name)
        found.append(WarningGroup(name, kind, severity, tuple(inside)))
    return tuple(found)


def fix_of_all(fixes: Sequence[Fix]) -> Fix:
    """One fix that makes several, in turn."""
    plain = [fix.as_dict() for fix in fixes]
    return Fix("all", f"Fix all {len(fixes)}", {"fixes": plain})
