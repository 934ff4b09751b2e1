"""Answers in the field's terms, and beside them what they were called in version 1, for programs that look there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")

TERMS: Mapping[str, str] = {
    "word": "embedding",
    "words": "embeddings",
    "word_bytes": "embedding_bytes",
    "word_norms": "embedding_norms",
    "rates": "learning_rates",
    "draws": "samples",
    "draws_per_epoch": "samples_per_epoch",
    "findings": "warnings",
    "remarks": "warnings",
    "remedy": "fix",
    "remedies": "fixes",
    "mended": "fixed",
}
"""In version 1 -> in the field's terms."""
AS_WRITTEN = ("run", "settings", "metadata")
"""What holds settings or text of files, which have names of their own."""
BY_NAME = ("concepts", "draws", "images_seen", "memory_parts", "rates", "shares", "sizes", "tags", "word_norms")
"""What is listed by names of the user's, of which one may be called as an entry of `TERMS`."""


def both(answer: T) -> T:
    """JSON values with each entry of `TERMS` under both names; where the newer one is there already, it stays."""
    changed: T = _changed(answer)
    return changed


def _changed(answer: Any) -> Any:
    if isinstance(answer, Mapping):
        found = {key: _inside(key, value) for key, value in answer.items()}
        added = {TERMS[key]: value for key, value in found.items() if key in TERMS and TERMS[key] not in found}
        return {**found, **added}
    return [_changed(value) for value in answer] if isinstance(answer, list | tuple) else answer


def _inside(key: str, value: Any) -> Any:
    if key in AS_WRITTEN:
        return value
    if key in BY_NAME and isinstance(value, Mapping):
        return {name: _changed(one) for name, one in value.items()}
    return _changed(value)
