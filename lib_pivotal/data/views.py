"""The ways in which one picture is shown: cuts at several places, and Custom Diffusion's far and near ones."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from lib_pivotal.data.buckets import Box, Bucket, Buckets, Crop, Placement, place
from lib_pivotal.data.records import Picture
from lib_pivotal.errors import DataError

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
class View:
    """One way to show a picture: how it lies in its bucket, and whether it was made small or large."""

    placement: Placement
    distance: Distance = ""


class Views:
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
        own: Mapping[str, tuple[Crop, int]] | None = None,
        seed: int = 0,
    ) -> None:
        if crops < 1:
            raise DataError(f"crops = {crops}: every picture has at least one view.")
        self.buckets, self._crops, self._scale, self._seed = buckets, crops, scale, seed
        self._plain, self._own = frozenset(plain), dict(own or {})

    def of(self, picture: Picture) -> tuple[View, ...]:
        """The views of a picture, the same for the same seed and name; equal ones are there once."""
        crop, crops = self._own.get(picture.key, (self.buckets.crop, self._crops))
        plain = self.buckets.assign(picture.width_px, picture.height_px, crop=crop)
        if not plain.covers or picture.key in self._plain:
            return (View(plain),)
        views = (self._view(picture, plain, number, crop) for number in range(crops))
        return tuple(dict.fromkeys(views))

    def _view(self, picture: Picture, plain: Placement, number: int, crop: Crop) -> View:
        rng = random.Random(f"{self._seed}/view/{picture.key}/{number}")
        size = (picture.width_px, picture.height_px)
        if self._scale:
            zoom, distance = _drawn_zoom(rng)
            if distance:
                at = (rng.random(), rng.random())
                return View(place(*size, bucket=plain.bucket, at=at, zoom=zoom), distance)
        if crop == "random":
            return View(place(*size, bucket=plain.bucket, at=(rng.random(), rng.random())))
        if crop == "face" and picture.focus_px is not None:
            return View(_around(picture.focus_px, size, bucket=plain.bucket, rng=rng if number else None))
        return View(plain)


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
