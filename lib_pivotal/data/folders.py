"""A folder of pictures on disk: which files are pictures, and which caption and mask belong to which."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from lib_pivotal.data.masks import MASK_FOLDERS, MASK_SUFFIXES
from lib_pivotal.data.pictures import EXTENSIONS

_KOHYA = re.compile(r"^(\d+)_(.+)$")
_FACE_CUT = re.compile(r"^(.+)_\d{4}_\d{4}_\d{4}_\d{4}$")
_META = re.compile(r"^\.(.+)_meta\.json$", re.IGNORECASE)
_MASK_ENDINGS = (".png", *sorted(EXTENSIONS))
_NO_PICTURES = (*MASK_SUFFIXES, "-condlabel")
"""Ends of names that are no pictures to train on: masks, and what OneTrainer conditions on."""
_HIDDEN = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN"})
_DIGITS = re.compile(r"([0-9]+)")


def natural_order(text: str) -> tuple[Any, ...]:
    """A sorting key by which `2.png` comes before `10.png`."""
    parts = _DIGITS.split(text.casefold())
    return (tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part), text)


def concept_of(folders: Sequence[str], *, root_name: str) -> tuple[str, int, bool]:
    """Concept, repeats, and whether the folder is kohya's, from the folder names between the root and a picture."""
    for name in reversed(folders or [root_name]):  # the root's own name counts for what lies in it directly
        if match := _KOHYA.match(name):
            return match.group(2).strip() or name, int(match.group(1)), True
    return (folders[0] if folders else root_name), 1, False


class Folder:
    """The files below a folder, listed once; hidden ones are not there. Links are followed, but not in circles."""

    def __init__(self, root: Path, *, below: bool = True) -> None:
        self._root = root
        self._start = len(str(root / "x")) - 1
        self._below = below
        self._name = root.resolve().name or "dataset"
        self._listings: dict[Path, dict[str, Path]] = {}
        self._beside: dict[str, dict[str, Path]] = {}
        self._folders: dict[str, Path] = {}
        self._with_suffixes: set[str] = set()
        self._metas: dict[str, dict[str, Path]] = {}
        self._mask_places: dict[str, list[dict[str, Path]]] = {}
        self._used_masks: set[Path] = set()
        self.unreadable: list[OSError] = []
        self.unnamed: list[str] = []
        """Files and folders whose names are no text here, as well as they can be shown; they are left out."""
        self._list()

    def key(self, path: Path) -> str:
        """A file's stable name: its path below the root, with `/`."""
        key = str(path)[self._start :]
        return key if os.sep == "/" else key.replace(os.sep, "/")

    @property
    def name(self) -> str:
        """The root's own name."""
        return self._name

    def folders(self) -> list[Path]:
        """Every folder but those of masks, in no order that means anything."""
        return [where for where in self._listings if not self._is_for_masks(where)]

    def file(self, where: Path, name: str) -> Path | None:
        """A file of this name in one of the folders."""
        return self._listings.get(where, {}).get(name.lower())

    def meta_file(self, path: Path) -> Path | None:
        """waifuc's `.NAME_meta.json` beside `NAME.png`, or `NAME.json`."""
        where, stem, _ = _parts(path)
        hidden = self._metas[where].get(stem) if where in self._metas else None
        return hidden or self._beside[where].get(f"{stem}.json")

    def tables(self, suffixes: Sequence[str]) -> list[Path]:
        """Files with such endings that are of no picture, nearest to the root first."""
        stems = {
            where: {name.rpartition(".")[0] for name in listing if f".{name.rpartition('.')[2]}" in EXTENSIONS}
            for where, listing in self._listings.items()
        }
        found = [
            path
            for where, listing in self._listings.items()
            for name, path in listing.items()
            if name.endswith(tuple(suffixes)) and name.rpartition(".")[0] not in stems[where]
        ]
        return sorted(found, key=lambda path: (len(path.parts), str(path)))

    def pictures(self) -> list[Path]:
        """Every picture file that is no mask, in natural order."""
        return self._sorted(
            path
            for where, listing in self._listings.items()
            if not self._is_for_masks(where)
            for path in listing.values()
            if (parts := _parts(path))[2] in EXTENSIONS and not parts[1].endswith(_NO_PICTURES)
        )

    def by_stem(self) -> dict[str, Path]:
        """Every picture file by its name without ending, in lower case."""
        return {path.stem.lower(): path for path in reversed(self.pictures())}

    def others(self, known: Sequence[str]) -> list[Path]:
        """Files that are neither pictures nor end like one of `known`."""
        return self._sorted(
            path
            for listing in self._listings.values()
            for path in listing.values()
            if (suffix := _parts(path)[2]) not in EXTENSIONS and suffix not in known
        )

    def caption_file(self, path: Path, extensions: Sequence[str]) -> Path | None:
        """`a.txt` (or `a.png.txt`) beside `a.png`; the first ending that is there.

        A cut that kohya's face tool has made (`a_CX_CY_W_H.png`) has that of its whole, if it has none itself.
        """
        where, stem, suffix = _parts(path)
        listing = self._beside[where]
        for extension in extensions:
            for name in (f"{stem}{extension}", f"{stem}{suffix}{extension}"):
                if (found := listing.get(name)) is not None:
                    return found
        if cut := _FACE_CUT.match(stem):
            return next((found for end in extensions if (found := listing.get(f"{cut.group(1)}{end}"))), None)
        return None

    def mask_file(self, path: Path) -> Path | None:
        """`mask/` beside the picture or at the root with the same sub-folders, or `<stem>-masklabel.png` beside it."""
        where, stem, _ = _parts(path)
        candidates = [(listing, stem) for listing in self._masks_of(where)]
        if where in self._with_suffixes:
            candidates += [(self._beside[where], stem + suffix) for suffix in MASK_SUFFIXES]
        for listing, stem in candidates:
            for ending in _MASK_ENDINGS:
                if (name := stem + ending) in listing:
                    self._used_masks.add(listing[name])
                    return listing[name]
        return None

    def _masks_of(self, where: str) -> list[dict[str, Path]]:
        """The listings in which masks of a folder's pictures may be, in order."""
        if where not in self._mask_places:
            folder = self._folders[where]
            below = folder.relative_to(self._root)
            places = [folder / name for name in MASK_FOLDERS] + [self._root / name / below for name in MASK_FOLDERS]
            found = (self._mask_listings.get(str(place).lower()) for place in places)
            self._mask_places[where] = [listing for listing in found if listing]
        return self._mask_places[where]

    def orphan_masks(self) -> list[Path]:
        """Pictures in mask folders that no `mask_file` has asked for."""
        masks = (path for listing in self._mask_listings.values() for path in listing.values())
        return self._sorted(p for p in masks if p.suffix.lower() in EXTENSIONS and p not in self._used_masks)

    @cached_property
    def _mask_listings(self) -> Mapping[str, dict[str, Path]]:
        return {str(where).lower(): listing for where, listing in self._listings.items() if self._is_for_masks(where)}

    def _list(self) -> None:
        seen: set[Path] = set()
        for place, folders, files in os.walk(self._root, followlinks=True, onerror=self.unreadable.append):
            where = Path(place)
            real = where.resolve()
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            strange = [name for name in (*folders, *files) if not _is_text(name)]
            self.unnamed += [f"{where}/{name}".encode("utf-8", "backslashreplace").decode() for name in strange]
            folders[:] = sorted((n for n in folders if not _hidden(n) and n not in strange), key=natural_order)
            visible = sorted(name for name in files if not _hidden(name) and name not in strange)
            listing = {name.lower(): where / name for name in visible}
            text = _parts(where / "x")[0]
            self._folders[text], self._listings[where], self._beside[text] = where, listing, listing
            if any(suffix in name for suffix in MASK_SUFFIXES for name in listing):
                self._with_suffixes.add(text)
            self._keep_twins(where, visible)
            metas = {match.group(1).lower(): where / name for name in files if (match := _META.match(name))}
            if metas:
                self._metas[text] = metas
            if not self._below:
                folders[:] = [name for name in folders if name.lower() in MASK_FOLDERS]

    def _keep_twins(self, where: Path, names: Sequence[str]) -> None:
        """Names that differ only in case (`a.PNG`, `a.png`) are files of their own: list them under themselves too."""
        listing = self._listings[where]
        for name in names:
            if listing[name.lower()].name != name:
                listing[f"\0{name}"] = where / name

    def _is_for_masks(self, where: Path) -> bool:
        return any(part.lower() in MASK_FOLDERS for part in where.relative_to(self._root).parts)

    def _sorted(self, paths: Iterable[Path]) -> list[Path]:
        return sorted(paths, key=lambda path: natural_order(self.key(path)))


def _parts(path: Path) -> tuple[str, str, str]:
    """Folder, stem and ending, both in lower case: pathlib's own take ten times as long, and there are many files."""
    where, _, name = str(path).rpartition(os.sep)
    name = name.lower()
    dot = name.rfind(".")
    return (where, name[:dot], name[dot:]) if 0 < dot < len(name) - 1 else (where, name, "")


def _is_text(name: str) -> bool:
    """Whether a file system's name is text: bytes of another encoding come as halves of letters, which JSON refuses."""
    return name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in _HIDDEN
