"""Properties of bucket sizes and placements."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_pivotal.data.buckets import Bucket, Buckets, crop_report, fit, place
from lib_pivotal.errors import DataError

SIDES = st.integers(1, 6000)
STEPS = st.sampled_from([8, 16, 32, 64])


def test_kohyas_sizes_at_512() -> None:
    """As `make_bucket_resolutions((512, 512), 256, 1024, 64)` gives them (worked out by hand from its rule)."""
    sizes = {(size.width_px, size.height_px) for size in Buckets(512, maximum_px=1024, minimum_px=256).sizes}
    half = {(256, 1024), (320, 768), (384, 640), (448, 576), (512, 512)}
    wide = {(576, 448), (640, 384), (704, 320), (704, 320), (768, 320), (832, 256), (896, 256), (960, 256), (1024, 256)}
    assert sizes == half | wide | {(height, width) for width, height in half | wide}


@given(target=st.integers(64, 1536), step=STEPS)
def test_sizes_keep_step_area_and_sides(target: int, step: int) -> None:
    buckets = Buckets(target, step)
    assert len(set(buckets.sizes)) == len(buckets.sizes) > 0
    for size in buckets.sizes:
        assert size.width_px % step == 0 and size.height_px % step == 0
        assert size.width_px * size.height_px <= target**2
        assert buckets.minimum_px <= min(size.width_px, size.height_px)
        assert max(size.width_px, size.height_px) <= buckets.maximum_px
        assert Bucket(size.height_px, size.width_px) in buckets.sizes


@given(width=SIDES, height=SIDES, target=st.integers(64, 1024), step=STEPS, upscale=st.booleans())
def test_placements_fill_their_bucket(width: int, height: int, target: int, step: int, upscale: bool) -> None:
    buckets = Buckets(target, step, upscale=upscale)
    placement = buckets.assign(width, height)
    left, top, right, bottom = placement.box_px
    assert 0 <= left <= right <= placement.resized_px[0] and 0 <= top <= bottom <= placement.resized_px[1]
    assert (right - left, bottom - top) == (placement.bucket.width_px, placement.bucket.height_px)
    assert placement.resized_px[0] == right - left or placement.resized_px[1] == bottom - top  # cut on one axis only
    assert 0.0 <= placement.cropped < 1.0
    assert placement.bucket.width_px % step == 0 and placement.bucket.height_px % step == 0
    if not upscale and min(width, height) >= step:
        assert not placement.upscaled


@given(width=st.integers(64, 4000), height=st.integers(64, 4000))
def test_the_shape_is_kept(width: int, height: int) -> None:
    placement = Buckets(512).assign(width, height)
    stretch = (placement.resized_px[0] / width) / (placement.resized_px[1] / height)
    assert abs(math.log(stretch)) < 0.5 / min(placement.resized_px) + 1e-3


@given(width=st.integers(200, 4000), height=st.integers(200, 4000))
def test_the_bucket_that_cuts_least_is_taken(width: int, height: int) -> None:
    buckets = Buckets(512)
    least = min(place(width, height, bucket=size).cropped for size in buckets.sizes)
    assert buckets.assign(width, height).cropped <= least + 1e-6


@given(width=SIDES, height=SIDES, target=st.integers(128, 1024), step=STEPS, crop=st.sampled_from(["centre", "top"]))
def test_the_share_cut_off_is_that_of_the_pictures_own_area(
    width: int, height: int, target: int, step: int, crop: str
) -> None:
    """Told share against the rectangle that is left, in px of the picture as it is."""
    placement = Buckets(target, step, crop=crop).assign(width, height)  # type: ignore[arg-type]
    scale = max(placement.bucket.width_px / width, placement.bucket.height_px / height)
    left = (placement.bucket.width_px / scale) * (placement.bucket.height_px / scale)
    assert placement.cropped == pytest.approx(1 - left / (width * height), abs=1e-6)


def test_small_pictures_keep_their_size_without_upscaling() -> None:
    placement = Buckets(512, upscale=False).assign(300, 200)
    assert placement.bucket == Bucket(256, 192) and not placement.upscaled
    assert Buckets(512, upscale=True).assign(300, 200).upscaled
    assert Buckets(512, upscale=False).assign(2000, 2000).bucket == Bucket(512, 512)
    assert Buckets(512, upscale=False).assign(30, 30).upscaled  # smaller than one step: it must grow


def test_without_bucketing_all_are_squares() -> None:
    buckets = Buckets(512, bucketing=False)
    assert buckets.sizes == (Bucket(512, 512),)
    placement = buckets.assign(1024, 512)
    assert placement.box_px == (256, 0, 768, 512) and placement.cropped == pytest.approx(0.5)


def test_crop_from_the_top() -> None:
    assert Buckets(512, bucketing=False, crop="top").assign(512, 1024).box_px == (0, 0, 512, 512)
    assert Buckets(512, bucketing=False).assign(512, 1024).box_px == (0, 256, 512, 768)


def test_avatars_have_one_size() -> None:
    assert Buckets(64).sizes == (Bucket(64, 64),)
    assert Buckets(64).assign(64, 64).cropped == 0.0


def test_report() -> None:
    buckets = Buckets(512)
    report = crop_report([buckets.assign(512, 512), buckets.assign(100, 100), buckets.assign(3000, 500)])
    assert report["pictures"] == 3 and report["buckets"] == 2 and report["upscaled"] == 1
    assert report["most_cropped"] == pytest.approx(1 - 4 / 6)
    assert crop_report([]) == {
        "pictures": 0, "buckets": 0, "mean_cropped": 0.0, "most_cropped": 0.0, "upscaled": 0, "bordered": 0,
    }  # fmt: skip


@given(
    width=st.integers(1, 6000),
    height=st.integers(1, 6000),
    target=st.integers(64, 1024),
    step=STEPS,
    upscale=st.booleans(),
    most=st.floats(0.0, 1.0),
    bucketing=st.booleans(),
)
def test_never_more_is_cut_off_than_allowed(
    width: int, height: int, target: int, step: int, upscale: bool, most: float, bucketing: bool
) -> None:
    buckets = Buckets(target, step, upscale=upscale, most_cropped=most, bucketing=bucketing)
    placement = buckets.assign(width, height)
    assert placement.cropped <= most
    assert placement.bucket == Buckets(target, step, upscale=upscale, bucketing=bucketing).assign(width, height).bucket
    if not placement.covers:  # shown whole: one axis reaches both ends, the picture keeps its shape
        left, top, right, bottom = placement.shown_px
        assert placement.cropped == pytest.approx(0.0, abs=1e-9)
        assert (right - left, bottom - top) == placement.resized_px
        assert (left, right) == (0, placement.bucket.width_px) or (top, bottom) == (0, placement.bucket.height_px)
        assert abs((placement.bucket.width_px - right) - left) <= 1
        assert abs((placement.bucket.height_px - bottom) - top) <= 1


@given(
    size=st.tuples(st.integers(8, 3000), st.integers(8, 3000)),
    at=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    zoom=st.floats(0.33, 1.4),
)
def test_places_and_zooms(size: tuple[int, int], at: tuple[float, float], zoom: float) -> None:
    placement = place(*size, bucket=Bucket(512, 384), at=at, zoom=zoom)
    left, top, right, bottom = placement.shown_px
    assert 0 <= left < right <= 512 and 0 <= top < bottom <= 384
    x0, y0, x1, y1 = placement.box_px
    for begin, end, long in ((x0, x1, placement.resized_px[0]), (y0, y1, placement.resized_px[1])):
        assert (begin >= 0 and end <= long) or (begin <= 0 and end >= long)  # cut or bordered, never both
    assert placement.covers == (x0 >= 0 and y0 >= 0 and x1 <= placement.resized_px[0] and y1 <= placement.resized_px[1])
    if zoom >= 1:
        assert placement.covers


def test_a_strip_is_shown_whole() -> None:
    """1:8 in buckets of at most 1:4 would lose half; it gets a border instead."""
    assert Buckets(512).assign(2048, 256).cropped == pytest.approx(0.5)
    placement = Buckets(512, most_cropped=0.25).assign(2048, 256)
    assert placement == fit(2048, 256, bucket=Bucket(1024, 256))
    assert placement.shown_px == (0, 64, 1024, 192) and placement.top_px == -64 and not placement.covers
    assert crop_report([placement])["bordered"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target_px": 512, "most_cropped": 1.5}, "most_cropped = 1.5"),
        ({"target_px": 512, "step_px": 12}, "step_px = 12"),
        ({"target_px": 32}, "target_px = 32"),
        ({"target_px": 512, "minimum_px": 512, "maximum_px": 256}, "maximum_px = 256"),
        ({"target_px": 512, "minimum_px": 640}, "no bucket"),
    ],
)
def test_wrong_settings(arguments: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Buckets(**arguments)


def test_no_size() -> None:
    with pytest.raises(DataError, match="0x5"):
        Buckets(64).assign(0, 5)
