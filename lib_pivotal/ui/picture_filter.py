"""Filters of pictures: `word:aoi, tag:blue hair, -tag:smile, problem:near_double, text`; all must hold. With counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from lib_pivotal.data.tags import same_tag

if TYPE_CHECKING:
    from lib_pivotal.data.records import Picture

Kind = Literal["word", "tag", "problem", "text"]
NO_EMBEDDING = "none"
"""`word:none`: pictures without any embedding."""
FACET_TAGS = 24
NO_PROBLEMS: Mapping[str, Sequence[str]] = MappingProxyType({})


@dataclass(frozen=True)
class FilterPart:
    """One condition; `without` turns it round."""

    kind: Kind
    value: str
    without: bool = False

    def __str__(self) -> str:
        """As it is written in the filter."""
        kind = "" if self.kind == "text" else f"{self.kind}:"
        return f"{'-' if self.without else ''}{kind}{self.value}"


def parse(query: str) -> tuple[FilterPart, ...]:
    """The parts of a filter; what has no kind is text of the caption or the file's name."""
    parts = []
    for piece in query.split(","):
        text = piece.strip()
        without = text.startswith("-") and len(text) > 1
        text = text[1:].strip() if without else text
        kind, colon, value = text.partition(":")
        if colon and kind.strip().lower() in ("word", "tag", "problem") and value.strip():
            found: Kind = kind.strip().lower()  # type: ignore[assignment]
            parts.append(FilterPart(found, value.strip().lower(), without))
        elif text:
            parts.append(FilterPart("text", text.lower(), without))
    return tuple(dict.fromkeys(parts))


class TagIndex:
    """Which pictures have which tag; tags by form (`same_tag`), pictures by place."""

    def __init__(self, pictures: Sequence[Picture]) -> None:
        self.keys = tuple(picture.key for picture in pictures)
        self.places = {key: place for place, key in enumerate(self.keys)}
        self.texts = ["\n".join((picture.key, picture.caption, *picture.alternatives)).lower() for picture in pictures]
        self.spelling: dict[str, str] = {}
        self.forms: list[tuple[str, ...]] = []
        self.by_form: dict[str, set[int]] = {}
        for place, picture in enumerate(pictures):
            texts = (picture.caption, *picture.alternatives)
            tags = {form: tag for text in texts for tag in picture.cut.single(text) if (form := same_tag(tag))}
            self.forms.append(tuple(tags))
            for form, tag in tags.items():
                self.spelling.setdefault(form, tag)
                self.by_form.setdefault(form, set()).add(place)


@dataclass(frozen=True)
class Facets:
    """What a filter can be narrowed by: how many of its pictures each embedding, tag and problem has."""

    embeddings: Mapping[str, int]
    tags: Mapping[str, int]
    problems: Mapping[str, int]


class PictureIndex:
    """Finds pictures by embeddings and tags."""

    def __init__(self, tags: TagIndex, embeddings_of: Mapping[str, Sequence[str]]) -> None:
        self._tags = tags
        self._embeddings: dict[str, set[int]] = {}
        for key, embeddings in embeddings_of.items():
            for embedding in embeddings or (NO_EMBEDDING,):
                self._embeddings.setdefault(embedding, set()).add(tags.places[key])

    def matching(self, parts: Sequence[FilterPart], problems: Mapping[str, Sequence[str]] = NO_PROBLEMS) -> list[int]:
        """Places of the pictures for which all parts hold; `problems` are keys by name (a kind, or a number)."""
        found = set(range(len(self._tags.keys)))
        for part in parts:
            mine = self._of(part, found, problems)
            found = found - mine if part.without else found & mine
        return sorted(found)

    def facets(self, places: Sequence[int], problems: Mapping[str, Sequence[str]] = NO_PROBLEMS) -> Facets:
        """Counts among these pictures; of tags the most frequent that not all of them have, embeddings left out."""
        chosen = set(places)
        embeddings = {embedding: len(chosen & mine) for embedding, mine in self._embeddings.items()}
        counts: Counter[str] = Counter()
        for place in places:
            counts.update(self._tags.forms[place])
        telling = {
            self._tags.spelling[form]: count
            for form, count in counts.most_common(FACET_TAGS * 2 + len(embeddings))
            if count < len(places) and form not in self._embeddings
        }
        tags = dict(list(telling.items())[:FACET_TAGS])
        seen = {name: len(chosen & self._known(keys)) for name, keys in problems.items() if keys}
        return Facets(embeddings, tags, seen)

    def _of(self, part: FilterPart, among: set[int], problems: Mapping[str, Sequence[str]]) -> set[int]:
        if part.kind == "word":
            return self._embeddings.get(part.value, set())
        if part.kind == "tag":
            return self._tags.by_form.get(same_tag(part.value), set())
        if part.kind == "problem":
            return self._known(problems.get(part.value, ()))
        return {place for place in among if part.value in self._tags.texts[place]}

    def _known(self, keys: Sequence[str]) -> set[int]:
        return {place for key in keys if (place := self._tags.places.get(key)) is not None}
