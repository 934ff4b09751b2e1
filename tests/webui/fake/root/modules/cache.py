"""Values that were computed from files, by table and title. The real one keeps them on disk between starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

caches: dict[str, dict[str, Any]] = {}


def cache(subsection: str) -> dict[str, Any]:
    return caches.setdefault(subsection, {})


def dump_cache() -> None:
    """For code that still calls it."""


def cached_data_for_file(subsection: str, title: str, filename: str, func: Callable[[], Any]) -> Any:
    """Computed anew only for a file with a *newer* time stamp."""
    table = cache(subsection)
    changed = Path(filename).stat().st_mtime
    entry = table.get(title)
    if not entry or changed > entry.get("mtime", 0) or "value" not in entry:
        value = func()
        if value is None:
            return None
        entry = table[title] = {"mtime": changed, "value": value}
    return entry["value"]
