"""Which caption a picture has: from a file beside it, from a table of many, from metadata, or from its name.

Tables are json, jsonl, csv and yaml, by file name. json and yaml: `{"name": caption}` as HCP-Diffusion's, or `{"name":
{"caption": ..., "tags": ...}}` as kohya's, names with or without ending or folder; or a list of rows. jsonl and csv:
rows with a file's name (`file_name`, `image_path`, `image`, `file`, ...) and its text, as HuggingFace's
`metadata.jsonl`.

What is said of one picture (`entry_of`) may be plain text, a list of texts (HCP), kohya's `{"caption": ..., "tags":
...}`, or waifuc's and kgrid's `{"tags": {"tag": score}, "characters": [...], "type": ...}`. Fields are put into words
as kgrid's pipeline does:
https://github.com/cyber-meow/anime_screenshot_pipeline/blob/c9e3fb8/anime2sd/captioning/captioning.py, `to_text_*`.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from lib_pivotal.data.captions import caption_from_name, read_captions, read_text, with_commas
from lib_pivotal.data.folders import Folder
from lib_pivotal.data.pictures import EXTENSIONS
from lib_pivotal.data.records import ProblemList
from lib_pivotal.data.sources.source import CaptionsFrom, Lines, PictureSource
from lib_pivotal.data.sources.trees import FolderMeaning
from lib_pivotal.errors import DataError
from lib_pivotal.plain_json import parse_json

SUFFIXES = (".jsonl", ".json", ".csv", ".yaml", ".yml")
LARGEST_BYTES = 2**27
NOT_CAPTIONS = frozenset({"emb_init.json", "core_tag.json", "run.json", "emb_init.csv"})
_NAME_KEYS = ("file_name", "filename", "image_path", "image", "file", "path", "name", "key")


class CaptionTable:
    """Entries by file name. A name with folders is looked for first, then one without, each also without ending."""

    def __init__(self, rows: Mapping[str, CaptionRecord], *, root: Path) -> None:
        self._by_path: dict[str, CaptionRecord] = {}
        self._by_name: dict[str, CaptionRecord | None] = {}
        for written, entry in rows.items():
            path = _relative(written, root)
            self._by_path[_bare(path)] = entry
            name = _bare(PurePosixPath(path).name)
            self._by_name[name] = entry if self._by_name.get(name, entry) == entry else None

    def __len__(self) -> int:
        return len(self._by_path)

    def find(self, key: str) -> CaptionRecord:
        """The entry of a picture by its path below the root; a name that several folders have means nobody."""
        found = self._by_path.get(_bare(key))
        if found is None:
            found = self._by_name.get(_bare(PurePosixPath(key).name))
        return found or NOTHING


def read_table(path: Path, *, root: Path) -> CaptionTable:
    """The captions in a file, for pictures below `root`.

    Raises:
        DataError: the file cannot be read, is no such file, or far too large.
    """
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise DataError(f"{path.name}: is larger than {LARGEST_BYTES >> 20} MB; that is no file of captions.")
        text = read_text(path)[0]
        rows = dict(_rows(path.suffix.lower(), text))
    except (OSError, ValueError, TypeError, KeyError, ArithmeticError, RecursionError, csv.Error) as error:
        what = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DataError(f"{path.name}: cannot be read as captions ({what}). Fix the file, or take it away.") from error
    return CaptionTable({name: entry for name, entry in rows.items() if entry}, root=root)


def _rows(suffix: str, text: str) -> Iterable[tuple[str, CaptionRecord]]:
    if suffix == ".jsonl":
        return _named(parse_json(line) for line in text.splitlines() if line.strip())
    if suffix == ".csv":
        return _of_csv(text)
    plain = _yaml(text) if suffix in (".yaml", ".yml") else parse_json(text)
    if isinstance(plain, list):
        return _named(plain)
    if not isinstance(plain, dict):
        raise ValueError("it is no table of names and captions")
    return [(str(name), entry_of(value)) for name, value in plain.items()]


def _named(rows: Iterable[Any]) -> list[tuple[str, CaptionRecord]]:
    found = []
    for row in rows:
        if isinstance(row, dict):
            name = next((row[key] for key in _NAME_KEYS if isinstance(row.get(key), str)), "")
            if name:
                found.append((name, entry_of(row)))
    return found


def _of_csv(text: str) -> list[tuple[str, CaptionRecord]]:
    """Rows with a heading (`file_name,text`), or without one: the name first, the text second."""
    sample = text[:10_000]
    separator = max(",;\t", key=lambda mark: sum(mark in line for line in sample.splitlines()))
    rows = [row for row in csv.reader(io.StringIO(text), delimiter=separator) if row]
    if not rows:
        return []
    heading = [cell.strip().lower() for cell in rows[0]]
    if any(key in heading for key in _NAME_KEYS):
        return _named(dict(zip(heading, row, strict=False)) for row in rows[1:])
    return [(row[0].strip(), entry_of(row[1])) for row in rows if len(row) > 1 and row[0].strip()]


def _yaml(text: str) -> Any:
    try:
        yaml = importlib.import_module("yaml")
    except ImportError as error:
        raise ValueError("the Python package PyYAML is not installed") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def _relative(written: str, root: Path) -> str:
    """A name as written, below the root if it is a full path there; else its last part, if it is a full path."""
    text = written.replace("\\", "/").strip()
    start = root.as_posix().rstrip("/") + "/"
    if text.startswith(start):
        return text[len(start) :]
    full = text.startswith("/") or text[1:3] == ":/"
    return text.rsplit("/", 1)[-1] if full else text.removeprefix("./")


def _bare(path: str) -> str:
    """Without the ending of a picture, in small letters."""
    stem, dot, ending = path.rpartition(".")
    return (stem if dot and f".{ending.lower()}" in EXTENSIONS else path).lower()


LONGEST_CAPTION = 20_000
"""Letters; what is longer is no caption."""
MOST_ALTERNATIVES = 100

_CAPTION_KEYS = ("caption", "text", "prompt", "description")
_TAG_KEYS = ("processed_tags", "tags", "tag_string")
_NOBODY = ("", "unknown", "anonymous", "none")
_UNSAFE = re.compile(r"(?<!\\)([()\[\]])")


@dataclass(frozen=True)
class CaptionRecord:
    """One picture's metadata; `captions` are alternatives, `fields` as in `records.Picture`."""

    captions: tuple[str, ...] = ()
    fields: tuple[tuple[str, str], ...] = ()
    image_type: str = ""

    def __bool__(self) -> bool:
        return bool(self.captions or self.fields or self.image_type)


NOTHING = CaptionRecord()


def entry_of(plain: Any) -> CaptionRecord:
    """What a value of metadata says; nothing where it is of no shape known. Raises nothing."""
    if isinstance(plain, str):
        return CaptionRecord(_captions([plain]))
    if isinstance(plain, list | tuple):
        return CaptionRecord(_captions(plain))
    if not isinstance(plain, Mapping):
        return NOTHING
    given: list[Any] = []
    for key in _CAPTION_KEYS:
        value = plain.get(key)
        given += value if isinstance(value, list | tuple) else [value]
    captions = _captions(given)
    tags = next((plain[key] for key in _TAG_KEYS if plain.get(key)), None)
    text = _tag_text(tags, spaces=plain.get("tag_string") is tags)
    if text and not captions:
        captions = (text,)
    elif text and isinstance(tags, str):  # kohya's: the sentence, and the tags behind it (train_util.py, 48d368f)
        captions = tuple(f"{caption}, {text}" for caption in captions)
    kind = plain.get("type")
    return CaptionRecord(captions, _fields(plain, text), kind.strip() if isinstance(kind, str) else "")


def _captions(items: Iterable[Any]) -> tuple[str, ...]:
    texts = (clean(item) for item in items if isinstance(item, str))
    return tuple(dict.fromkeys(text for text in texts if text))[:MOST_ALTERNATIVES]


def clean(text: str) -> str:
    """A caption in one line; empty if it is too long to be one."""
    if len(text) > LONGEST_CAPTION:
        return ""
    lines = (line.strip().strip(",").strip() for line in with_commas(text.replace("\0", "")).splitlines())
    return ", ".join(line for line in lines if line).encode("utf-8", "replace").decode("utf-8")


def _tag_text(tags: Any, *, spaces: bool = False) -> str:
    """Tags as a caption: text as it is, names of waifuc's and taggers' with blanks, and brackets that are letters."""
    if isinstance(tags, str):
        return clean(", ".join(map(_plain_tag, tags.split())) if spaces else tags)
    if isinstance(tags, Mapping):
        scores = {str(tag): score for tag, score in tags.items() if isinstance(score, int | float)}
        tags = sorted(scores, key=lambda tag: -scores[tag]) if len(scores) == len(tags) else list(tags)
    if not isinstance(tags, list | tuple):
        return ""
    return clean(", ".join(_plain_tag(tag) for tag in tags if isinstance(tag, str) and tag not in _NOBODY))


def _plain_tag(tag: str) -> str:
    spaced = tag if len(tag) <= 3 else tag.replace("_", " ")  # `^_^` is a face
    return _UNSAFE.sub(r"\\\1", spaced).strip()


def _fields(plain: Mapping[str, Any], tags: str) -> tuple[tuple[str, str], ...]:
    """kgrid's fields, in its order; none unless metadata keeps the characters apart from the tags."""
    if not any(key in plain for key in ("characters", "copyright", "artist", "n_people", "npeople")):
        return ()
    people = plain.get("npeople", plain.get("n_people"))
    copyrights, artists = _names(plain.get("copyright")), _names(plain.get("artist"))
    crop = plain.get("crop")
    texts = {
        "npeople": f"{people}{'person' if people == 1 else 'people'}" if type(people) is int else "",
        "characters": ", ".join(_character(name) for name in _names(plain.get("characters"))),
        "copyright": f"from {', '.join(copyrights)}" if copyrights else "",
        "type": plain["type"].strip() if isinstance(plain.get("type"), str) else "",
        "artist": f"by {', '.join(artists)}" if artists else "",
        "rating": "explicit" if plain.get("rating") in ("explicit", "e") else "",
        "crop": _crop(crop) if crop else "",
        "tags": tags,
    }
    return tuple((name, clean(text)) for name, text in texts.items() if text)


def _crop(crop: Any) -> str:
    kind = crop.get("type") if isinstance(crop, Mapping) else None
    return f"{kind} cropped" if isinstance(kind, str) else "cropped"


def _names(value: Any) -> list[str]:
    items = value if isinstance(value, list | tuple) else list(value) if isinstance(value, Mapping) else [value]
    return [item.strip() for item in items if isinstance(item, str) and item.strip().lower() not in _NOBODY]


def _character(text: str) -> str:
    """kgrid's `name|appearance|outfit+outfit|...` in words: `name appearance, outfit outfit`; `none` is left out."""
    name, *others = text.split("|")
    appearance, *rest = [part if part.lower() != "none" else "" for part in others] or [""]
    if appearance.startswith("_"):  # it belongs to the word's own name
        name = "_".join(f"{name}{appearance}".split())
    elif appearance:
        name = f"{name} {appearance}"
    return ", ".join(filter(None, [name, *(part.replace("+", " ") for part in rest)]))


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

    def begin(self, source: PictureSource, folder: Folder, keys: Sequence[str]) -> None:
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

    def caption(self, path: Path, *, key: str, shown: str, place: FolderMeaning) -> CaptionRecord:
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

    def _entry(self, path: Path, key: str, shown: str) -> tuple[CaptionRecord, bool]:
        """What is said of a picture, and whether an empty caption file says that it has none."""
        if self._source.texts:
            return CaptionRecord(self._source.texts), False
        if self._from == "stem":
            return CaptionRecord((path.stem,)), False
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

    def _of_meta(self, path: Path, shown: str) -> CaptionRecord:
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

    def _fallback(self, path: Path, place: FolderMeaning) -> str:
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

    def find(self, key: str) -> CaptionRecord:
        return self._table.find(key[len(self._start) :]) if key.startswith(self._start) else NOTHING
