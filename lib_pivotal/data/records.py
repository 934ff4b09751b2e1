"""What a scan gives: pictures, problems, and the dataset that holds them."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from lib_pivotal.data.captions import Cut
from lib_pivotal.data.pictures import file_sha256
from lib_pivotal.errors import DataError

Level = Literal["error", "warning", "info"]
COMMON_CUT = Cut()


@dataclass(frozen=True)
class Picture:
    """One usable picture: `key` is its path below the dataset's folder, with `/`; its size is as displayed.

    `focus_px` is the box of a face or whatever must stay in sight: left, top, right, bottom in the displayed picture.
    `alternatives` are further captions of the same picture: at each draw one of all is taken. `image_type` is what
    the layout says of it (`screenshots`, `fanart`), else empty. `fields` are parts of a caption by kind where
    metadata keeps them apart, as waifuc does: `(("characters", "aoi"), ("tags", "hat, smile"))`. `text_place` is where
    its layout looks for its caption file, where that is not `NAME.txt` (or `.caption`) beside it. `cut` is how its
    captions are cut into tags under the run's settings.
    """

    key: str
    path: Path
    caption: str
    width_px: int
    height_px: int
    concept: str
    repeats: float = 1
    mask_path: Path | None = None
    has_alpha: bool = False
    focus_px: tuple[float, float, float, float] | None = None
    alternatives: tuple[str, ...] = ()
    image_type: str = ""
    fields: tuple[tuple[str, str], ...] = ()
    text_place: Path | None = None
    cut: Cut = COMMON_CUT

    @property
    def flat(self) -> str:
        """Its caption with separators alone, as tags are counted in it."""
        return self.cut.flat(self.caption)

    @property
    def tags(self) -> list[str]:
        """The single tags of its caption, in order."""
        return self.cut.single(self.caption)

    @cached_property
    def sha256(self) -> str:
        """Of the file's bytes, read at first use."""
        return file_sha256(self.path)


@dataclass(frozen=True)
class DatasetProblem:
    """Something to know about a dataset: `message` says what and what to do, `keys` which pictures or files."""

    level: Level
    code: str
    message: str
    keys: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"level": self.level, "code": self.code, "message": self.message, "keys": list(self.keys)}


@dataclass
class ProblemList:
    """Problems as they are found."""

    found: list[DatasetProblem]

    def say(self, level: Level, code: str, message: str, keys: Sequence[str]) -> None:
        """Add one."""
        self.found.append(DatasetProblem(level=level, code=code, message=message, keys=tuple(keys)))


@dataclass(frozen=True)
class Dataset:
    """What a scan found; `concepts` maps each concept to its pictures' keys.

    `layout` is what the folder was read as, by its name in the settings, `title` the same for people; `sources` are
    its folders (plain data); `settings` are settings of a run that the layout asks for, by dotted path.
    """

    folder: Path
    pictures: tuple[Picture, ...]
    concepts: Mapping[str, tuple[str, ...]]
    problems: tuple[DatasetProblem, ...]
    layout: str = "plain"
    title: str = ""
    sources: tuple[Mapping[str, Any], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def mark(self) -> str:
        """Tells this scan from every other, also from those that are gone; equal scans differ in it."""
        return uuid.uuid4().hex

    @cached_property
    def _by_key(self) -> Mapping[str, Picture]:
        return {picture.key: picture for picture in self.pictures}

    def __getitem__(self, key: str) -> Picture:
        if key not in self._by_key:
            raise DataError(f"{key}: no such picture in {self.folder}. Scan the folder again.")
        return self._by_key[key]

    def __contains__(self, key: object) -> bool:
        return key in self._by_key

    def __len__(self) -> int:
        return len(self.pictures)

    def captions(self, concept: str | None = None) -> list[str]:
        """The captions of all pictures, or of one concept's."""
        return [picture.caption for picture in self.pictures if concept is None or picture.concept == concept]

    def summary(self) -> dict[str, Any]:
        """Plain data for the command line, the API and JSON."""
        sizes = Counter(f"{picture.width_px}x{picture.height_px}" for picture in self.pictures)
        return {
            "folder": str(self.folder),
            "layout": self.layout,
            "read_as": self.title,
            "sources": [dict(source) for source in self.sources],
            "settings": {name: list(v) if isinstance(v, tuple) else v for name, v in self.settings.items()},
            "pictures": len(self.pictures),
            "samples_per_epoch": _sum(picture.repeats for picture in self.pictures),
            "masks": sum(picture.mask_path is not None for picture in self.pictures),
            "transparent": sum(picture.has_alpha for picture in self.pictures),
            "concepts": {
                name: {"pictures": len(keys), "samples_per_epoch": _sum(self[key].repeats for key in keys)}
                for name, keys in self.concepts.items()
            },
            "sizes": dict(sizes.most_common(20)),
            "problems": [problem.as_dict() for problem in self.problems],
        }


def _sum(repeats: Iterable[float]) -> float:
    """Repeats together, to two places; whole where they are."""
    total = round(sum(repeats), 2)
    return int(total) if float(total).is_integer() else total
