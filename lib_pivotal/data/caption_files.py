"""Changing a caption file where a scan finds it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from lib_pivotal.data.captions import read_text
from lib_pivotal.errors import DataError
from lib_pivotal.files import replacing

EXTENSIONS = (".txt", ".caption")
"""As a scan takes them: the first that is there."""


class CaptionPlaces:
    """The caption files of many pictures: each folder is listed once, so that this takes as long as there are files.

    What comes into a folder later is not seen: make a new one for each piece of work.
    """

    def __init__(self, extensions: Sequence[str] = EXTENSIONS) -> None:
        self._extensions = tuple(extensions)
        self._listings: dict[Path, dict[str, str]] = {}

    def __call__(self, picture: Path) -> Path:
        """The caption file of a picture; where there is none, the one to write: `NAME.txt` beside it."""
        listing = self._listing(picture.parent)
        for extension in self._extensions:
            for name in (f"{picture.stem}{extension}", f"{picture.name}{extension}"):
                if (found := listing.get(name.lower())) is not None:
                    return picture.with_name(found)
        return picture.with_name(picture.stem + self._extensions[0])

    def _listing(self, folder: Path) -> dict[str, str]:
        """The caption files of a folder, by their names in lower case."""
        if folder not in self._listings:
            names = (name for name in os.listdir(folder) if name.lower().endswith(self._extensions))
            self._listings[folder] = {name.lower(): name for name in sorted(names, reverse=True)}
        return self._listings[folder]


def caption_place(picture: Path, extensions: Sequence[str] = EXTENSIONS) -> Path:
    """The same of one picture, as its folder is now."""
    return CaptionPlaces(extensions)(picture)


def file_text(picture: Path) -> str:
    """What the caption file of a picture holds, lines as they are, stripped; empty where there is none.

    Raises DataError if it cannot be read.
    """
    place = caption_place(picture)
    try:
        return read_text(place)[0].strip() if place.exists() else ""
    except OSError as error:
        raise _told(place, "read", error) from error


def save_caption(picture: Path, text: str, *, before: str, backup: bool = False) -> Path:
    """Write `text` as the caption of `picture`, in UTF-8 and with a line's end; returns the file.

    The file is there whole or not at all. `before` is what it held when the change began: DataError if it holds
    something else by now. `backup` keeps the old file as `NAME.txt.bak`; one that is there already, the oldest, stays.
    """
    place = caption_place(picture)
    if file_text(picture) != before:
        raise DataError(
            f"{place.name}: another program has changed the file since it was opened here, so nothing was written. "
            "Copy your text, press Take back to see the file as it is now, and change that."
        )
    try:
        if backup and place.exists():
            kept = place.with_name(f"{place.name}.bak")
            if not kept.exists():
                with replacing(kept) as temporary:
                    shutil.copyfile(place, temporary)
        with replacing(place) as temporary:
            temporary.write_text(text.strip() + "\n", encoding="utf-8", newline="\n")
    except OSError as error:
        raise _told(place, "written", error) from error
    return place


def _told(place: Path, what: str, error: OSError) -> DataError:
    return DataError(f"{place}: the caption cannot be {what} ({error.strerror}). Fix its permissions.")
