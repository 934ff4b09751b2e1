"""What a layout comes to: one or more folders of pictures, each with how it is to be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lib_pivotal.data.records import DatasetProblem

Tree = Literal["auto", "plain", "concepts", "kohya", "kgrid"]
"""How names of folders are understood; `auto` finds out which of the others it is."""
CaptionsFrom = Literal["auto", "files", "metadata", "name", "stem", "none"]
"""`auto`: a caption file, else metadata, else the name; `stem`: the name as it is, without ending; `none`: what stands
for a missing one."""
Lines = Literal["join", "draw", "first"]
"""Several lines in a caption file: one caption, alternatives of which one is drawn, or only the first."""


@dataclass(frozen=True)
class PictureSource:
    """One folder of pictures.

    `label` stands in front of its pictures' keys where there are several; `concept` and `repeats` are for all of its
    pictures (`repeats` times what folders say); `below` reads sub-folders too. `table` is a file of captions,
    `captions_folder` a place of caption files elsewhere, `masks_folder` one of masks, `texts` are captions of every
    picture, `missing` that of a picture without one, `prefix` and `suffix` stand around captions as they are written.
    """

    root: Path
    tree: Tree = "auto"
    label: str = ""
    concept: str = ""
    repeats: float = 1.0
    below: bool = True
    extensions: tuple[str, ...] | None = None
    captions_from: CaptionsFrom | None = None
    lines: Lines | None = None
    table: Path | None = None
    captions_folder: Path | None = None
    masks_folder: Path | None = None
    texts: tuple[str, ...] = ()
    missing: str | None = None
    prefix: str = ""
    suffix: str = ""

    def places(self) -> tuple[Path, ...]:
        """Every file and folder that is read for it."""
        found = (self.root, self.table, self.captions_folder, self.masks_folder)
        return tuple(place for place in found if place is not None)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"folder": str(self.root), "label": self.label, "concept": self.concept, "repeats": self.repeats}


@dataclass(frozen=True)
class SourceReading:
    """A folder or file as it was understood.

    `layout` is its name in the settings, `title` a sentence for people, `folder` where what belongs to the whole lies.
    `settings` are settings of a run that the layout asks for, by dotted path; `untaken` keys that nothing came of.
    """

    layout: str
    title: str
    folder: Path
    sources: tuple[PictureSource, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[DatasetProblem, ...] = ()
    untaken: tuple[str, ...] = ()


@dataclass(frozen=True)
class DatasetFile:
    """Another tool's file that describes a dataset, as `importing` reads it.

    `parse` gives the file's plain values (DataError: it cannot be read), `fits` says whether they are such a
    description, and `read` makes folders of pictures of them (DataError: none of them is there).
    """

    layout: str
    title: str
    suffixes: tuple[str, ...]
    parse: Callable[[Path], Any]
    fits: Callable[[Any], bool]
    read: Callable[[Any, Path], SourceReading]


def labels(roots: Sequence[Path]) -> list[str]:
    """What stands in front of the keys of each folder's pictures: nothing for one alone, else names that differ."""
    if len(roots) < 2:
        return ["" for _ in roots]
    names: list[str] = []
    for root in roots:
        name, count = root.name or "folder", 2
        while name in names:
            name, count = f"{root.name or 'folder'}-{count}", count + 1
        names.append(name)
    return names
