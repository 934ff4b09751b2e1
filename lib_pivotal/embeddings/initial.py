"""Where an embedding's vectors start: init text, random rows, zeros, or another file's tensors.

Init text is HCP-Diffusion's `create_embedding` language: pieces separated by commas, each either text (its tokens'
vectors) or `*[std,n]` (n rows drawn from N(0, std²)); the rows are joined in order and cut to the embedding's size,
e.g. `cat, *[0.017,3], tail`.

Two choices where the sources are silent or differ:

* the commas themselves give no rows (a comma's vector says nothing, an embedding has few); `keep_commas` keeps them;
* text that gives too few rows is repeated from its start, each repeat with a little noise (a tenth of the vocabulary's
  spread) so that copies can part; random or zero rows instead would dilute what the text says.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

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
) -> tuple[Tensor, ...]:
    """Start values `(vectors, width)` a tower, fp32 on the CPU.

    `text` is init text, `random` (or empty) or `zero`. `std` is the spread of `random`; 0 = the vocabulary's own.
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
    rows = _rows(text, encoder, generator=generator, keep_commas=keep_commas)
    return tuple(
        _fit(tower, vectors, noise_std=REPEAT_NOISE * stat.std, generator=generator)
        for tower, stat in zip(rows, stats, strict=True)
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
    towers: list[list[Tensor]] = [[] for _ in tables.widths]
    for piece in parse_init_text(text):
        rows = [torch.zeros(piece.rows, width) for width in tables.widths] if piece.kind == "random" else None
        _append(towers, rows or tables.embed_text(piece.text))
    joined = tuple(torch.cat(tower) for tower in towers)
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


def _rows(text: str, encoder: TextEncoder, *, generator: torch.Generator, keep_commas: bool) -> list[Tensor]:
    """All rows that the text gives, one tensor a tower."""
    towers: list[list[Tensor]] = [[] for _ in encoder.widths]
    for index, piece in enumerate(parse_init_text(text)):
        if keep_commas and index > 0:
            _append(towers, encoder.embed_text(","))
        if piece.kind == "random":
            _append(towers, [torch.randn(piece.rows, w, generator=generator) * piece.std for w in encoder.widths])
        else:
            _append(towers, encoder.embed_text(piece.text))
    if sum(tensor.shape[0] for tensor in towers[0]) == 0:
        raise EmbeddingNameError(f"init text {text!r} has no tokens; write a tag, `*[std,n]`, `random` or `zero`")
    return [torch.cat(tower) for tower in towers]


def _append(towers: list[list[Tensor]], rows: Sequence[Tensor]) -> None:
    for tower, tensor in zip(towers, rows, strict=True):
        tower.append(tensor.detach().to("cpu", torch.float32))


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
