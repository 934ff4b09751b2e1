"""Moving a tag by hand: kept in captions, absorbed by an embedding, or absorbed and the beginning of its vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from lib_pivotal.config import EmbeddingConfig
from lib_pivotal.data.pruning import Decision, TagDecision
from lib_pivotal.data.tags import same_tag
from lib_pivotal.data.tokens import estimated_tokens

MOST_VECTORS = 75


def moved(
    embedding: EmbeddingConfig, tag: TagDecision, to: Decision, *, count: Callable[[str], int] = estimated_tokens
) -> EmbeddingConfig:
    """The embedding with `tag` moved; its lists say only what the rule does not say already.

    A tag that becomes the beginning brings the vectors that it takes, so many as `count` says that it has tokens; one
    that is no longer it leaves them to chance.
    An embedding that takes a tag absorbs from then on.
    """
    form = same_tag(tag.tag)
    prune_tags, keep_tags = _without(embedding.prune_tags, form), _without(embedding.keep_tags, form)
    if to == "kept" and tag.by_rule:
        keep_tags = (*keep_tags, form)
    elif to != "kept" and not tag.by_rule:
        prune_tags = (*prune_tags, form)
    embedding = replace(embedding, prune_tags=prune_tags, keep_tags=keep_tags, prune=embedding.prune or to != "kept")
    return (
        _beginning_with(embedding, form, count(form))
        if to == "init"
        else replace(embedding, init_text=_init_without(embedding, form))
    )


def as_the_rule_says(embedding: EmbeddingConfig, tag: TagDecision) -> EmbeddingConfig:
    """The embedding without what its lists say of `tag`."""
    form = same_tag(tag.tag)
    return replace(
        embedding, prune_tags=_without(embedding.prune_tags, form), keep_tags=_without(embedding.keep_tags, form)
    )


def _without(tags: Sequence[str], form: str) -> tuple[str, ...]:
    return tuple(tag for tag in tags if same_tag(tag) != form)


def _pieces(embedding: EmbeddingConfig) -> list[str]:
    """Of the init text; `*[std,n]` holds a comma and is one."""
    text = embedding.init_text.replace("*[", "\0")
    pieces: list[str] = []
    for piece in text.split(","):
        if pieces and "\0" in pieces[-1] and "]" not in pieces[-1]:
            pieces[-1] += "," + piece
        else:
            pieces.append(piece)
    return [piece.strip().replace("\0", "*[") for piece in pieces if piece.strip()]


def _beginning_with(embedding: EmbeddingConfig, form: str, tokens: int) -> EmbeddingConfig:
    pieces = _pieces(embedding)
    if any(same_tag(piece) == form for piece in pieces):
        return embedding
    if pieces in (["random"], ["zero"]):
        pieces = []
    place = next((i for i, piece in enumerate(pieces) if piece.startswith("*[")), len(pieces))
    pieces.insert(place, form)
    vectors = max(embedding.vectors + (tokens if embedding.init_text else 0), tokens)
    return replace(embedding, init_text=", ".join(pieces), vectors=min(MOST_VECTORS, vectors))


def _init_without(embedding: EmbeddingConfig, form: str) -> str:
    pieces = _pieces(embedding)
    left = [piece for piece in pieces if same_tag(piece) != form]
    return embedding.init_text if left == pieces else ", ".join(left)
