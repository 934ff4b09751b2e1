"""Aspect-ratio buckets: every picture is trained at a size near its own shape, so that little is cut off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lib_pivotal.errors import DataError

Crop = Literal["centre", "top"]


@dataclass(frozen=True, order=True)
class Bucket:
    """A training size; both sides are multiples of the step."""

    width_px: int
    height_px: int


@dataclass(frozen=True)
class Placement:
    """How a picture gets into its bucket: resized to `resized_px` (width, height), then cut at `left_px`, `top_px`.

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
        """The cut in the resized picture: left, top, right, bottom."""
        return (self.left_px, self.top_px, self.left_px + self.bucket.width_px, self.top_px + self.bucket.height_px)


class Buckets:
    """The sizes of a run, and which one a picture gets.

    Sizes are multiples of `step_px` with an area of at most `target_px`² and sides from `minimum_px` to
    `maximum_px`, as kohya makes them (https://github.com/kohya-ss/sd-scripts/blob/48d368fa/library/model_util.py,
    `make_bucket_resolutions`). A picture gets the size nearest to its own shape, which is the one that cuts off least.
    With `upscale=False` a picture too small for that size gets its own, cut to the step.
    `bucketing=False`: one square for all.
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
        crop: Crop = "centre",
    ) -> None:
        if step_px < 8 or step_px % 8:
            raise DataError(f"step_px = {step_px}: bucket sides must be multiples of 8. Use 64 or 8.")
        if target_px < step_px:
            raise DataError(f"target_px = {target_px}: smaller than the step of {step_px} px. Use a smaller step.")
        self.target_px, self.step_px, self.upscale, self.crop = target_px, step_px, upscale, crop
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

        self._shapes = [(math.log(size.width_px / size.height_px), size) for size in self.sizes]

    def assign(self, width_px: int, height_px: int) -> Placement:
        """The bucket of a picture of this size, and how it is resized and cut to fit."""
        if width_px < 1 or height_px < 1:
            raise DataError(f"picture size {width_px}x{height_px}: both sides must be 1 px or more.")
        shape = math.log(width_px / height_px)
        # of sizes equally far, the larger one
        bucket = min(self._shapes, key=lambda pair: (round(abs(pair[0] - shape), 9), -_area(pair[1]), pair[1]))[1]
        if not self.upscale and (bucket.width_px > width_px or bucket.height_px > height_px):
            bucket = self._own(width_px, height_px)
        return place(width_px, height_px, bucket=bucket, crop=self.crop)

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


def place(width_px: int, height_px: int, *, bucket: Bucket, crop: Crop = "centre") -> Placement:
    """Cover the bucket: the smallest size of the picture's shape that fills it; the rest is cut off."""
    scale = max(bucket.width_px / width_px, bucket.height_px / height_px)
    resized = (max(bucket.width_px, round(width_px * scale)), max(bucket.height_px, round(height_px * scale)))
    spare = (resized[0] - bucket.width_px, resized[1] - bucket.height_px)
    shown = (bucket.width_px / (width_px * scale)) * (bucket.height_px / (height_px * scale))
    return Placement(
        bucket=bucket,
        resized_px=resized,
        left_px=spare[0] // 2,
        top_px=0 if crop == "top" else spare[1] // 2,
        cropped=max(0.0, 1.0 - shown),
        upscaled=scale > 1.0,
    )


def crop_report(placements: Sequence[Placement]) -> dict[str, float | int]:
    """For the plan: how much is cut off on average and at worst, and how many pictures must grow."""
    shares = [placement.cropped for placement in placements]
    return {
        "pictures": len(shares),
        "buckets": len({placement.bucket for placement in placements}),
        "mean_cropped": sum(shares) / len(shares) if shares else 0.0,
        "most_cropped": max(shares, default=0.0),
        "upscaled": sum(placement.upscaled for placement in placements),
    }


def _area(bucket: Bucket) -> int:
    return bucket.width_px * bucket.height_px


def _floor(length_px: int, step_px: int) -> int:
    return max(step_px, length_px // step_px * step_px)
