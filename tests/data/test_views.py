"""Views: where cuts lie, what Custom Diffusion's sizes do, that nothing depends on anything but seed and name."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_pivotal.data.buckets import Bucket, Buckets
from lib_pivotal.data.records import Picture
from lib_pivotal.data.views import FAR_BELOW, PHRASES, View, Views, phrase
from lib_pivotal.errors import DataError


def _picture(width: int = 100, height: int = 100, *, key: str = "a.png", focus: tuple | None = None) -> Picture:
    return Picture(
        key=key, path=Path(key), caption="x", width_px=width, height_px=height, concept="x", focus_px=focus
    )  # fmt: skip


def test_one_plain_view() -> None:
    for crop in ("centre", "top"):
        buckets = Buckets(512, crop=crop)
        assert Views(buckets, crops=5).of(_picture(300, 700)) == (View(buckets.assign(300, 700)),)
    assert Views(Buckets(512, crop="face"), crops=3).of(_picture(300, 700)) == (View(Buckets(512).assign(300, 700)),)


def test_random_crops_reach_all_over() -> None:
    views = Views(Buckets(64, bucketing=False, crop="random"), crops=40).of(_picture(200, 100))
    lefts = [view.placement.left_px for view in views]
    assert all(view.placement.covers and view.placement.resized_px == (128, 64) for view in views)
    assert min(lefts) < 8 and max(lefts) > 56 and all(view.placement.top_px == 0 for view in views)
    assert len(views) == len(set(views)) > 20
    again = Views(Buckets(64, bucketing=False, crop="random"), crops=40).of(_picture(200, 100))
    other = Views(Buckets(64, bucketing=False, crop="random"), crops=40, seed=1).of(_picture(200, 100))
    assert again == views != other
    assert Views(Buckets(64, bucketing=False, crop="random")).of(_picture(200, 100)) == views[:1]


@given(
    size=st.tuples(st.integers(20, 2000), st.integers(20, 2000)),
    corner=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    extent=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
)
def test_a_face_stays_in_sight(size: tuple[int, int], corner: tuple[float, float], extent: tuple[float, float]) -> None:
    left, top = size[0] * corner[0], size[1] * corner[1]
    box = (left, top, left + (size[0] - left) * extent[0], top + (size[1] - top) * extent[1])
    views = Views(Buckets(64, bucketing=False, crop="face"), crops=4).of(_picture(*size, focus=box))
    for view in views:
        place = view.placement
        for axis in range(2):
            scale = place.resized_px[axis] / size[axis]
            begin, end, cut = box[axis] * scale, box[axis + 2] * scale, place.box_px[axis]
            if end - begin <= 62:  # it fits, a pixel of rounding at each side
                assert cut <= begin + 1 and cut + 64 >= end - 1
            middle = min(max((begin + end) / 2, 32), place.resized_px[axis] - 32)
            if view is views[0]:
                assert abs(cut + 32 - middle) <= 1


def test_custom_diffusions_sizes() -> None:
    """Two thirds drawn from [1/3, 1], of which those from 0.6 on are shown plainly; one third 1.2 to 1.4 as large."""
    views = [
        view
        for number in range(3000)
        for view in Views(Buckets(512), scale=True).of(_picture(512, 512, key=f"{number}.png"))
    ]
    count = Counter(view.distance for view in views)
    far = 2 / 3 * (FAR_BELOW - 1 / 3) / (2 / 3)
    assert count["far"] / 3000 == pytest.approx(far, abs=0.03)
    assert count["near"] / 3000 == pytest.approx(1 / 3, abs=0.03)
    for view in views:
        width = view.placement.resized_px[0]
        assert width in {"far": range(170, 308), "near": range(614, 718), "": (512,)}[view.distance]
        assert view.placement.covers == (view.distance != "far") and view.placement.bucket == Bucket(512, 512)
    lefts = [-v.placement.left_px / (512 - v.placement.resized_px[0]) for v in views if v.distance == "far"]
    assert min(lefts) < 0.02 and max(lefts) > 0.98


def test_phrases() -> None:
    drawn = {phrase("far", random.Random(seed)) for seed in range(40)}
    assert drawn == set(PHRASES["far"]) == {"a far away ", "very small "}
    assert {phrase("near", random.Random(seed)) for seed in range(40)} == {"zoomed in ", "close up "}
    assert phrase("", random.Random(0)) == ""


def test_a_bordered_picture_has_one_view() -> None:
    buckets = Buckets(512, most_cropped=0.2, crop="random")
    views = Views(buckets, crops=4, scale=True).of(_picture(2048, 256))
    assert views == (View(buckets.assign(2048, 256)),) and not views[0].placement.covers


def test_pictures_for_scores_are_shown_plainly() -> None:
    buckets = Buckets(64, bucketing=False, crop="random")
    views = Views(buckets, crops=8, scale=True, plain={"held.png"})
    assert views.of(_picture(200, 100, key="held.png")) == (View(buckets.assign(200, 100)),)
    assert len(views.of(_picture(200, 100, key="other.png"))) > 1


def test_wrong_settings() -> None:
    with pytest.raises(DataError, match="crops = 0"):
        Views(Buckets(64), crops=0)
