"""A mark between tags that no setting names: `aoi ## hat, smile` in nearly every caption of a folder."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from lib_pivotal.data.records import Picture

UNNAMED_MARK = "unnamed_mark"
"""The kind of the finding."""
NEARLY_EVERY = 0.9
"""The share of captions that must have the mark."""
FEWEST = 3
"""With fewer captions it may be chance."""
MOST_OF_ONE = 2
"""`a ## b ## c`: kept in front, free, kept at the end."""

_MARK = re.compile(r"(?<!\S)[^\w\s,.()\[\]{}\"'\\]{2,}(?!\S)")
_FACE = re.compile(r"(?![-=~]+>|<[-=~]+).*[:;=].*|><")
"""Other than one sign again and again (`::`), and other than arrows."""


def unnamed_mark(pictures: Iterable[Picture]) -> str:
    """Two signs or more between blanks that stand in nearly every caption, and nowhere within a tag; "" if none does.

    What the pictures' own cut knows as a mark is none that is not named. Faces (`:-|`) are tags.
    """
    captions = [(caption, picture.cut.mark) for picture in pictures if (caption := picture.caption.strip())]
    if len(captions) < FEWEST:
        return ""
    counts = [Counter(mark for mark in _MARK.findall(caption) if mark != known) for caption, known in captions]
    shared = Counter(mark for count in counts for mark in count if _may_be_one(mark))
    for mark, number in shared.most_common():
        if number < NEARLY_EVERY * len(captions):
            break
        alone = all(caption.count(mark) == count[mark] for (caption, _), count in zip(captions, counts, strict=True))
        if alone and max(count[mark] for count in counts) <= MOST_OF_ONE:
            return mark
    return ""


def told(mark: str) -> str:
    """What to say of it."""
    return (
        f'Nearly every caption has " {mark} " between tags, and it is read as part of one. If it divides tags that '
        f"stay in front from those that are shuffled, say so: data.keep_separator = {mark}"
    )


def _may_be_one(mark: str) -> bool:
    return len(set(mark)) == 1 or not _FACE.fullmatch(mark)
