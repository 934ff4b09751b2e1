"""A folder of pictures on disk: which files are pictures, and which caption and mask belong to which."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from lib_pivotal.data.masks import MASK_FOLDERS, MASK_SUFFIXES
from lib_pivotal.data.pictures import EXTENSIONS

_KOHYA = re.compile(r"^(\d+)_(.+)$")
_HIDDEN = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN"})


def natural_order(text: str) -> tuple[Any, ...]:
    """A sorting key by which `2.png` comes before `10.png`."""
    parts = re.split(r"([0-9]+)", text.casefold())
    return (tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part), text)


def concept_of(folders: Sequence[str], *, root_name: str) -> tuple[str, int, bool]:
    """Concept, repeats, and whether the folder is kohya's, from the folder names between the root and a picture."""
    for name in reversed(folders or [root_name]):  # the root's own name counts for what lies in it directly
        if match := _KOHYA.match(name):
            return match.group(2).strip() or name, int(match.group(1)), True
    return (folders[0] if folders else root_name), 1, False


class Folder:
    """The files below a folder, listed once; hidden ones are not there. Links are followed, but not in circles."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._name = root.resolve().name or "dataset"
        self._listings: dict[Path, dict[str, Path]] = {}
        self._used_masks: set[Path] = set()
        self.unreadable: list[OSError] = []
        self._list()

    def key(self, path: Path) -> str:
        """A file's stable name: its path below the root, with `/`."""
        return path.relative_to(self._root).as_posix()

    def concept(self, path: Path) -> tuple[str, int, bool]:
        """A picture's concept, repeats, and whether its folder is kohya's."""
        return concept_of(PurePosixPath(self.key(path)).parts[:-1], root_name=self._name)

    def pictures(self) -> list[Path]:
        """Every picture file that is no mask, in natural order."""
        return self._sorted(
            path
            for where, listing in self._listings.items()
            if not self._is_for_masks(where)
            for path in listing.values()
            if path.suffix.lower() in EXTENSIONS and not path.stem.lower().endswith(MASK_SUFFIXES)
        )

    def others(self, known: Sequence[str]) -> list[Path]:
        """Files that are neither pictures nor end like one of `known`."""
        return self._sorted(
            path
            for listing in self._listings.values()
            for path in listing.values()
            if path.suffix.lower() not in EXTENSIONS and path.suffix.lower() not in known
        )

    def caption_file(self, path: Path, extensions: Sequence[str]) -> Path | None:
        """`a.txt` (or `a.png.txt`) beside `a.png`; the first ending that is there."""
        listing = self._listings[path.parent]
        for extension in extensions:
            for name in (f"{path.stem}{extension}", f"{path.name}{extension}"):
                if (found := listing.get(name.lower())) is not None:
                    return found
        return None

    def mask_file(self, path: Path) -> Path | None:
        """`mask/` beside the picture or at the root with the same sub-folders, or `<stem>-masklabel.png` beside it."""
        below = path.parent.relative_to(self._root)
        places = [path.parent / name for name in MASK_FOLDERS] + [self._root / name / below for name in MASK_FOLDERS]
        candidates = [(self._mask_listings.get(str(place).lower(), {}), path.stem.lower()) for place in places]
        candidates += [(self._listings[path.parent], path.stem.lower() + suffix) for suffix in MASK_SUFFIXES]
        for listing, stem in candidates:
            for name in (f"{stem}.png", *(f"{stem}{extension}" for extension in sorted(EXTENSIONS))):
                if name in listing:
                    self._used_masks.add(listing[name])
                    return listing[name]
        return None

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
            folders[:] = sorted((name for name in folders if not _hidden(name)), key=natural_order)
            visible = sorted(name for name in files if not _hidden(name))
            self._listings[where] = {name.lower(): where / name for name in visible}
            self._keep_twins(where, visible)

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


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in _HIDDEN
