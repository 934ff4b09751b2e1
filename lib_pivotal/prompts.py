"""Prompts as the web UI reads them: emphasis brackets, BREAK, 75-token chunks, embeddings by their token ids.

Re-implements what AUTOMATIC1111's web UI v1.10.1 (commit 82a973c0) does in `modules/prompt_parser.py`
(`parse_prompt_attention`), `modules/sd_hijack_clip.py` (`tokenize_line`) and
`modules/textual_inversion/textual_inversion.py` (`find_embedding_at_position`). `tests/golden/prompts.json` holds what
those files answer.

One deliberate difference, `embeddings_move`: where a chunk is full, the web UI moves the tokens after the last comma
into the next chunk, but leaves the vectors of embeddings among them behind: there, the embedding is lost, and its
vectors land in the old chunk's padding. Training on such a caption would teach the network the character without its
embedding. So by default vectors move with their tokens; `words_move=False` does exactly what the web UI does. The two
differ only where an embedding stands after the last comma of a full chunk, at most `comma_backtrack` places from its
end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lib_pivotal.errors import EmbeddingNameError

TokenIds = Callable[[str], Sequence[int]]
"""Ids of a text without start, end and padding, as hosts give them."""

CHUNK_LENGTH = 75
COMMA_BACKTRACK = 20
"""The web UI's default of "Prompt word wrap length limit"."""

ROUND_FACTOR = 1.1
SQUARE_FACTOR = 1 / 1.1
BREAK_TEXT = "BREAK"
BREAK_WEIGHT = -1.0

SYMBOL = re.compile(
    r"""
    (?P<escaped> \\ [()\[\]\\]? )
    | (?P<open> [(\[] )
    | : \s* (?P<weight> [+-]?[.\d]+ ) \s* \)
    | (?P<close> [)\]] )
    | [^\\()\[\]:]+
    | :
    """,
    re.VERBOSE,
)
"""What stands in a prompt: escapes, brackets (a weight with its closing one), and the text between them."""
PLAIN = re.compile(r"[ \t\n!-%'-;=-~]*")
"""Printable ASCII without `&` and `<`: neither entities nor special tokens."""
REMEMBERED_LETTERS = 100
"""Pieces longer than this are no words of captions, and are not remembered."""
_BREAK = re.compile(r"\s*\bBREAK\b\s*")


@dataclass(frozen=True)
class PromptRules:
    """What a host's settings say of prompts: how far before a full chunk's end a comma may be at which it wraps
    (tokens; 0: it does not), and whether brackets weigh."""

    comma_backtrack: int = COMMA_BACKTRACK
    emphasis: bool = True


@dataclass(frozen=True)
class PromptReading:
    """How a host reads prompts: its tokenizer, of SDXL's two the first, and its settings."""

    token_ids: TokenIds
    rules: PromptRules = field(default_factory=PromptRules)


class Tokenizer(Protocol):
    """What is needed of a tokenizer: transformers' `CLIPTokenizer` is one."""

    @property
    def bos_token_id(self) -> int: ...
    @property
    def eos_token_id(self) -> int: ...

    def __call__(self, text: list[str], *, truncation: bool, add_special_tokens: bool) -> Mapping[str, list[list[int]]]:
        """`{"input_ids": [...]}` of a list of texts."""
        ...


class IdsAsTokenizer:
    """A tokenizer from a function for one text; start and end are nothing that a text can hold."""

    bos_token_id, eos_token_id = -2, -1

    def __init__(self, token_ids: TokenIds) -> None:
        self._token_ids = token_ids

    def __call__(self, text: list[str], *, truncation: bool, add_special_tokens: bool) -> dict[str, list[list[int]]]:
        """As a tokenizer without special tokens."""
        return {"input_ids": [list(self._token_ids(one)) for one in text]}


def tokenize(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, without start, end and padding."""
    return [list(ids) for ids in tokenizer(list(texts), truncation=False, add_special_tokens=False)["input_ids"]]


class RememberingTokenizer:
    """The same ids as `tokenizer`, from memory where that is safe: shuffled captions are made of the same few
    embeddings.

    CLIP's tokenizer never joins what white space separates. So plain printable ASCII is looked up piece by piece; all
    else (which ftfy may repair in context, or which may hold special tokens) goes to the tokenizer whole.
    """

    def __init__(self, tokenizer: Tokenizer, *, capacity: int = 100_000) -> None:
        self._tokenizer = tokenizer
        self._capacity = capacity
        self._ids: dict[str, list[int]] = {}
        self.bos_token_id = tokenizer.bos_token_id
        self.eos_token_id = tokenizer.eos_token_id

    def __call__(self, text: list[str], *, truncation: bool, add_special_tokens: bool) -> dict[str, list[list[int]]]:
        """As the tokenizer; only plain ids are remembered."""
        if truncation or add_special_tokens:
            return {"input_ids": self._ask(text, truncation=truncation, add_special_tokens=add_special_tokens)}
        return {"input_ids": [self._of_text(one) for one in text]}

    def ids(self, text: str) -> list[int]:
        """Of one text, without start and end."""
        return self._of_text(text)

    def _of_text(self, text: str) -> list[int]:
        if not PLAIN.fullmatch(text):
            return self._ask([text])[0]
        pieces = text.split()
        if pieces and len(max(pieces, key=len)) > REMEMBERED_LETTERS:  # so that what is kept has a bound in bytes, too
            return self._ask([text])[0]
        new = [piece for piece in dict.fromkeys(pieces) if piece not in self._ids]
        if new:
            if len(self._ids) + len(new) > self._capacity:
                self._ids.clear()
                new = list(dict.fromkeys(pieces))
            self._ids.update(zip(new, self._ask(new), strict=True))
        return [token for piece in pieces for token in self._ids[piece]]

    def _ask(self, text: list[str], *, truncation: bool = False, add_special_tokens: bool = False) -> list[list[int]]:
        found = self._tokenizer(text, truncation=truncation, add_special_tokens=add_special_tokens)["input_ids"]
        return [list(ids) for ids in found]


def parse_emphasis(text: str) -> list[tuple[str, float]]:
    """Text with bracket emphasis -> pieces with weights.

    `(a)` 1.1, `(a:1.3)` 1.3, `[a]` 1/1.1, nested ones multiply, unclosed ones reach to the end; `\\(` is a bracket
    without meaning; `BREAK` becomes a piece of weight -1. Neighbours of equal weight are joined.
    """
    pieces: list[str] = []
    weights: list[float] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def emphasise(start: int, factor: float) -> None:
        for index in range(start, len(weights)):
            weights[index] *= factor

    for match in SYMBOL.finditer(text):
        symbol = match.group(0)
        if match.group("escaped") is not None:
            pieces.append(symbol[1:])
            weights.append(1.0)
        elif match.group("open") is not None:
            opened[symbol].append(len(pieces))
        elif match.group("weight") is not None and opened["("]:
            emphasise(opened["("].pop(), _weight(match.group("weight"), text, match.start("weight")))
        elif symbol == ")" and opened["("]:
            emphasise(opened["("].pop(), ROUND_FACTOR)
        elif symbol == "]" and opened["["]:
            emphasise(opened["["].pop(), SQUARE_FACTOR)
        else:
            for index, part in enumerate(_BREAK.split(symbol)):
                if index > 0:
                    pieces.append(BREAK_TEXT)
                    weights.append(BREAK_WEIGHT)
                pieces.append(part)
                weights.append(1.0)
    for start in opened["("]:
        emphasise(start, ROUND_FACTOR)
    for start in opened["["]:
        emphasise(start, SQUARE_FACTOR)
    return _joined(pieces, weights) or [("", 1.0)]


class PromptNames:
    """Finds embeddings in token ids: longest name first, then the one given first, case as the tokenizer treats it."""

    def __init__(self, sizes: Mapping[str, int], tokenizer: Tokenizer) -> None:
        self.sizes = dict(sizes)
        self._by_first: dict[int, list[tuple[list[int], str]]] = {}
        names = list(sizes)
        for name, ids in zip(names, tokenize(tokenizer, names) if names else [], strict=True):
            if not ids:
                raise EmbeddingNameError(
                    f"embedding {name!r} has no tokens, so no prompt can name it; choose a name of letters"
                )
            if not 1 <= sizes[name] <= CHUNK_LENGTH:
                raise EmbeddingNameError(
                    f"embedding {name!r} has {sizes[name]} vectors; a chunk has room for 1 to {CHUNK_LENGTH}"
                )
            self._by_first.setdefault(ids[0], []).append((ids, name))
        for candidates in self._by_first.values():
            candidates.sort(key=lambda candidate: len(candidate[0]), reverse=True)

    def places(self, ids: Sequence[int]) -> int:
        """How many places these ids take, embeddings with their vectors."""
        places, done = len(ids), 0
        for position, token in enumerate(ids):
            if token in self._by_first and position >= done and (found := self.find(ids, position)) is not None:
                name, length = found
                places += self.sizes[name] - length
                done = position + length
        return places

    def find(self, ids: Sequence[int], position: int) -> tuple[str, int] | None:
        """The embedding that begins at `position` and how many ids its name takes, or None."""
        for name_ids, name in self._by_first.get(ids[position], ()):
            if ids[position : position + len(name_ids)] == name_ids:
                return name, len(name_ids)
        return None


@dataclass
class Chunk:
    """77 places: start, 75 tokens, end. `embeddings` lists (place of the first vector in 0..76, name); `origins` says
    of each place between start and padding which token of the prompt it is, of an embedding's vectors its name's
    first."""

    tokens: list[int] = field(default_factory=list)
    multipliers: list[float] = field(default_factory=list)
    embeddings: list[tuple[int, str]] = field(default_factory=list)
    origins: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Layout:
    """A prompt in chunks. `token_count` is the number that the web UI's counter shows."""

    chunks: tuple[Chunk, ...]
    token_count: int


def lay_out(
    text: str,
    embeddings: PromptNames,
    *,
    tokenizer: Tokenizer,
    comma_id: int,
    comma_backtrack: int = COMMA_BACKTRACK,
    embeddings_move: bool = True,
    emphasis: bool = True,
) -> Layout:
    """A prompt as chunks of token ids and weights, with the places of its embeddings (whose ids there are 0)."""
    parsed = parse_emphasis(text) if emphasis else [(text, 1.0)]
    origin = 0
    builder = _Builder(
        tokenizer.bos_token_id, tokenizer.eos_token_id, comma_backtrack=comma_backtrack, embeddings_move=embeddings_move
    )
    for ids, (piece, weight) in zip(tokenize(tokenizer, [piece for piece, _ in parsed]), parsed, strict=True):
        if piece == BREAK_TEXT and weight == BREAK_WEIGHT:
            builder.close()
            continue
        position = 0
        while position < len(ids):
            if ids[position] == comma_id:
                builder.mark_comma()
            else:
                builder.wrap_at_comma()
            builder.make_room(1)
            found = embeddings.find(ids, position)
            if found is None:
                builder.add_token(ids[position], weight, origin + position)
                position += 1
            else:
                name, length = found
                builder.add_word(name, embeddings.sizes[name], weight, origin + position)
                position += length
        origin += len(ids)
    return builder.finish()


class _Builder:
    """Fills chunks, one token or embedding at a time."""

    def __init__(self, start_id: int, end_id: int, *, comma_backtrack: int, embeddings_move: bool) -> None:
        self._start_id = start_id
        self._end_id = end_id
        self._comma_backtrack = comma_backtrack
        self._embeddings_move = embeddings_move
        self._chunks: list[Chunk] = []
        self._chunk = Chunk()
        self._count = 0
        self._comma = -1

    def mark_comma(self) -> None:
        """The next token is a comma: a place to wrap at."""
        self._comma = len(self._chunk.tokens)

    def wrap_at_comma(self) -> None:
        """If the chunk is full and a comma is near its end, close it there; what followed begins the next chunk."""
        old = self._chunk
        distance = len(old.tokens) - self._comma
        full = len(old.tokens) == CHUNK_LENGTH
        if not (full and self._comma != -1 and self._comma_backtrack != 0 and distance <= self._comma_backtrack):
            return
        cut = self._comma + 1
        tail = Chunk(old.tokens[cut:], old.multipliers[cut:], origins=old.origins[cut:])
        del old.tokens[cut:], old.multipliers[cut:], old.origins[cut:]
        if self._embeddings_move:
            tail.embeddings = [(place - cut, name) for place, name in old.embeddings if place > cut]
            old.embeddings = [(place, name) for place, name in old.embeddings if place <= cut]
        self.close()
        self._chunk = tail

    def make_room(self, places: int) -> None:
        """Close the chunk if it has fewer free places than this."""
        if len(self._chunk.tokens) + places > CHUNK_LENGTH:
            self.close()

    def add_token(self, token: int, weight: float, origin: int) -> None:
        self._chunk.tokens.append(token)
        self._chunk.multipliers.append(weight)
        self._chunk.origins.append(origin)

    def add_word(self, name: str, vectors: int, weight: float, origin: int) -> None:
        self.make_room(vectors)
        self._chunk.embeddings.append((len(self._chunk.tokens) + 1, name))
        self._chunk.tokens += [0] * vectors
        self._chunk.multipliers += [weight] * vectors
        self._chunk.origins += [origin] * vectors

    def close(self, *, last: bool = False) -> None:
        """Pad the chunk, put start and end around it, and begin the next one."""
        chunk = self._chunk
        self._count += len(chunk.tokens) if last else CHUNK_LENGTH
        missing = CHUNK_LENGTH - len(chunk.tokens)
        chunk.tokens = [self._start_id, *chunk.tokens, *([self._end_id] * (missing + 1))]
        chunk.multipliers = [1.0, *chunk.multipliers, *([1.0] * (missing + 1))]
        self._chunks.append(chunk)
        self._chunk = Chunk()
        self._comma = -1

    def finish(self) -> Layout:
        """All chunks; at least one."""
        if self._chunk.tokens or not self._chunks:
            self.close(last=True)
        return Layout(tuple(self._chunks), self._count)


def _joined(pieces: Iterable[str], weights: Iterable[float]) -> list[tuple[str, float]]:
    joined: list[tuple[str, float]] = []
    for piece, weight in zip(pieces, weights, strict=True):
        if joined and joined[-1][1] == weight:
            joined[-1] = (joined[-1][0] + piece, weight)
        else:
            joined.append((piece, weight))
    return joined


def _weight(number: str, text: str, position: int) -> float:
    """`1.2.3` matches the web UI's pattern, but is no number: there it is a crash, here a sentence."""
    try:
        return float(number)
    except ValueError:
        raise EmbeddingNameError(
            f"prompt {text!r}, character {position + 1}: {number!r} is not a weight; write a number such as 1.2"
        ) from None
