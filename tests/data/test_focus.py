"""Boxes from files and names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lib_pivotal.data.focus import find_focus, with_focus
from lib_pivotal.data.records import Picture


def _picture(folder: Path, stem: str = "a", told: Any = None, name: str = "{stem}.json") -> Picture:
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
    assert find_focus(_picture(tmp_path, told=told)) == box


def test_other_places(tmp_path: Path) -> None:
    assert find_focus(_picture(tmp_path, "b", {"face": [1, 2, 3, 4]}, "{stem}.png.json")) == (1, 2, 3, 4)
    assert find_focus(_picture(tmp_path, "c")) is None
    kohya = find_focus(_picture(tmp_path, "aoi_0100_0040_0020_0030"))
    assert kohya == (90, 25, 110, 55)
    assert find_focus(_picture(tmp_path, "aoi_100_40_20_30")) is None


def test_a_given_box_is_kept(tmp_path: Path) -> None:
    plain = _picture(tmp_path, told={"face": [10, 20, 60, 70]})
    given = Picture("g.png", tmp_path / "g.png", "x", 200, 100, "x", focus_px=(0, 0, 5, 5))
    assert [picture.focus_px for picture in with_focus([plain, given])] == [(10, 20, 60, 70), (0, 0, 5, 5)]
