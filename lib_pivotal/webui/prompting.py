"""Where the web UI takes a prompt apart: find the embeddings in its text, hand over their vectors, keep these in
place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from lib_pivotal.webui.name_table import NamedEmbedding, NameTable
from lib_pivotal.webui.resolution import resolver


class NamedTokenId(int):
    """A token id at which a name begins: what the name stands for, and how many ids it takes."""

    entry: NamedEmbedding
    length: int


def tokenize_line(original: Callable[..., Any], encoder: Any, line: str) -> Any:
    """`tokenize_line` with names found in the text, and vectors kept with their place (`keep_places`)."""
    if not resolver.in_force():
        return original(encoder, line)
    before = getattr(resolver.local, "in_line", False)
    resolver.local.in_line = True
    try:
        chunks, count = original(encoder, line)
    finally:
        resolver.local.in_line = before
    keep_places(chunks, comma=encoder.comma_token, padding=encoder.id_end)
    return chunks, count


def tokenize(original: Callable[..., Any], encoder: Any, texts: Sequence[str]) -> Any:
    """`tokenize` with a `NamedTokenId` id where a name begins."""
    table = resolver.in_force()
    if not table or not getattr(resolver.local, "in_line", False):
        return original(encoder, texts)
    return [_tokens(original, encoder, text, table) for text in texts]


def _tokens(original: Callable[..., Any], encoder: Any, text: str, table: NameTable) -> list[int]:
    matches = table.matcher.matches(text)
    if not matches:
        return list(original(encoder, [text])[0])
    tokens: list[int] = []
    reached = 0
    for match in matches:
        tokens += original(encoder, [text[reached : match.start]])[0] if match.start > reached else []
        ids = original(encoder, [text[match.start : match.stop]])[0]
        if ids:
            mark = NamedTokenId(ids[0])
            mark.entry, mark.length = match.value, len(ids)
            tokens += [mark, *ids[1:]]
        reached = match.stop
    return tokens + (list(original(encoder, [text[reached:]])[0]) if reached < len(text) else [])


def find_embedding_at_position(original: Callable[..., Any], database: Any, tokens: Any, offset: int) -> Any:
    """The embedding at a place: the embedding that is written there, or a longer one of the embeddings folder."""
    table = resolver.in_force()
    if not table:
        return original(database, tokens, offset)
    token = tokens[offset]
    if isinstance(token, NamedTokenId):
        entry, length = token.entry, token.length
    elif getattr(resolver.local, "in_line", False):
        return original(database, tokens, offset)
    else:
        found = table.find(tokens, offset)
        if found is None:
            return original(database, tokens, offset)
        entry, length = found
    embedding, taken = original(database, tokens, offset)
    if embedding is not None and taken > length:
        return embedding, taken
    used = getattr(resolver.local, "used", None)
    if used is not None:
        used[entry.name] = entry
    return entry.embedding, length


def keep_places(chunks: Sequence[Any], *, comma: int | None, padding: int) -> None:
    """Move vectors to the chunk that their places were moved to.

    When a prompt reaches the end of a chunk shortly after a comma, v1.10.1 moves what follows the comma into the next
    chunk: ids and multipliers, not the vectors (modules/sd_hijack_clip.py:138-149). They would go into the padding.
    """
    for chunk, following in pairwise(chunks):
        inner = chunk.tokens[1:-1]
        length = len(inner)
        while length and inner[length - 1] == padding:
            length -= 1
        lost = [fix for fix in chunk.fixes if fix.offset >= length]
        if not lost or not length or inner[length - 1] != comma:
            continue
        chunk.fixes = [fix for fix in chunk.fixes if fix.offset < length]
        following.fixes = [fix._replace(offset=fix.offset - length) for fix in lost] + following.fixes
