"""Findings of one kind as one thing to look at: fourteen pairs of doubles are a line with a number, not fourteen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from lib_pivotal.data.findings import Finding, Remedy, count_of, worst_first
from lib_pivotal.data.records import Level

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
"""What several findings of a kind are called together; other kinds get a plain count."""
HANG_TOGETHER = frozenset(("word_explained", "words_never_apart"))
"""Taking one word out may mend the next finding, too: no remedy of several at once is offered."""


@dataclass(frozen=True)
class FindingGroup:
    """Findings of one kind and severity, each with its number (1 is the first of all); `name` tells groups apart."""

    name: str
    kind: str
    severity: Level
    findings: tuple[tuple[int, Finding], ...]

    @property
    def text(self) -> str:
        """Of a single finding its own; of several what they have in common."""
        if len(self.findings) == 1:
            return self.findings[0][1].text
        title = TITLES.get(self.kind, "{n} warnings of the kind `" + self.kind.replace("_", " ") + "`")
        return title.format(n=len(self.findings), pictures=count_of(len(self.keys), "picture")) + "."

    @property
    def keys(self) -> tuple[str, ...]:
        """Pictures and files of all, each once."""
        return tuple(dict.fromkeys(key for _, finding in self.findings for key in finding.keys))

    @property
    def remedies(self) -> tuple[Remedy, ...]:
        """What mends all of them; empty where each wants a look of its own."""
        if len(self.findings) == 1:
            return self.findings[0][1].remedies
        first = [finding.remedy for _, finding in self.findings]
        given = [remedy for remedy in first if remedy is not None]
        if len(given) < len(first):
            return ()
        if all(remedy == given[0] for remedy in given):
            common = [r for r in self.findings[0][1].remedies if all(r in f.remedies for _, f in self.findings)]
            return tuple(common)
        if self.kind in HANG_TOGETHER or len({remedy.id for remedy in given}) > 1:
            return ()
        return (remedy_of_all(given),)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `findings` are numbers, 1 is the first of the list beside it."""
        return {
            "name": self.name,
            "kind": self.kind,
            "severity": self.severity,
            "text": self.text,
            "findings": [number for number, _ in self.findings],
            "pictures": len(self.keys),
            "remedies": [remedy.as_dict() for remedy in self.remedies],
        }


def grouped(findings: Iterable[Finding]) -> tuple[FindingGroup, ...]:
    """The worst first, otherwise in the order of their first; numbers count `worst_first(findings)`."""
    members: dict[tuple[str, Level], list[tuple[int, Finding]]] = {}
    for number, finding in enumerate(worst_first(findings), 1):
        members.setdefault((finding.kind, finding.severity), []).append((number, finding))
    names: set[str] = set()
    found = []
    for (kind, severity), inside in members.items():
        name = f"{kind}-{severity}" if kind in names else kind
        names.add(name)
        found.append(FindingGroup(name, kind, severity, tuple(inside)))
    return tuple(found)


def remedy_of_all(remedies: Sequence[Remedy]) -> Remedy:
    """One remedy that makes several, in turn."""
    plain = [remedy.as_dict() for remedy in remedies]
    return Remedy("all", f"Fix all {len(remedies)}", {"remedies": plain})
