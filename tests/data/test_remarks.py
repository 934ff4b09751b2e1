"""What is told of cuts and mirrors."""

from __future__ import annotations

from pathlib import Path

from lib_pivotal.data.buckets import Buckets
from lib_pivotal.data.records import Picture
from lib_pivotal.data.remarks import cut_remarks, mirror_remarks


def _picture(key: str, size: tuple[int, int] = (64, 64), caption: str = "x") -> Picture:
    return Picture(key, Path(key), caption, *size, "x")


def test_nothing_where_everything_fits() -> None:
    assert cut_remarks([_picture("a"), _picture("b")], Buckets(64)) == []
    assert cut_remarks([], Buckets(64)) == []


def test_one_line_of_all() -> None:
    pictures = [
        _picture("a", (512, 512)),
        _picture("b", (100, 100)),
        _picture("c", (3000, 500)),
        _picture("d", (9, 90)),
    ]
    (remark,) = cut_remarks(pictures, Buckets(512, most_cropped=0.4))
    assert remark.level == "info" and remark.keys == ("b", "d")
    assert remark.message == (
        "4 pictures in 3 sizes; 8% is cut off on average, 33% at most; 2 are enlarged; 1 is shown in full with a "
        "border: "
        "cutting would take too much."
    )


def test_only_mirrored_pictures_are_warned_of() -> None:
    pictures = [_picture("a", caption="aoi, eyepatch"), _picture("b", caption="hana, eyepatch")]
    assert [p.keys for p in mirror_remarks(pictures, words=["aoi", "hana"], keys={"a", "b"})] == [("a",), ("b",)]
    assert [p.keys for p in mirror_remarks(pictures, words=["aoi", "hana"], keys={"b"})] == [("b",)]
    assert mirror_remarks(pictures, words=["aoi", "hana"], keys=()) == []
