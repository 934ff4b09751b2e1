"""Which caption a picture has: from a file beside it, from metadata, or from its name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from lib_pivotal.data.caption_tables import NOT_CAPTIONS, SUFFIXES, CaptionTable, read_table
from lib_pivotal.data.captions import caption_from_name, read_captions, read_text
from lib_pivotal.data.folders import Folder
from lib_pivotal.data.metadata import NOTHING, Entry, clean, entry_of
from lib_pivotal.data.records import ProblemList
from lib_pivotal.data.sources.source import CaptionsFrom, Lines, Source
from lib_pivotal.data.sources.trees import Place
from lib_pivotal.errors import DataError
from lib_pivotal.plain_json import parse_json

MissingCaption = Literal["auto", "name", "concept", "empty"]
"""What a picture without a caption gets: its file's name (in kohya's folders theirs), one of both, or none."""

LARGEST_META_BYTES = 2**24


class Captioner:
    """Finds captions for one source after the other, and says what is wrong with them."""

    def __init__(
        self,
        problems: ProblemList,
        *,
        extensions: Sequence[str],
        captions_from: CaptionsFrom,
        lines: Lines,
        missing: MissingCaption,
        names: tuple[str, str] = ("", " "),
    ) -> None:
        """`names`: which words of a file's name make a caption, and what stands between them (`caption_from_name`)."""
        self._problems = problems
        self._common = (tuple(extensions), captions_from, lines)
        self._missing, self._names = missing, names
        self._from_names: list[str] = []
        self._empty: list[str] = []
        self._from_tables: dict[str, int] = {}

    def begin(self, source: Source, folder: Folder, keys: Sequence[str]) -> None:
        """Go on with a source; `keys` are its pictures' paths below its root."""
        extensions, captions_from, lines = self._common
        self._source, self._folder = source, folder
        self._extensions = source.extensions or extensions
        self._from = source.captions_from or captions_from
        self._lines: Lines = source.lines or lines
        self._elsewhere = Folder(source.captions_folder) if source.captions_folder is not None else None
        self._tables = self._read_tables(keys)

    def known_endings(self) -> tuple[str, ...]:
        """Endings of caption files."""
        return tuple(self._extensions)

    def caption(self, path: Path, *, key: str, shown: str, place: Place) -> Entry:
        """A picture's captions (none: empty), with the fields and kind that metadata has."""
        entry, blank = self._entry(path, key, shown)
        if not entry.captions:
            text = "" if blank else self._fallback(path, place)
            (self._from_names if text else self._empty).append(shown)
            entry = replace(entry, captions=(text,) if text else ())
        if self._source.prefix or self._source.suffix:
            texts = (f"{self._source.prefix}{text}{self._source.suffix}" for text in entry.captions or ("",))
            entry = replace(entry, captions=tuple(text.strip() for text in texts))
        return entry

    def text_place(self, path: Path) -> Path | None:
        """Where the layout looks for a picture's caption file; None: at the usual place."""
        if self._elsewhere is None and ".txt" in self._extensions:
            return None
        return (self._source.captions_folder or path.parent) / f"{path.stem}{self._extensions[0]}"

    def review(self) -> None:
        """What can only be said of all captions together."""
        say = self._problems.say
        for name, count in self._from_tables.items():
            say("info", "caption_from_table", f"{count} caption(s) are from {name}.", [])
        if keys := self._from_names:
            text = f"{len(keys)} picture(s) have no caption file; the file's or the kohya folder's name is the caption."
            say("info", "caption_from_name", text, keys)
        if keys := self._empty:
            text = f"{len(keys)} picture(s) have no caption. Write a .txt file of the same name, or use a template."
            say("warning", "no_caption", text, keys)

    # -- the places where captions are

    def _entry(self, path: Path, key: str, shown: str) -> tuple[Entry, bool]:
        """What is said of a picture, and whether an empty caption file says that it has none."""
        if self._source.texts:
            return Entry(self._source.texts), False
        if self._from == "stem":
            return Entry((path.stem,)), False
        if self._from in ("name", "none"):
            return NOTHING, False
        meta = self._of_meta(path, shown) if self._from != "files" else NOTHING
        if self._from != "metadata" and (captions := self._of_file(path, shown)) is not None:
            return replace(meta, captions=captions), not captions
        if self._from != "files" and not meta.captions:
            for table in self._tables:
                if found := table.find(key):
                    return replace(found, fields=meta.fields or found.fields, image_type=meta.image_type), False
        return meta, False

    def _of_file(self, path: Path, shown: str) -> tuple[str, ...] | None:
        """The captions in a caption file, or in all of them where one is drawn; None if there is no such file."""
        endings = [[ending] for ending in self._extensions] if self._lines == "draw" else [list(self._extensions)]
        found = [file for some in endings if (file := self._caption_file(path, some)) is not None]
        if not found:
            return None
        return tuple(dict.fromkeys(text for file in found for text in self._read(file, shown)))

    def _caption_file(self, path: Path, endings: Sequence[str]) -> Path | None:
        if self._elsewhere is not None:
            return self._elsewhere.caption_file(self._source.captions_folder / path.name, endings)  # type: ignore[operator]
        return self._folder.caption_file(path, endings)

    def _read(self, found: Path, shown: str) -> tuple[str, ...]:
        """The captions in a file; one that cannot be read is named."""
        try:
            captions, remark = read_captions(found, self._lines)
        except OSError as error:
            message = f"{found.name}: the caption cannot be read ({error.strerror}). Fix its permissions."
            self._problems.say("error", "caption_unreadable", message, [shown])
            return ()
        if remark:
            self._problems.say("warning", "caption_encoding", f"{found.name} {remark}.", [shown])
        return captions

    def _of_meta(self, path: Path, shown: str) -> Entry:
        found = self._folder.meta_file(path)
        if found is None or found.name.lower() in NOT_CAPTIONS:
            return NOTHING
        try:
            if found.stat().st_size > LARGEST_META_BYTES:
                raise ValueError("it is far too large")
            plain = parse_json(read_text(found)[0])
        except (OSError, ValueError, RecursionError) as error:
            message = f"{found.name}: the metadata cannot be read ({error}). Fix the file, or take it away."
            self._problems.say("warning", "metadata_unreadable", message, [shown])
            return NOTHING
        return entry_of(plain) if isinstance(plain, dict | str) else NOTHING

    def _read_tables(self, keys: Sequence[str]) -> list[CaptionTable]:
        """Tables that hold captions of this source's pictures, the one that the layout names first."""
        if self._from in ("files", "name", "stem", "none"):
            return []
        given = [self._source.table] if self._source.table is not None else []
        beside = [path for path in self._folder.tables(SUFFIXES) if path.name.lower() not in NOT_CAPTIONS]
        tables = []
        for path in [*given, *(path for path in beside if path not in given)]:
            try:
                root = self._source.root if path in given else path.parent
                table = read_table(path, root=root)
            except DataError as error:
                # other files of these endings lie about in folders: a json or yaml that is whole may be anything
                broken = isinstance(error.__cause__, json.JSONDecodeError | UnicodeDecodeError)
                if broken or path in given or path.suffix.lower() in (".jsonl", ".csv"):
                    self._problems.say("warning", "captions_unreadable", str(error), [])
                continue
            start = "" if path in given else self._folder.key(path).rpartition("/")[0]
            view = _Below(table, f"{start}/" if start else "")
            if count := sum(bool(view.find(key)) for key in keys):
                tables.append(view)
                self._from_tables[path.name] = self._from_tables.get(path.name, 0) + count
        return tables  # type: ignore[return-value]

    def _fallback(self, path: Path, place: Place) -> str:
        """What stands for a caption that is not there."""
        if self._source.missing is not None:
            return clean(self._source.missing)
        choice = self._missing
        if choice == "auto":
            choice = "concept" if place.named else "name"
        return {"concept": place.concept, "name": caption_from_name(path.stem, *self._names)}.get(choice, "")


class _Below:
    """A table of the pictures in one sub-folder."""

    def __init__(self, table: CaptionTable, start: str) -> None:
        self._table, self._start = table, start

    def find(self, key: str) -> Entry:
        return self._table.find(key[len(self._start) :]) if key.startswith(self._start) else NOTHING
