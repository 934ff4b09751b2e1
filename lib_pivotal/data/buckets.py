"""Aspect-ratio buckets: every picture is trained at a size near its own shape, so that little is cut off."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lib_pivotal.errors import DataError

CropMode = Literal["centre", "top", "random", "face"]
"""What stays of a picture that is longer than its bucket. `random` and `face` are for `crops.py`, which knows the
picture: without its help they are `centre`."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in px of a picture as it is displayed."""


@dataclass(frozen=True, order=True)
class Bucket:
    """A training size; both sides are multiples of the step."""

    width_px: int
    height_px: int


@dataclass(frozen=True)
class Placement:
    """How a picture gets into its bucket: resized to `resized_px` (width, height), then cut at `left_px`, `top_px`.

    A picture smaller than the bucket has negative ones: there the bucket begins before the picture does.
    `cropped` is the share of the picture's area that is cut off; `upscaled` says that it had to grow.
    """

    bucket: Bucket
    resized_px: tuple[int, int]
    left_px: int
    top_px: int
    cropped: float
    upscaled: bool

    @property
    def box_px(self) -> tuple[int, int, int, int]:
        """The bucket in the resized picture: left, top, right, bottom."""
        return (self.left_px, self.top_px, self.left_px + self.bucket.width_px, self.top_px + self.bucket.height_px)

    @property
    def covers(self) -> bool:
        """Whether the picture fills the bucket."""
        return self.shown_px == (0, 0, self.bucket.width_px, self.bucket.height_px)

    @property
    def shown_px(self) -> tuple[int, int, int, int]:
        """The part of the bucket that holds picture: left, top, right, bottom."""
        return (
            max(0, -self.left_px),
            max(0, -self.top_px),
            min(self.bucket.width_px, self.resized_px[0] - self.left_px),
            min(self.bucket.height_px, self.resized_px[1] - self.top_px),
        )


class Buckets:
    """The sizes of a run, and which one a picture gets.

    Sizes are multiples of `step_px` with an area of at most `target_px`² and sides from `minimum_px` to
    `maximum_px`, as kohya makes them (https://github.com/kohya-ss/sd-scripts/blob/48d368fa/library/model_util.py,
    `make_bucket_resolutions`). A picture gets the size nearest to its own shape, which is the one that cuts off least.
    With `upscale=False` a picture too small for that size gets its own, cut to the step.
    `bucketing=False`: one square for all. A picture that would lose more than the share `most_cropped` of its area is
    shown whole instead, with a border that masks leave out of the loss (`masks.shown_area`).
    """

    def __init__(
        self,
        target_px: int,
        step_px: int = 64,
        *,
        minimum_px: int | None = None,
        maximum_px: int | None = None,
        upscale: bool = True,
        bucketing: bool = True,
        crop: CropMode = "centre",
        most_cropped: float = 1.0,
    ) -> None:
        if step_px < 8 or step_px % 8:
            raise DataError(f"step_px = {step_px}: bucket sides must be multiples of 8. Use 64 or 8.")
        if target_px < step_px:
            raise DataError(f"target_px = {target_px}: smaller than the step of {step_px} px. Use a smaller step.")
        if not 0.0 <= most_cropped <= 1.0:
            raise DataError(f"most_cropped = {most_cropped}: a share of the picture's area, from 0 to 1.")
        self.target_px, self.step_px, self.upscale, self.crop = target_px, step_px, upscale, crop
        self.most_cropped = most_cropped
        self._assigned: dict[tuple[int, int, CropMode], Placement] = {}
        self.minimum_px = _floor(minimum_px if minimum_px is not None else target_px // 2, step_px)
        self.maximum_px = _floor(maximum_px if maximum_px is not None else target_px * 2, step_px)
        if self.maximum_px < self.minimum_px:
            raise DataError(f"maximum_px = {maximum_px}: below minimum_px = {minimum_px}. Swap or widen them.")
        square = Bucket(_floor(target_px, step_px), _floor(target_px, step_px))
        self.sizes: tuple[Bucket, ...] = tuple(sorted(self._make())) if bucketing else (square,)
        if not self.sizes:
            raise DataError(
                f"no bucket of {target_px}² px has sides of {self.minimum_px} to {self.maximum_px} px. "
                "Lower minimum_px."
            )

        by_shape = sorted((math.log(size.width_px / size.height_px), -_area(size), size) for size in self.sizes)
        self._shapes = [shape for shape, _, _ in by_shape]
        self._by_shape = [size for _, _, size in by_shape]

    def assign(self, width_px: int, height_px: int, *, crop: CropMode | None = None) -> Placement:
        """The bucket of a picture of this size, and how it is resized and cut to fit; `crop` in place of the run's."""
        case = (width_px, height_px, crop or self.crop)
        if case not in self._assigned:  # many pictures have the same size
            self._assigned[case] = self._assign(*case)
        return self._assigned[case]

    def _assign(self, width_px: int, height_px: int, crop: CropMode) -> Placement:
        bucket = self.bucket(width_px, height_px)
        placement = place(width_px, height_px, bucket=bucket, at=(0.5, 0.0) if crop == "top" else (0.5, 0.5))
        if placement.cropped > self.most_cropped:
            return fit(width_px, height_px, bucket=bucket)
        return placement

    def bucket(self, width_px: int, height_px: int) -> Bucket:
        """The size that a picture of this size is trained at."""
        if width_px < 1 or height_px < 1:
            raise DataError(f"picture size {width_px}x{height_px}: both sides must be 1 px or more.")
        shape = math.log(width_px / height_px)
        place = bisect_left(self._shapes, shape - 1e-9)  # the nearest ones stand around here
        near = range(max(0, place - 1), min(len(self._shapes), place + 2))
        # of sizes equally far, the larger one
        bucket = min(
            (round(abs(self._shapes[i] - shape), 9), -_area(self._by_shape[i]), self._by_shape[i]) for i in near
        )[2]
        if not self.upscale and (bucket.width_px > width_px or bucket.height_px > height_px):
            return self._own(width_px, height_px)
        return bucket

    def _make(self) -> set[Bucket]:
        sizes: set[Bucket] = set()
        for width in range(self.minimum_px, self.maximum_px + 1, self.step_px):
            height = min(self.maximum_px, self.target_px**2 // width // self.step_px * self.step_px)
            if height >= self.minimum_px:
                sizes |= {Bucket(width, height), Bucket(height, width)}
        return sizes

    def _own(self, width_px: int, height_px: int) -> Bucket:
        """The largest size inside a small picture, within the area and the longest side."""
        shrink = min(1.0, math.sqrt(self.target_px**2 / (width_px * height_px)))
        return Bucket(
            min(self.maximum_px, _floor(int(width_px * shrink), self.step_px)),
            min(self.maximum_px, _floor(int(height_px * shrink), self.step_px)),
        )


def place(
    width_px: int, height_px: int, *, bucket: Bucket, at: tuple[float, float] = (0.5, 0.5), zoom: float = 1.0
) -> Placement:
    """Cover the bucket: the smallest size of the picture's shape that fills it, times `zoom`; the rest is cut off.

    `at` shares what is over (or what is missing, with a zoom below 1) between left and right, top and bottom:
    (0, 0) keeps the left top corner, (1, 1) the right bottom one.
    """
    cover = max(bucket.width_px / width_px, bucket.height_px / height_px)
    least = (bucket.width_px, bucket.height_px) if zoom >= 1.0 else (1, 1)
    return _placed(width_px, height_px, bucket=bucket, scale=cover * zoom, least=least, at=at)


def fit(width_px: int, height_px: int, *, bucket: Bucket) -> Placement:
    """The whole picture in the middle of the bucket: the largest size of its shape that fits."""
    scale = min(bucket.width_px / width_px, bucket.height_px / height_px)
    return replace(_placed(width_px, height_px, bucket=bucket, scale=scale, least=(1, 1), at=(0.5, 0.5)), cropped=0.0)


def _placed(
    width_px: int,
    height_px: int,
    *,
    bucket: Bucket,
    scale: float,
    least: tuple[int, int],
    at: tuple[float, float],
) -> Placement:
    resized = (max(least[0], round(width_px * scale)), max(least[1], round(height_px * scale)))
    spare = (resized[0] - bucket.width_px, resized[1] - bucket.height_px)
    shown = min(1.0, bucket.width_px / (width_px * scale)) * min(1.0, bucket.height_px / (height_px * scale))
    return Placement(
        bucket=bucket,
        resized_px=resized,
        left_px=math.floor(spare[0] * at[0]),
        top_px=math.floor(spare[1] * at[1]),
        cropped=max(0.0, 1.0 - shown),
        upscaled=scale > 1.0,
    )


def crop_report(placements: Sequence[Placement]) -> dict[str, float | int]:
    """For the plan: how much is cut off on average and at worst, how many pictures must grow, and how many are shown
    whole with a border."""
    shares = [placement.cropped for placement in placements]
    return {
        "pictures": len(shares),
        "buckets": len({placement.bucket for placement in placements}),
        "mean_cropped": sum(shares) / len(shares) if shares else 0.0,
        "most_cropped": max(shares, default=0.0),
        "upscaled": sum(placement.upscaled for placement in placements),
        "bordered": sum(not placement.covers for placement in placements),
    }


def _area(bucket: Bucket) -> int:
    return bucket.width_px * bucket.height_px


def _floor(length_px: int, step_px: int) -> int:
    return max(step_px, length_px // step_px * step_px)
