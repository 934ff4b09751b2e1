"""Whole projects of other trainers, of which one part is the set: `img` beside `reg`, `log`, `model`.

bmaltais' GUI makes `img`, `reg`, `log`, `model` (kohya_ss, "Dataset preparation"); others call them otherwise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lib_pivotal.data.pictures import EXTENSIONS

SET = frozenset(
    "img imgs image images dataset datasets train training train_data traindata train_images training_images "
    "instance instance_images instance_data input pictures".split()
)
"""Names of the part that holds the pictures to train on."""
CLASS = frozenset(
    "reg regs reg_images reg_data reg_img regularization regularisation regularization_images regularisation_images "
    "regularization_data class class_images class_data classes".split()
)
"""Names of the part that holds class pictures."""
PASSED = frozenset(
    "log logs _logs logging tensorboard model models output outputs _output out sample samples preview previews grids "
    "save saves checkpoint checkpoints state states backup backups config configs cache result results trained".split()
)
"""Names of what a trainer writes or keeps beside them."""
_REPEATS = re.compile(r"^\d+_.+$")
_MOST_LOOKED_AT = 20_000


@dataclass(frozen=True)
class Project:
    """The folder of the set, that of class pictures (None: there is none), and names of what is passed over; of these
    `with_pictures` hold pictures."""

    pictures: Path
    class_pictures: Path | None
    passed: tuple[str, ...]
    with_pictures: tuple[str, ...]

    @property
    def numbered(self) -> bool:
        """Whether its pictures lie in folders `10_name`."""
        return _is_numbered(self.pictures)

    def told(self) -> str:
        """In a sentence."""
        text = f"Read as a project: its pictures are those in {self.pictures.name}"
        if self.class_pictures is not None:
            text += f"; {self.class_pictures.name} holds the class pictures (regularisation.folder)"
        if self.passed:
            text += f"; {', '.join(self.passed)} {'is' if len(self.passed) == 1 else 'are'} passed over"
        if self.with_pictures:
            text += f" ({', '.join(self.with_pictures)} with pictures in it)"
        return f"{text}. Give {self.pictures.name} itself to read it alone."


def project_of(root: Path) -> Project | None:
    """The project whose folder this is; None if it is none: with pictures of its own, or with further folders of
    pictures whose names say nothing."""
    try:
        entries = sorted(one for one in root.iterdir() if not one.name.startswith("."))
    except OSError:
        return None
    if any(one.is_file() and one.suffix.lower() in EXTENSIONS for one in entries):
        return None
    folders = [one for one in entries if one.is_dir()]
    sets = [one for one in folders if one.name.lower() in SET and _has_pictures(one)]
    numbered = [one for one in sets if _is_numbered(one)]
    chosen = numbered if numbered else sets
    others = [one for one in folders if one not in chosen]
    if len(chosen) != 1 or not others:
        return None
    kept = [one for one in others if one.name.lower() in CLASS and _has_pictures(one)]
    strange = [one for one in others if one.name.lower() not in CLASS | PASSED and _has_pictures(one)]
    known = [one for one in others if one.name.lower() in CLASS | PASSED]
    if not known or len(kept) > 1 or any(not numbered or _is_numbered(one) for one in strange):
        return None
    passed = [one for one in others if one not in kept]
    return Project(
        chosen[0],
        kept[0] if kept else None,
        tuple(one.name for one in passed),
        tuple(one.name for one in passed if _has_pictures(one)),
    )


def _is_numbered(folder: Path) -> bool:
    try:
        return any(one.is_dir() and _REPEATS.match(one.name) for one in folder.iterdir())
    except OSError:
        return False


def _has_pictures(folder: Path) -> bool:
    """Whether one is in it or below, as far as so many files tell."""
    for count, one in enumerate(folder.rglob("*")):
        if one.suffix.lower() in EXTENSIONS:
            return True
        if count > _MOST_LOOKED_AT:
            break
    return False
