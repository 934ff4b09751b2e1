"""How many places of a prompt a caption takes, and what of it lies behind a limit: as hosts chunk prompts."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lib_pivotal.data.captions import EmbeddingFinder, split_tags
from lib_pivotal.prompts import (
    BREAK_TEXT,
    BREAK_WEIGHT,
    CHUNK_LENGTH,
    PLAIN,
    IdsAsTokenizer,
    PromptNames,
    PromptReading,
    RememberingTokenizer,
    lay_out,
    parse_emphasis,
    tokenize,
)

CHUNK = CHUNK_LENGTH
"""Places of one chunk of a prompt, without start and end."""

LONG_TAG = 20
"""A tag of more tokens is a sentence: it is cut between its words, not left out as a whole."""

_PIECE = re.compile(r"[^\W\d_]+|\d|[^\w\s]|_")
_LETTERS_A_TOKEN = 7
"""CLIP's vocabulary has most English words whole; longer ones fall into pieces."""
_BREAK = re.compile(r"\s*\bBREAK\b\s*")
_AFTER_COMMA = re.compile(r"(?<=,)(?=[^,])")
_BRACKETS = re.compile(r"[\\()\[\]]")


def estimated_ids(text: str) -> list[int]:
    """What stands for CLIP's token ids where no tokenizer is at hand: about as many, equal ones for equal pieces."""
    return [
        hash(piece[start : start + _LETTERS_A_TOKEN])
        for piece in _PIECE.findall(text.casefold())
        for start in range(0, len(piece), _LETTERS_A_TOKEN)
    ]


def estimated_tokens(text: str) -> int:
    """About how many tokens CLIP makes of a text."""
    return sum(-(-len(piece) // _LETTERS_A_TOKEN) for piece in _PIECE.findall(text))


_Part = list[tuple[str, int]]
"""What stands between two commas: its words without them, each with how many of the caption's tokens end with it."""


class TokenCounter:
    """Counts a caption's places: text by the tokenizer, each word by its vectors; weights and brackets take none.

    Without `prompts` numbers are estimates. Captions are read as `lib_pivotal.prompts` says, so that what lies behind
    a chunk is what a host puts there.
    """

    def __init__(self, vectors: Mapping[str, int], prompts: PromptReading | None = None) -> None:
        prompts = prompts or PromptReading(estimated_ids)
        self._tokenizer, self._rules = RememberingTokenizer(IdsAsTokenizer(prompts.token_ids)), prompts.rules
        named = {name: number for name, number in vectors.items() if 1 <= number <= CHUNK and self._ids(name)}
        self._table = PromptNames(named, self._tokenizer)
        self._find = EmbeddingFinder(vectors)
        self._by_piece = all(name.isalpha() for name in named)  # else `hanako 2` may be the word `hanako2`
        self._places: dict[str, int] = {}
        self._lengths: dict[str, int] = {}
        comma = self._ids(",")
        self._comma = comma[0] if comma else -1

    def __call__(self, caption: str) -> int:
        """Places that the caption takes, without what fills up chunks."""
        return sum(self._of_text(text) for text in self._texts(caption))

    def divide(self, caption: str, limit: int) -> tuple[list[str], list[str]]:
        """The tags that are kept so that the caption fits into `limit` places, and those that are not.

        The last ones go, tags with a word never; a tag of more than `LONG_TAG` tokens is cut between its words.
        """
        kept: list[str | None] = [*split_tags(caption)]
        cut: list[str] = []
        for index in reversed(range(len(kept))):
            over = self(", ".join(tag for tag in kept if tag is not None)) - limit
            tag = kept[index]
            if over <= 0 or tag is None:
                break
            if self(tag) > LONG_TAG:
                kept[index], rest = self._cut_within(tag, over)
                cut += [rest] if rest else []
            elif not self._find(tag):
                kept[index] = None
                cut.append(tag)
        return [tag for tag in kept if tag is not None], cut[::-1]

    def behind(self, caption: str, places: int = CHUNK) -> list[str]:
        """What a host puts into further chunks of 75, in the caption's order, tag by tag.

        Hosts wrap at a comma where one is near the chunk's end, else within a tag: then its rest is told. What stands
        behind a `BREAK` is there on purpose.
        """
        found: list[str] = []
        stretches = _BREAK.split(caption) if self._rules.emphasis else [caption]
        for stretch in stretches:
            if self(stretch) > places:
                found += self._tail(stretch)
        return found

    def shorten(self, caption: str, limit: int) -> str:
        """The caption without the last tags that are beyond `limit` places; unchanged where it fits."""
        if self(caption) <= limit:
            return caption
        return ", ".join(self.divide(caption, limit)[0])

    # -- parts

    def _ids(self, text: str) -> list[int]:
        return tokenize(self._tokenizer, [text])[0]

    def _of_text(self, text: str) -> int:
        """Places of a text without brackets; from memory piece by piece, where pieces are nothing to each other."""
        if not (self._by_piece and PLAIN.fullmatch(text)):
            return self._table.places(self._ids(text))
        known, total = self._places, 0
        for piece in text.split():
            if piece not in known:
                known[piece] = self._table.places(self._ids(piece))
            total += known[piece]
        return total

    def _length(self, piece: str) -> int:
        """How many tokens a piece between white spaces has."""
        if piece not in self._lengths:
            self._lengths[piece] = len(self._ids(piece))
        return self._lengths[piece]

    def _texts(self, caption: str) -> list[str]:
        """What goes to the tokenizer, piece by piece."""
        if not self._rules.emphasis or not (_BRACKETS.search(caption) or BREAK_TEXT in caption):
            return [caption]
        return [text for text, weight in parse_emphasis(caption) if not (text == BREAK_TEXT and weight == BREAK_WEIGHT)]

    def _tail(self, caption: str) -> list[str]:
        layout = lay_out(
            caption,
            self._table,
            tokenizer=self._tokenizer,
            comma_id=self._comma,
            comma_backtrack=self._rules.comma_backtrack,
            emphasis=self._rules.emphasis,
        )
        if len(layout.chunks) < 2:
            return []
        first = layout.chunks[1].origins[0]
        tags = []
        for part in self._parts(caption):
            words = [(word, end) for word, end in part if word]
            rest = [word for word, end in words if end > first]
            if rest:
                tags.append(" ".join(rest if len(rest) == len(words) else ["…", *rest]))
        return tags

    def _parts(self, caption: str) -> list[_Part]:
        """What commas divide, as the tokenizer sees the caption: without brackets and weights."""
        found: list[_Part] = []
        part: _Part = []
        end = 0
        for text in self._texts(caption):
            for piece in (piece for word in text.split() for piece in _AFTER_COMMA.split(word)):
                bare = piece.rstrip(",")
                part.append((bare, end + self._length(bare)))
                end += self._length(piece)
                if piece.endswith(","):
                    found.append(part)
                    part = []
        return [*found, part] if part else found

    def _cut_within(self, tag: str, over: int) -> tuple[str, str]:
        """A long tag without its last words, `over` places shorter, and those words; a trained word stays."""
        words = tag.split()
        kept, gone = list(words), 0
        for index in reversed(range(len(words))):
            if gone >= over:
                break
            if not self._find(words[index]):
                gone += self(words[index])
                kept[index] = ""
        rest = [word for word, left in zip(words, kept, strict=True) if not left]
        return " ".join(word for word in kept if word), " ".join(rest)
