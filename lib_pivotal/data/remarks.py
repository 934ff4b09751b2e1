"""What is to be known of how pictures are trained, before it happens."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from lib_pivotal.data.asymmetry import mirror_warnings
from lib_pivotal.data.buckets import Buckets, crop_report
from lib_pivotal.data.captions import WordFinder
from lib_pivotal.data.records import Picture, Problem


def cut_remarks(pictures: Sequence[Picture], buckets: Buckets) -> list[Problem]:
    """One line on sizes, cuts, enlarged and bordered pictures; none where every picture fits as it is."""
    placed = [(picture, buckets.assign(picture.width_px, picture.height_px)) for picture in pictures]
    report = crop_report([placement for _, placement in placed])
    parts = [f"{_count(report['pictures'], 'picture')} in {_count(report['buckets'], 'size')}"]
    if report["most_cropped"] >= 0.005:  # which would read as 0 %
        parts.append(f"{report['mean_cropped']:.0%} is cut off on average, {report['most_cropped']:.0%} at most")
    if report["upscaled"]:
        parts.append(f"{report['upscaled']} {_are(report['upscaled'])} enlarged")
    if report["bordered"]:
        text = (
            f"{report['bordered']} {_are(report['bordered'])} shown in full with a border: cutting would take "
            "too much"
        )
        parts.append(text)
    keys = tuple(picture.key for picture, placement in placed if placement.upscaled or not placement.covers)
    return [Problem("info", "buckets", "; ".join(parts) + ".", keys)] if len(parts) > 1 else []


def mirror_remarks(pictures: Sequence[Picture], *, words: Sequence[str], keys: Collection[str]) -> list[Problem]:
    """A warning for each word whose pictures (those of `keys`) are mirrored but should not be."""
    find = WordFinder(words)
    told: dict[str, list[tuple[str, str]]] = {}
    for picture in pictures:
        if picture.key in keys:
            for name in find(picture.caption):
                told.setdefault(name, []).append((picture.key, picture.flat))
    return mirror_warnings(told)


def _count(number: float, name: str) -> str:
    return f"{number:g} {name}{'' if number == 1 else 's'}"


def _are(number: float) -> str:
    return "is" if number == 1 else "are"
