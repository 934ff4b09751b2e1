"""How many places of a prompt a caption takes, and what of it lies behind a limit."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache

from lib_pivotal.data.captions import WordFinder, split_tags

CHUNK = 75
"""Places of one chunk of a prompt, without start and end."""

_WEIGHT = re.compile(r":\s*[\d.]+\s*(?=[)\]])")
_BRACKET = re.compile(r"(?<!\\)[()\[\]]")
_PIECE = re.compile(r"[^\W\d_]+|\d|[^\w\s]|_")
_LETTERS_A_TOKEN = 7
"""CLIP's vocabulary has most English words whole; longer ones fall into pieces."""


@lru_cache(maxsize=32768)
def estimated_tokens(text: str) -> int:
    """About how many tokens CLIP makes of a text, where no tokenizer is at hand."""
    return sum(-(-len(piece) // _LETTERS_A_TOKEN) for piece in _PIECE.findall(text))


class TokenCounter:
    """Counts a caption's places: text by `count` tokens, each word by its vectors; weights and brackets take none."""

    def __init__(self, vectors: Mapping[str, int], count: Callable[[str], int] = estimated_tokens) -> None:
        self._vectors, self._count = {name.lower(): number for name, number in vectors.items()}, count
        self._find = WordFinder(vectors)
        names = sorted(self._vectors, key=lambda name: (-len(name), name))
        body = "|".join(re.escape(name) for name in names)
        self._pattern = re.compile(rf"(?<![^\W\d_])({body})(?![^\W\d_])", re.IGNORECASE) if body else None

    def __call__(self, caption: str) -> int:
        """Places that the caption takes."""
        text = _BRACKET.sub("", _WEIGHT.sub("", caption))
        if self._pattern is None:
            return self._count(text)
        parts = self._pattern.split(text)  # text, word, text, word, ... text
        words = sum(self._vectors[part.lower()] for part in parts[1::2])
        return words + sum(self._count(part) for part in parts[::2] if part.strip())

    def divide(self, caption: str, limit: int) -> tuple[list[str], list[str]]:
        """The tags that fit into `limit` places, and those that do not; a tag with a word goes before all others."""
        tags = split_tags(caption)
        with_word = [bool(self._find(tag)) for tag in tags]
        left = limit - sum(self(tag) + 1 for tag, word in zip(tags, with_word, strict=True) if word)
        kept: list[str] = []
        cut: list[str] = []
        full = False
        for tag, word in zip(tags, with_word, strict=True):
            if word:
                kept.append(tag)
                continue
            left -= self(tag) + 1  # its comma
            full = full or left < -1  # the last tag has no comma
            (cut if full else kept).append(tag)
        return kept, cut

    def behind(self, caption: str, places: int) -> list[str]:
        """The tags that end behind so many places, in the caption's order: the web UI puts them into the next chunk.

        It breaks before the tag, not within, as long as the tag is not longer than its setting for that (20 tokens).
        """
        taken, found = 0, []
        for tag in split_tags(caption):
            taken += self(tag)
            if taken > places:
                found.append(tag)
            taken += 1  # its comma
        return found

    def shorten(self, caption: str, limit: int) -> str:
        """The caption without the last tags that are beyond `limit` places; unchanged where it fits."""
        if self(caption) <= limit:
            return caption
        return ", ".join(self.divide(caption, limit)[0])
