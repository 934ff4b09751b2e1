"""Replaced functions and their originals, by who replaced them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

originals: defaultdict[str, dict[tuple[Any, str], Callable[..., Any]]] = defaultdict(dict)


def patch(key: str, obj: Any, field: str, replacement: Callable[..., Any]) -> Callable[..., Any]:
    if (obj, field) in originals[key]:
        raise RuntimeError(f"patch for {field} is already applied")
    original = originals[key][obj, field] = getattr(obj, field)
    setattr(obj, field, replacement)
    return original


def undo(key: str, obj: Any, field: str) -> None:
    if (obj, field) not in originals[key]:
        raise RuntimeError(f"there is no patch for {field} to undo")
    setattr(obj, field, originals[key].pop((obj, field)))
