"""Finding out what a folder or file is, and reading it."""

from __future__ import annotations

from pathlib import Path

from lib_pivotal.data.sources.source import Reading, Source
from lib_pivotal.errors import DataError

TITLES = {
    "plain": "one folder of pictures",
    "concepts": "a folder for each concept",
    "kohya": "kohya's folders, repeats in front of the name (10_name)",
    "kgrid": "kgrid's tree (image type / number of characters / character)",
}
"""Layouts by their names in the settings."""


def read_layout(path: Path, layout: str = "auto") -> Reading:
    """What `path` is; `layout` says it where `auto` would guess wrong.

    Raises:
        DataError: there is nothing there, or it is not of that layout.
    """
    if layout != "auto" and layout not in TITLES:
        raise DataError(f"layout = {layout!r}: there is {', '.join(('auto', *TITLES))}.")
    if not path.is_dir():
        what = "is a file, not a folder" if path.exists() else "does not exist"
        raise DataError(f"{path}: {what}. Give the folder that holds the pictures.")
    root = _inside(path) if layout in ("auto", "kgrid") else path
    source = Source(root=root, tree=layout)  # type: ignore[arg-type]
    return Reading(layout, TITLES.get(layout, ""), root, (source,))


def _inside(path: Path) -> Path:
    """kgrid's `training` where the folder of the whole pipeline was given: beside it lie raw and cropped pictures."""
    training = path / "training"
    return training if training.is_dir() and (path / "intermediate").is_dir() else path
