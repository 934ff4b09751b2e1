"""Changing caption files where a scan finds them: one by hand, or a folder's as they are trained, with the way back.

Nothing else in this project changes caption files of a data set but the taggers, which write where there is none.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_pivotal.data.captions import read_text
from lib_pivotal.errors import DataError
from lib_pivotal.files import replacing, sync_folder, typed_path
from lib_pivotal.plain_json import parse_json

if TYPE_CHECKING:
    from lib_pivotal.data.pruning import PrunedCaptions
    from lib_pivotal.data.records import Dataset

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


RECORD_VERSION = 1


@dataclass(frozen=True)
class CaptionChange:
    """A caption file that would change: what it holds (None: there is none), and what it would hold."""

    key: str
    place: Path
    before: bytes | None
    after: bytes

    @property
    def text_before(self) -> str:
        """For people."""
        return (self.before or b"").decode("utf-8", errors="replace").strip()

    @property
    def text_after(self) -> str:
        """For people."""
        return self.after.decode("utf-8").strip()


@dataclass(frozen=True)
class Changes:
    """All changes of a data set; `several` are pictures with several captions, whose files are left alone."""

    changes: tuple[CaptionChange, ...]
    several: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Of all that would be written: two previews of the same are equal."""
        found = hashlib.sha256()
        for change in self.changes:
            for part in (str(change.place).encode(), change.before or b"\0", change.after):
                found.update(len(part).to_bytes(8, "big") + part)
        return found.hexdigest()


@dataclass(frozen=True)
class Outcome:
    """How many files were written, and which were left, each with the reason."""

    written: int
    left: tuple[str, ...] = ()


def records_place(home: Path, folder: Path | str) -> Path:
    """Where below `home` the ways back of a folder's captions are kept: not among the pictures."""
    whole = str(typed_path(folder).resolve())
    return home / "captions" / hashlib.sha256(whole.encode()).hexdigest()[:16]


def caption_changes(dataset: Dataset, wording: PrunedCaptions) -> Changes:
    """What would change if each caption were written as it is trained.

    Raises:
        DataError: a caption file cannot be read.
    """
    found: list[CaptionChange] = []
    several: list[str] = []
    places = CaptionPlaces()
    for original, trained in zip(dataset.pictures, wording.captions(), strict=True):
        if trained.caption == original.caption:
            continue
        if original.alternatives:
            several.append(original.key)
            continue
        place = original.text_place or places(original.path)
        found.append(CaptionChange(original.key, place, _bytes(place), f"{trained.caption.strip()}\n".encode()))
    return Changes(tuple(found), tuple(several))


def write_changes(changes: Sequence[CaptionChange], record: Path) -> Outcome:
    """Write them; `record` is written first and holds all that is needed to take them back.

    A file that holds something else than at the preview is left alone. Each file is there whole or not at all.

    Raises:
        DataError: the record cannot be written; nothing was changed then.
    """
    entries = [
        {"place": str(c.place), "before": _text(c.before), "after": _text(c.after), "key": c.key} for c in changes
    ]
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        with replacing(record) as temporary:
            temporary.write_text(json.dumps({"version": RECORD_VERSION, "files": entries}), encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"{record}: cannot be written ({error.strerror}), so no caption was changed. Fix the folder's permissions."
        ) from error
    return _exchange([(change.place, change.before, change.after) for change in changes])


def take_back(record: Path) -> Outcome:
    """Give the files of a record their contents of before; those that others have changed since are left alone.

    Raises:
        DataError: it is no such record.
    """
    entries = _entries(record)
    outcome = _exchange([(place, after, before) for place, before, after in entries])
    if not outcome.left:
        record.unlink(missing_ok=True)
    return outcome


def _exchange(files: Sequence[tuple[Path, bytes | None, bytes | None]]) -> Outcome:
    """Replace each file's expected content by another one; None: no file."""
    written, left = 0, []
    folders: set[Path] = set()
    for place, expected, content in files:
        try:
            now = _bytes(place)
            if now == content:
                continue
            if now != expected:
                left.append(f"{place.name}: another program has changed it meanwhile")
                continue
            if content is None:
                place.unlink()
            else:
                with replacing(place, folder_too=False) as temporary:
                    temporary.write_bytes(content)
            folders.add(place.parent)
            written += 1
        except (OSError, DataError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            left.append(f"{place.name}: {reason}")
    for folder in folders:  # once for all of its files: it takes longer than writing one
        with contextlib.suppress(OSError):
            sync_folder(folder)
    return Outcome(written, tuple(left))


def _bytes(place: Path) -> bytes | None:
    try:
        return place.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{place}: the caption cannot be read ({error.strerror}). Fix its permissions.") from error


def _text(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode("ascii")


def _entries(record: Path) -> list[tuple[Path, bytes | None, bytes]]:
    try:
        plain: Any = parse_json(record.read_text(encoding="utf-8"))
        if plain["version"] != RECORD_VERSION:
            raise DataError(f"{record.name}: version {plain['version']} is not known here.")
        return [
            (
                Path(entry["place"]),
                None if entry["before"] is None else base64.b64decode(entry["before"]),
                base64.b64decode(entry["after"]),
            )
            for entry in plain["files"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{record}: is no record of written captions ({error}).") from error
