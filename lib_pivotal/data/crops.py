"""The ways in which one picture is shown: cut at several places, at its face, and far and near (Custom Diffusion)."""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from lib_pivotal.data.buckets import Box, Bucket, Buckets, CropMode, Placement, place
from lib_pivotal.data.records import Picture
from lib_pivotal.errors import DataError
from lib_pivotal.plain_json import parse_json

Distance = Literal["", "far", "near"]

PHRASES: dict[Distance, tuple[str, ...]] = {
    "": ("",),
    "far": ("a far away ", "very small "),
    "near": ("zoomed in ", "close up "),
}
"""What a caption begins with when its picture was made small or large; one is drawn."""

FAR_BELOW = 0.6
"""Of the bucket's size: what would be drawn between this and the whole size is shown at its whole size."""


@dataclass(frozen=True)
class Crop:
    """One way to show a picture: how it lies in its bucket, and whether it was made small or large."""

    placement: Placement
    distance: Distance = ""


class Crops:
    """Makes the views of pictures; all of one picture have the same bucket.

    `crops` views a picture; at random places with `crop="random"`, else the first is the plain one and, with
    `crop="face"`, the others hold the face somewhere. `scale` draws sizes as Custom Diffusion does (Kumari et al. 2023,
    arXiv 2212.04488, appendix; src/diffusers_data_pipeline.py of adobe-research/custom-diffusion): two thirds of the
    views between a third of the bucket and all of it, one third 1.2 to 1.4 times as large. Where that would be below
    0.6 the picture is `far`, above 1 `near`, else it is shown plainly. A picture that is shown whole for fear of
    cutting too much off (`Buckets.most_cropped`) has this one view; so have those whose keys are in `plain`. `own` says
    by key what a cut keeps and how many there are, where that is not as for all.
    """

    def __init__(
        self,
        buckets: Buckets,
        *,
        crops: int = 1,
        scale: bool = False,
        plain: Collection[str] = (),
        own: Mapping[str, tuple[CropMode, int]] | None = None,
        seed: int = 0,
    ) -> None:
        if crops < 1:
            raise DataError(f"crops = {crops}: every picture has at least one view.")
        self.buckets, self._crops, self._scale, self._seed = buckets, crops, scale, seed
        self._plain, self._own = frozenset(plain), dict(own or {})

    def of(self, picture: Picture) -> tuple[Crop, ...]:
        """The views of a picture, the same for the same seed and name; equal ones are there once."""
        crop, crops = self._own.get(picture.key, (self.buckets.crop, self._crops))
        plain = self.buckets.assign(picture.width_px, picture.height_px, crop=crop)
        if not plain.covers or picture.key in self._plain:
            return (Crop(plain),)
        views = (self._view(picture, plain, number, crop) for number in range(crops))
        return tuple(dict.fromkeys(views))

    def _view(self, picture: Picture, plain: Placement, number: int, crop: CropMode) -> Crop:
        rng = random.Random(f"{self._seed}/view/{picture.key}/{number}")
        size = (picture.width_px, picture.height_px)
        if self._scale:
            zoom, distance = _drawn_zoom(rng)
            if distance:
                at = (rng.random(), rng.random())
                return Crop(place(*size, bucket=plain.bucket, at=at, zoom=zoom), distance)
        if crop == "random":
            return Crop(place(*size, bucket=plain.bucket, at=(rng.random(), rng.random())))
        if crop == "face" and picture.focus_px is not None:
            return Crop(_around(picture.focus_px, size, bucket=plain.bucket, rng=rng if number else None))
        return Crop(plain)


def phrase(distance: Distance, rng: random.Random) -> str:
    """The beginning of a caption for a picture shown at this distance."""
    return rng.choice(PHRASES[distance])


def _drawn_zoom(rng: random.Random) -> tuple[float, Distance]:
    if rng.random() < 2 / 3:
        zoom = rng.uniform(1 / 3, 1.0)
        return (zoom, "far") if zoom < FAR_BELOW else (1.0, "")
    return rng.uniform(1.2, 1.4), "near"


def _around(focus: Box, size: tuple[int, int], *, bucket: Bucket, rng: random.Random | None) -> Placement:
    """The cut that has the middle of `focus` in its own middle, as far as the picture goes; with `rng` any cut that
    holds all of it."""
    whole = place(*size, bucket=bucket)
    at = []
    for axis in range(2):
        cut = (bucket.width_px, bucket.height_px)[axis]
        spare = whole.resized_px[axis] - cut
        if spare <= 0:
            at.append(0.5)
            continue
        scale = whole.resized_px[axis] / size[axis]
        begin, end = focus[axis] * scale, focus[axis + 2] * scale
        first, last = max(0.0, end - cut), min(float(spare), begin)
        if rng is not None and first <= last:
            start = rng.uniform(first, last)
        else:
            start = (begin + end - cut) / 2
        at.append(min(1.0, max(0.0, start / spare)))
    return place(*size, bucket=bucket, at=(at[0], at[1]))


KEYS = ("face", "faces", "focus", "box")
"""Under these a JSON file has one box or several: [left, top, right, bottom] in px, or as shares of the sides."""

_KOHYA = re.compile(r"_(\d{4})_(\d{4})_(\d{4})_(\d{4})$")
"""Middle (x, y) and size (w, h) in px: tools/detect_face_rotate.py of kohya's sd-scripts, 48d368f."""


def with_focus(pictures: Sequence[Picture]) -> list[Picture]:
    """The pictures, each with the box that can be found for it; one that has a box keeps it."""
    return [p if p.focus_px is not None else replace(p, focus_px=find_focus(p)) for p in pictures]


def find_focus(picture: Picture) -> Box | None:
    """The box of a picture's (largest) face; None where nothing tells it, or what tells it cannot be read."""
    for path in (picture.path.with_suffix(".json"), picture.path.with_name(picture.path.name + ".json")):
        try:
            told = parse_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(told, dict):
            for key in KEYS:
                if boxes := _boxes(told.get(key), picture):
                    return max(boxes, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
    if match := _KOHYA.search(picture.path.stem):
        x, y, width, height = (int(number) for number in match.groups())
        return _box([x - width / 2, y - height / 2, x + width / 2, y + height / 2], picture)
    return None


def _boxes(told: Any, picture: Picture) -> list[Box]:
    if isinstance(told, dict):
        told = told.get("box") or told.get("bbox")
    if not isinstance(told, list) or not told:
        return []
    several = told if isinstance(told[0], list | dict) else [told]
    boxes = []
    for one in several:
        one = (one.get("box") or one.get("bbox")) if isinstance(one, dict) else one
        if (box := _box(one, picture)) is not None:
            boxes.append(box)
    return boxes


def _box(numbers: Any, picture: Picture) -> Box | None:
    """Four numbers as a box inside the picture; shares become px."""
    if not isinstance(numbers, list) or len(numbers) != 4:
        return None
    if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers):
        return None
    left, top, right, bottom = (float(number) for number in numbers)
    width, height = float(picture.width_px), float(picture.height_px)
    if max(left, top, right, bottom) <= 1.0:
        left, right, top, bottom = left * width, right * width, top * height, bottom * height
    left, right = max(0.0, left), min(width, right)
    top, bottom = max(0.0, top), min(height, bottom)
    return (left, top, right, bottom) if left < right and top < bottom else None
