"""A run's own embeddings in a prompt's token ids, before whatever else is named there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

Find: TypeAlias = "Callable[[Sequence[int], int], tuple[Any, int | None]]"
"""The web UI's `find_embedding_at_position`: the embedding that begins at a place and how many ids it takes."""


class OwnNames:
    """Finds a run's own embeddings by the ids of their names, before any other embedding that stands there.

    The web UI's rule among them: the longest name. `others` finds the rest, and only where none of ours begins before
    it would end; without it nothing else is found.
    """

    def __init__(
        self, ids: Mapping[str, Sequence[int]], embeddings: Mapping[str, Any], others: Find | None = None
    ) -> None:
        self._by_first: dict[int, list[tuple[list[int], Any]]] = {}
        self._others = others
        for name in sorted(embeddings, key=lambda name: -len(ids[name])):
            if len(ids[name]):
                self._by_first.setdefault(ids[name][0], []).append((list(ids[name]), embeddings[name]))

    def find(self, tokens: Sequence[int], offset: int) -> tuple[Any, int | None]:
        """As `find_embedding_at_position`: the embedding that begins here and how many ids it takes, or None twice."""
        own = self._own(tokens, offset)
        if own is not None or self._others is None:
            return own or (None, None)
        embedding, length = self._others(tokens, offset)
        reached = range(offset + 1, offset + (length or 0))
        return (None, None) if any(self._own(tokens, place) for place in reached) else (embedding, length)

    def _own(self, tokens: Sequence[int], offset: int) -> tuple[Any, int] | None:
        for ids, embedding in self._by_first.get(tokens[offset], ()):
            if list(tokens[offset : offset + len(ids)]) == ids:
                return embedding, len(ids)
        return None
