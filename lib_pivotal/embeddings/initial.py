"""Where an embedding's vectors start: init text, random rows, zeros, or another file's tensors.

Init text is HCP-Diffusion's `create_embedding` language: pieces separated by commas, each either text (its tokens'
vectors) or `*[std,n]` (n rows drawn from N(0, std²)); the rows are joined in order and cut to the embedding's size,
e.g. `cat, *[0.017,3], tail`.

Three choices where the sources are silent or differ:

* the commas themselves give no rows (a comma's vector says nothing, an embedding has few); `keep_commas` keeps them;
* text that gives too few rows is repeated from its start, each repeat with a little noise (a tenth of the vocabulary's
  spread) so that copies can part; random or zero rows instead would dilute what the text says;
* with `whole_tags` no tag is cut: one that does not fit whole is left out, and what is left over becomes random rows,
  for what the text does not say. Half a tag (`cat` of `cat ears`) says something else than the tag.

CrossInit (`start = cross_init`; github.com/lyuPang/CrossInitialization, train_cross_init.py, `token_cross_init`) begins
with what the text encoder makes of the text instead of its tokens' rows: trained vectors were found to come near to
these, in direction and in size. Random rows are then as much larger as the outputs are than the rows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lib_pivotal.embeddings.text_outputs import PLACES, count, encode, literal
from lib_pivotal.embeddings.vectors import MAX_VECTORS
from lib_pivotal.errors import EmbeddingNameError
from lib_pivotal.ports import TextEncoder, TokenTables

WITHOUT_TEXT = ("", "random", "zero")
"""Init texts that stand for no text."""
REPEAT_NOISE = 0.1
"""Noise on repeated rows, as a fraction of the vocabulary's standard deviation."""

_RANDOM = re.compile(r"\*\[(?P<inside>[^\]]*)\]?")


@dataclass(frozen=True)
class InitPiece:
    """One piece of an init text; `position` is where it begins, from 0."""

    kind: Literal["text", "random"]
    position: int
    text: str = ""
    std: float = 0.0
    rows: int = 0


def parse_init_text(text: str) -> list[InitPiece]:
    """The pieces of an init text, in order; empty pieces are left out.

    Raises:
        WordError: a `*[std,n]` is malformed; says at which character.
    """
    pieces: list[InitPiece] = []
    start = 0
    while start <= len(text):
        body = text[start:]
        begin = start + len(body) - len(body.lstrip())
        if text.startswith("*[", begin):
            piece, end = _parse_random(text, begin)
            pieces.append(piece)
        else:
            comma = text.find(",", begin)
            end = len(text) if comma < 0 else comma
            inner = text.find("*[", begin, end)
            if inner >= 0:
                raise _fault(text, inner, "`*[std,n]` must stand alone between commas")
            if text[begin:end].strip():
                pieces.append(InitPiece("text", begin, text=text[begin:end].strip()))
        start = end + 1
    return pieces


def initial_vectors(
    text: str,
    vectors: int,
    *,
    encoder: TextEncoder,
    generator: torch.Generator,
    std: float = 0.0,
    keep_commas: bool = False,
    whole_tags: bool = False,
    start: str = "tokens",
) -> tuple[Tensor, ...]:
    """Start values `(vectors, width)` a tower, fp32 on the CPU.

    `text` is init text, `random` (or empty) or `zero`. `std` is the spread of `random`; 0 = the vocabulary's own.
    `whole_tags`: no tag is cut in the middle, and too short a text is filled with random rows of that spread. `start`
    is one of `STARTS`: which rows a text gives.
    """
    if not 1 <= vectors <= MAX_VECTORS:
        raise EmbeddingNameError(f"vectors = {vectors}: use 1 to {MAX_VECTORS}")
    if not (math.isfinite(std) and std >= 0):
        raise EmbeddingNameError(f"std = {std}: must be 0 (the vocabulary's own) or above")
    kind = text.strip().lower()
    if kind == "zero":
        return tuple(torch.zeros(vectors, width) for width in encoder.widths)
    stats = encoder.vocabulary_stats()
    if kind in ("", "random"):
        return tuple(
            torch.randn(vectors, width, generator=generator) * (std or tower.std)
            for width, tower in zip(encoder.widths, stats, strict=True)
        )
    blocks, scales = _blocks(text, encoder, generator=generator, keep_commas=keep_commas, start=start)
    stds = [stat.std * scale for stat, scale in zip(stats, scales, strict=True)]
    if whole_tags:
        kept = _that_fit(blocks, vectors)
        missing = vectors - sum(block.rows for block in kept)
        return tuple(
            torch.cat(
                [
                    *(block.towers[tower] for block in kept),
                    torch.randn(missing, width, generator=generator) * (std or spread),
                ]
            )
            for tower, (width, spread) in enumerate(zip(encoder.widths, stds, strict=True))
        )
    rows = [torch.cat([block.towers[tower] for block in blocks]) for tower in range(len(stats))]
    return tuple(
        _fit(tower, vectors, noise_std=REPEAT_NOISE * spread, generator=generator)
        for tower, spread in zip(rows, stds, strict=True)
    )


def is_directed(text: str) -> bool:
    """Whether an init text says a direction: one that is random, zero or empty does not, nor one that is unreadable."""
    if text.strip().lower() in WITHOUT_TEXT:
        return False
    try:
        return any(piece.kind == "text" for piece in parse_init_text(text))
    except EmbeddingNameError:
        return False


def direction_rows(text: str, *, tables: TokenTables) -> tuple[Tensor, ...] | None:
    """The rows that an init text gives on a checkpoint, fp32 on the CPU: `(rows, width)` a tower; None: no direction.

    As many as the text has, as training took them without `keep_commas`; those of `*[std,n]` are zeros: what was
    sampled for them is not known any more.
    """
    if not is_directed(text):
        return None
    pieces: list[Sequence[Tensor]] = []
    for piece in parse_init_text(text):
        rows = [torch.zeros(piece.rows, width) for width in tables.widths] if piece.kind == "random" else None
        pieces.append(rows or tables.embed_text(piece.text))
    joined = tuple(torch.cat([rows.detach().cpu().float() for rows in tower]) for tower in zip(*pieces, strict=True))
    return joined if any(tower.any() for tower in joined) else None


def vectors_from_tensors(
    tensors: Sequence[Tensor], vectors: int = 0, *, encoder: TextEncoder, generator: torch.Generator
) -> tuple[Tensor, ...]:
    """Start values from an embedding file's tensors, one a tower; `vectors` 0 = as many as the file has.

    More or fewer rows than wanted are cut, or repeated as for init text.
    """
    widths = tuple(tensor.shape[-1] for tensor in tensors)
    if widths != tuple(encoder.widths):
        raise EmbeddingNameError(
            f"the embedding has width {widths}, the checkpoint needs {tuple(encoder.widths)}; "
            "it was made for another family of models"
        )
    rows = [torch.atleast_2d(tensor.detach()).to("cpu", torch.float32) for tensor in tensors]
    for tower, tensor in enumerate(rows):
        if not torch.isfinite(tensor).all():
            raise EmbeddingNameError(f"the embedding's tensor of tower {tower} is not finite; use another file")
    return tuple(
        _fit(tensor, vectors or tensor.shape[0], noise_std=REPEAT_NOISE * stat.std, generator=generator)
        for tensor, stat in zip(rows, encoder.vocabulary_stats(), strict=True)
    )


@dataclass(frozen=True, eq=False)
class _Block:
    """The rows of one piece, one tensor a tower."""

    kind: Literal["text", "random"]
    towers: tuple[Tensor, ...]

    @property
    def rows(self) -> int:
        return int(self.towers[0].shape[0])


def _blocks(
    text: str, encoder: TextEncoder, *, generator: torch.Generator, keep_commas: bool, start: str
) -> tuple[list[_Block], Sequence[float]]:
    """All rows that the text gives, piece by piece, and by tower how much larger than tokens' rows they are.

    A kept comma belongs to the piece behind it.
    """
    if start not in STARTS:
        raise EmbeddingNameError(f"start = {start!r}: unknown; use one of {', '.join(start_names())}")
    pieces = parse_init_text(text)
    rows_of, scales = STARTS[start](encoder, [piece.text for piece in pieces if piece.kind == "text"])
    of_texts = iter(rows_of)
    blocks: list[_Block] = []
    for index, piece in enumerate(pieces):
        rows: Sequence[Tensor] = (
            [
                torch.randn(piece.rows, width, generator=generator) * (piece.std * scale)
                for width, scale in zip(encoder.widths, scales, strict=True)
            ]
            if piece.kind == "random"
            else _on_cpu(next(of_texts))
        )
        if keep_commas and index > 0 and start == "tokens":
            rows = [torch.cat(pair) for pair in zip(_on_cpu(encoder.embed_text(",")), rows, strict=True)]
        blocks.append(_Block(piece.kind, tuple(rows)))
    if not any(block.rows for block in blocks):
        raise EmbeddingNameError(f"init text {text!r} has no tokens; write a tag, `*[std,n]`, `random` or `zero`")
    return blocks, scales


_Rows = tuple[list[tuple[Tensor, ...]], Sequence[float]]
"""Rows of each text, a tensor a tower; and by tower how much larger they are than those of the token table."""


def token_rows(encoder: TextEncoder, texts: Sequence[str]) -> _Rows:
    """The token table's rows of each text."""
    return [encoder.embed_text(text) for text in texts], [1.0] * len(encoder.widths)


def output_rows(encoder: TextEncoder, texts: Sequence[str]) -> _Rows:
    """The text encoder's outputs at the tokens of each text, all of them in one prompt with commas between.

    What does not fit a chunk has no rows.
    """
    begins, at = [], 1
    for text in texts:
        end = at + count(encoder, text)
        begins.append((at, end) if end < PLACES else (1, 1))
        at = end + 1  # the comma
    fitting = [text for text, (begin, end) in zip(texts, begins, strict=True) if end > begin]
    if not fitting:
        return [encoder.embed_text("") for _ in texts], [1.0] * len(encoder.widths)
    with torch.no_grad():
        towers = encode(encoder, [" , ".join(map(literal, fitting))], {}).towers
    rows = [tuple(tower[0, begin:end] for tower in towers) for begin, end in begins]
    tokens = [torch.cat(tower) for tower in zip(*map(encoder.embed_text, fitting), strict=True)]
    outputs = [torch.cat(tower) for tower in zip(*rows, strict=True)]
    return rows, [float(o.norm(dim=1).mean() / t.norm(dim=1).mean()) for o, t in zip(outputs, tokens, strict=True)]


STARTS: dict[str, Callable[[TextEncoder, Sequence[str]], _Rows]] = {"tokens": token_rows, "cross_init": output_rows}
"""What a text of an init text gives."""


def start_names() -> tuple[str, ...]:
    """Choices of `embeddings_common.start`."""
    return tuple(STARTS)


def _on_cpu(rows: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.detach().to("cpu", torch.float32) for tensor in rows]


def _that_fit(blocks: Sequence[_Block], vectors: int) -> list[_Block]:
    """In order: each tag that still fits whole, then random rows as far as there is room; tags come first."""
    room = vectors
    kept: dict[int, _Block] = {}
    for index, block in enumerate(blocks):
        if block.kind == "text" and block.rows <= room:
            kept[index] = block
            room -= block.rows
    for index, block in enumerate(blocks):
        if block.kind == "random" and room > 0:
            kept[index] = _Block("random", tuple(tower[:room] for tower in block.towers))
            room -= kept[index].rows
    return [kept[index] for index in sorted(kept)]


def _fit(rows: Tensor, count: int, *, noise_std: float, generator: torch.Generator) -> Tensor:
    """Exactly `count` rows: cut, or repeated from the start with noise on the repeats."""
    if rows.shape[0] == 0:
        raise EmbeddingNameError("the embedding has no vectors; use another file")
    have = rows.shape[0]
    if have >= count:
        return rows[:count].clone()
    repeated = rows[torch.arange(have, count) % have]
    noise = torch.randn(repeated.shape, generator=generator) * noise_std
    return torch.cat([rows, repeated + noise])


def _parse_random(text: str, begin: int) -> tuple[InitPiece, int]:
    """A `*[std,n]` at `begin` and where its closing comma (or the end) is."""
    match = _RANDOM.match(text, begin)
    if match is None or not match.group(0).endswith("]"):
        raise _fault(text, begin, "`*[std,n]` is not closed; add `]`")
    parts = match.group("inside").split(",")
    try:
        std, rows = (float(parts[0]), int(parts[1])) if len(parts) == 2 else (math.nan, 0)
    except ValueError:
        std, rows = math.nan, 0
    if not (math.isfinite(std) and std >= 0 and 1 <= rows <= MAX_VECTORS):
        raise _fault(
            text, begin, f"{match.group(0)!r} is not `*[std,n]` with std 0 or above and n from 1 to {MAX_VECTORS}"
        )
    end = match.end()
    rest = re.compile(r"\s*(,|\Z)").match(text, end)
    if rest is None:
        raise _fault(text, end, "a comma is needed after `*[std,n]`")
    return InitPiece("random", begin, std=std, rows=rows), rest.end() - len(rest.group(1))


def _fault(text: str, position: int, problem: str) -> EmbeddingNameError:
    return EmbeddingNameError(
        f"init text {text!r}, character {position + 1} ({text[position : position + 12]!r}): {problem}"
    )
