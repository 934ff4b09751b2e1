"""What names of folders mean: a concept, kohya's `N_name`, or kgrid's `image_type/n_characters/character`.

kgrid's: https://github.com/cyber-meow/anime_screenshot_pipeline/blob/c9e3fb8/docs/Dataset_organization.md and
anime2sd/arrange.py, `get_folder_name`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lib_pivotal.data.captions import read_text
from lib_pivotal.data.folders import concept_of
from lib_pivotal.data.sources.source import Tree
from lib_pivotal.errors import DataError

MULTIPLY = "multiply.txt"
NOBODY = "character_others"
"""kgrid's name for pictures of no character, or of a combination that is too rare."""
_NUMBER_OF = re.compile(r"^\d+\+?_(?:characters?|people|person)$")
_KOHYA = re.compile(r"^\d+_.+$")


@dataclass(frozen=True)
class FolderMeaning:
    """What a picture's folders say of it; `named` if its folder's name is a caption where there is none (kohya)."""

    concept: str
    repeats: float = 1.0
    named: bool = False
    image_type: str = ""


def tree_of(folders: Iterable[str], *, root_name: str, multiply: bool) -> Tree:
    """Which kind of tree folders of pictures (paths below the root, `.` the root) are.

    `multiply` says that one of them has a `multiply.txt`.
    """
    paths = [PurePosixPath(folder) for folder in folders]
    parts = {part for path in paths for part in path.parts}
    if multiply or any(_NUMBER_OF.match(part) for part in (*parts, root_name)):
        return "kgrid"
    if any(_KOHYA.match(part) for part in parts) or (_KOHYA.match(root_name) and PurePosixPath(".") in paths):
        return "kohya"
    return "concepts" if parts else "plain"


def place_of(folders: Sequence[str], *, root_name: str, tree: Tree) -> FolderMeaning:
    """Concept, repeats and image type from the names of the folders between the root and a picture."""
    if tree == "plain":
        return FolderMeaning(root_name)
    if tree == "concepts":
        return FolderMeaning(folders[0] if folders else root_name)
    if tree == "kgrid":
        return _of_kgrid(folders, root_name=root_name)
    concept, repeats, named = concept_of(folders, root_name=root_name)
    return FolderMeaning(concept, repeats, named)


def _of_kgrid(folders: Sequence[str], *, root_name: str) -> FolderMeaning:
    """`type/n_characters/character`; the root may be the whole, one image type, or one number of characters."""
    above = next((index for index, name in enumerate(folders) if _NUMBER_OF.match(name)), None)
    if above is None:
        if _NUMBER_OF.match(root_name):
            return FolderMeaning(folders[0] if folders else NOBODY)
        return FolderMeaning(folders[-1] if folders else root_name, image_type=folders[0] if folders else "")
    kind = folders[above - 1] if above else ("" if root_name == "training" else root_name)
    return FolderMeaning(folders[above + 1] if above + 1 < len(folders) else NOBODY, image_type=kind)


def read_multiply(path: Path) -> float:
    """The number in a `multiply.txt`.

    Raises:
        DataError: there is none, or it is below 0.
    """
    text = read_text(path)[0].strip().splitlines()[:1]
    try:
        found = float(text[0]) if text else math.nan
    except ValueError:
        found = math.nan
    if not (math.isfinite(found) and found >= 0):
        shown = text[0][:40] if text else ""
        raise DataError(f"{path.name}: {shown!r} is no number of repeats. Write one, or delete the file.")
    return found


def whole(repeats: float) -> float:
    """Repeats as a whole number where they are one."""
    return int(repeats) if float(repeats).is_integer() else repeats
