"""Which name means what while a picture is made: the embeddings of the bundles in its prompt, and the rule for
collisions.

The rule, the same whatever was made before: between two bundles the first in the prompt wins; between a bundle and the
embeddings folder a setting decides. Whoever loses stays reachable by its qualified name, `word@file` (the folder's:
`word@embeddings`). Nothing is entered into the web UI's own registry, so nothing can be lost from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lib_pivotal.embeddings.name_matching import NameMatcher, folded, qualified

FOLDER = "embeddings"
"""How the embeddings folder is called in qualified names."""

Ids = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class EmbeddingOrigin:
    """The embeddings of one file: `labels` are all names by which a tag may call it, the one in the prompt first."""

    labels: tuple[str, ...]
    embeddings: Mapping[str, Any]
    stamp: object = None
    digest: str = ""


@dataclass(frozen=True, eq=False)
class NamedEmbedding:
    """What a name stands for: the embedding, its own name, and the hash of the file that it is from."""

    embedding: Any
    name: str
    digest: str = ""


@dataclass(frozen=True)
class Collision:
    """Two embeddings of one name: who got it, and by which name the other can be reached."""

    name: str
    winner: str
    loser: str
    reachable: str

    def __str__(self) -> str:
        other = "the embeddings folder's" if self.loser == FOLDER else f"that of {self.loser}"
        ours = "the embeddings folder's" if self.winner == FOLDER else f"that of {self.winner}"
        rest = f"write {self.reachable} for {other}" if self.reachable else f"{other} cannot be reached: rename it"
        return f'"{self.name}" means {ours}; {rest}'


@dataclass(frozen=True, eq=False)
class NameTable:
    """All names that hold while a picture is made."""

    matcher: NameMatcher[NamedEmbedding] = field(default_factory=lambda: NameMatcher[NamedEmbedding]({}))
    by_ids: Mapping[Ids, NamedEmbedding] = field(default_factory=dict)
    collisions: tuple[Collision, ...] = ()
    fingerprint: tuple[object, ...] = ()
    unnamed: tuple[str, ...] = ()
    """Embeddings without a token: no prompt can name them."""

    def __bool__(self) -> bool:
        return len(self.matcher) > 0

    def collisions_in(self, texts: Sequence[str]) -> tuple[Collision, ...]:
        """Those that the texts are about: the name itself, which may be the embeddings folder's, or the loser's."""
        names = {name: None for each in self.collisions for name in (each.name, each.reachable) if name}
        written = {folded(name) for name in NameMatcher(names).names_in(texts)}
        return tuple(each for each in self.collisions if {folded(each.name), folded(each.reachable)} & written)

    def find(self, tokens: Sequence[int], offset: int) -> tuple[NamedEmbedding, int] | None:
        """The longest name whose ids stand at `offset`: the web UI's own rule, for callers that know no text."""
        first = tokens[offset]
        fitting = [ids for ids in self.by_ids if ids[0] == first and tuple(tokens[offset : offset + len(ids)]) == ids]
        longest = max(fitting, key=len, default=None)
        return None if longest is None else (self.by_ids[longest], len(longest))


def build_table(
    sources: Sequence[EmbeddingOrigin],
    *,
    ids_of: Callable[[str], Ids],
    folder: Mapping[Ids, Any],
    folder_wins: bool = False,
) -> NameTable:
    """Settle what every name means.

    `ids_of` gives a name's token ids, `folder` the embeddings folder's entries by theirs: comparing ids finds
    collisions that differ in case only. The first source wins; `folder_wins` puts the folder before all of them.
    """
    entries: dict[str, NamedEmbedding] = {}
    names: set[str] = set()
    by_ids: dict[Ids, NamedEmbedding] = {}
    owners: dict[Ids, str] = {}
    collisions: list[Collision] = []
    unnamed: list[str] = []

    def enter(name: str, entry: NamedEmbedding, ids: Ids) -> None:
        if folded(name) in names or ids in by_ids:
            return
        names.add(folded(name))
        entries[name], by_ids[ids] = entry, entry

    for source in sources:
        own: set[Ids] = set()
        for name, embedding in source.embeddings.items():
            ids = ids_of(name)
            if not ids:
                unnamed.append(name)
                continue
            entry = NamedEmbedding(embedding, name, source.digest)
            twin = ids in own
            own.add(ids)
            for label in () if twin else _distinct(source.labels):
                spelled = qualified(name, label)
                enter(spelled, entry, ids_of(spelled))
            reachable = "" if twin else qualified(name, source.labels[0])
            if twin or ids in owners:
                collisions.append(Collision(name, owners.get(ids, source.labels[0]), source.labels[0], reachable))
            elif folder_wins and ids in folder:
                owners[ids] = FOLDER
                collisions.append(Collision(name, FOLDER, source.labels[0], reachable))
            else:
                owners[ids] = source.labels[0]
                enter(name, entry, ids)
                if ids in folder:
                    spelled = qualified(name, FOLDER)
                    enter(spelled, NamedEmbedding(folder[ids], name), ids_of(spelled))
                    collisions.append(Collision(name, source.labels[0], FOLDER, spelled))
    return NameTable(
        matcher=NameMatcher(entries),
        by_ids=by_ids,
        collisions=tuple(collisions),
        fingerprint=tuple((name, *(_stamps(sources, entry))) for name, entry in entries.items()),
        unnamed=tuple(unnamed),
    )


def _stamps(sources: Iterable[EmbeddingOrigin], entry: NamedEmbedding) -> tuple[object, ...]:
    return tuple(source.stamp for source in sources if source.embeddings.get(entry.name) is entry.embedding)


def _distinct(labels: Iterable[str]) -> list[str]:
    seen: dict[str, str] = {}
    for label in labels:
        seen.setdefault(folded(label), label)
    return list(seen.values())
