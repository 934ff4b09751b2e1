"""Views: where cuts lie, what Custom Diffusion's sizes do, that nothing depends on anything but seed and name."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_pivotal.data.buckets import Bucket, Buckets
from lib_pivotal.data.crops import FAR_BELOW, PHRASES, Crop, Crops, find_focus, phrase, with_focus
from lib_pivotal.data.records import Picture
from lib_pivotal.errors import DataError


def _picture(width: int = 100, height: int = 100, *, key: str = "a.png", focus: tuple | None = None) -> Picture:
    return Picture(
        key=key, path=Path(key), caption="x", width_px=width, height_px=height, concept="x", focus_px=focus
    )  # fmt: skip


def test_one_plain_view() -> None:
    for crop in ("centre", "top"):
        buckets = Buckets(512, crop=crop)
        assert Crops(buckets, crops=5).of(_picture(300, 700)) == (Crop(buckets.assign(300, 700)),)
    assert Crops(Buckets(512, crop="face"), crops=3).of(_picture(300, 700)) == (Crop(Buckets(512).assign(300, 700)),)


def test_random_crops_reach_all_over() -> None:
    views = Crops(Buckets(64, bucketing=False, crop="random"), crops=40).of(_picture(200, 100))
    lefts = [view.placement.left_px for view in views]
    assert all(view.placement.covers and view.placement.resized_px == (128, 64) for view in views)
    assert min(lefts) < 8 and max(lefts) > 56 and all(view.placement.top_px == 0 for view in views)
    assert len(views) == len(set(views)) > 20
    again = Crops(Buckets(64, bucketing=False, crop="random"), crops=40).of(_picture(200, 100))
    other = Crops(Buckets(64, bucketing=False, crop="random"), crops=40, seed=1).of(_picture(200, 100))
    assert again == views != other
    assert Crops(Buckets(64, bucketing=False, crop="random")).of(_picture(200, 100)) == views[:1]


@given(
    size=st.tuples(st.integers(20, 2000), st.integers(20, 2000)),
    corner=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    extent=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
)
def test_a_face_stays_in_sight(size: tuple[int, int], corner: tuple[float, float], extent: tuple[float, float]) -> None:
    left, top = size[0] * corner[0], size[1] * corner[1]
    box = (left, top, left + (size[0] - left) * extent[0], top + (size[1] - top) * extent[1])
    views = Crops(Buckets(64, bucketing=False, crop="face"), crops=4).of(_picture(*size, focus=box))
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
        for view in Crops(Buckets(512), scale=True).of(_picture(512, 512, key=f"{number}.png"))
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
    views = Crops(buckets, crops=4, scale=True).of(_picture(2048, 256))
    assert views == (Crop(buckets.assign(2048, 256)),) and not views[0].placement.covers


def test_pictures_for_scores_are_shown_plainly() -> None:
    buckets = Buckets(64, bucketing=False, crop="random")
    views = Crops(buckets, crops=8, scale=True, plain={"held.png"})
    assert views.of(_picture(200, 100, key="held.png")) == (Crop(buckets.assign(200, 100)),)
    assert len(views.of(_picture(200, 100, key="other.png"))) > 1


def test_wrong_settings() -> None:
    with pytest.raises(DataError, match="crops = 0"):
        Crops(Buckets(64), crops=0)


def _pictured(folder: Path, stem: str = "a", told: Any = None, name: str = "{stem}.json") -> Picture:
    if told is not None:
        text = told if isinstance(told, str) else json.dumps(told)
        (folder / name.format(stem=stem)).write_text(text, encoding="utf-8")
    return Picture(f"{stem}.png", folder / f"{stem}.png", "x", 200, 100, "x")


@pytest.mark.parametrize(
    ("told", "box"),
    [
        ({"face": [10, 20, 60, 70]}, (10, 20, 60, 70)),
        ({"faces": [[10, 20, 20, 30], [50, 0, 110, 60]]}, (50, 0, 110, 60)),  # the largest
        ({"faces": [{"box": [1, 2, 30, 40], "score": 0.9}]}, (1, 2, 30, 40)),
        ({"face": {"bbox": [0, 0, 20, 20]}}, (0, 0, 20, 20)),
        ({"focus": [0.5, 0.25, 1.0, 0.75]}, (100, 25, 200, 75)),  # shares of the sides
        ({"box": [-5, -5, 900, 50]}, (0, 0, 200, 50)),  # cut to the picture
        ({"face": [60, 20, 10, 70]}, None),
        ({"face": [1, 2, 3]}, None),
        ({"face": ["a", 2, 3, 4]}, None),
        ({"face": [True, 0, 1, 1]}, None),
        ({"face": []}, None),
        ({"tags": "aoi"}, None),
        ([1, 2, 3, 4], None),
        ("not json", None),
    ],
)
def test_json_beside_the_picture(tmp_path: Path, told: Any, box: tuple | None) -> None:
    assert find_focus(_pictured(tmp_path, told=told)) == box


def test_other_places(tmp_path: Path) -> None:
    assert find_focus(_pictured(tmp_path, "b", {"face": [1, 2, 3, 4]}, "{stem}.png.json")) == (1, 2, 3, 4)
    assert find_focus(_pictured(tmp_path, "c")) is None
    kohya = find_focus(_pictured(tmp_path, "aoi_0100_0040_0020_0030"))
    assert kohya == (90, 25, 110, 55)
    assert find_focus(_pictured(tmp_path, "aoi_100_40_20_30")) is None


def test_a_given_box_is_kept(tmp_path: Path) -> None:
    plain = _pictured(tmp_path, told={"face": [10, 20, 60, 70]})
    given = Picture("g.png", tmp_path / "g.png", "x", 200, 100, "x", focus_px=(0, 0, 5, 5))
    assert [picture.focus_px for picture in with_focus([plain, given])] == [(10, 20, 60, 70), (0, 0, 5, 5)]
