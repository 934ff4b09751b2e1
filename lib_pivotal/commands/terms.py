"""Answers in the field's terms, and beside them what they were called in version 1, for programs that look there."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

T = TypeVar("T")

TERMS: Mapping[str, str] = MappingProxyType(
    {
        "word": "embedding",
        "words": "embeddings",
        "word_bytes": "embedding_bytes",
        "word_norms": "embedding_norms",
        "rates": "learning_rates",
        "draws": "samples",
        "draws_per_epoch": "samples_per_epoch",
        "findings": "warnings",
        "remedy": "fix",
        "remedies": "fixes",
        "mended": "fixed",
    }
)
"""In version 1 -> in the field's terms."""
_OTHER: Mapping[str, str] = MappingProxyType(
    {**TERMS, **{new: old for old, new in TERMS.items()}, "remarks": "warnings"}
)
AS_WRITTEN = ("run", "settings", "metadata")
"""What holds settings or text of files, which have names of their own."""
_BY_NAME_OF_1 = ("concepts", "draws", "images_seen", "memory_parts", "rates", "shares", "sizes", "tags", "word_norms")
BY_NAME = frozenset((*_BY_NAME_OF_1, *(TERMS[name] for name in _BY_NAME_OF_1 if name in TERMS)))
"""What is listed by names of the user's, of which one may be called as an entry of `TERMS`."""


def both(answer: T) -> T:
    """JSON values with each entry of `TERMS` under both names; where both are there already, they stay."""
    changed: T = _changed(answer)
    return changed


def _changed(answer: Any) -> Any:
    if isinstance(answer, Mapping):
        found = {key: _inside(key, value) for key, value in answer.items()}
        added = {_OTHER[key]: value for key, value in found.items() if key in _OTHER}
        return {**added, **found}
    return [_changed(value) for value in answer] if isinstance(answer, list | tuple) else answer


def _inside(key: str, value: Any) -> Any:
    if key in AS_WRITTEN:
        return value
    if key in BY_NAME and isinstance(value, Mapping):
        return {name: _changed(one) for name, one in value.items()}
    return _changed(value)
