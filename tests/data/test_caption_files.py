"""A changed caption is found by the next scan, and what somebody else wrote meanwhile is never overwritten."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lib_pivotal.data.caption_files import caption_place, file_text, save_caption
from lib_pivotal.data.dataset import scan
from lib_pivotal.errors import DataError


@pytest.mark.parametrize("name", ["a.txt", "a.png.txt", "A.TXT", "a.caption", ""])
def test_the_scan_reads_what_was_saved(tmp_path: Path, add: Callable[..., Path], name: str) -> None:
    picture = add("set/a.png", (64, 64))
    if name:
        (picture.parent / name).write_text("old")
    place = save_caption(picture, " aoi, smile\nhat ", before="old" if name else "")
    assert place.name == (name or "a.txt") and place.read_bytes() == b"aoi, smile\nhat\n"
    assert scan(tmp_path / "set")["a.png"].caption == "aoi, smile, hat"
    assert sorted(path.name for path in picture.parent.iterdir()) == sorted(["a.png", place.name])


def test_the_same_file_as_the_scan_where_there_are_several(tmp_path: Path, add: Callable[..., Path]) -> None:
    picture = add("set/a.png", (64, 64))
    for name in ("a.caption", "a.png.txt", "a.txt"):
        (picture.parent / name).write_text(name)
        assert file_text(picture) == scan(tmp_path / "set")["a.png"].caption == name


def test_a_change_from_elsewhere_is_kept(add: Callable[..., Path]) -> None:
    picture = add("a.png", (64, 64), caption="old")
    caption_place(picture).write_text("from elsewhere")
    with pytest.raises(DataError, match="another program has changed"):
        save_caption(picture, "mine", before="old")
    assert file_text(picture) == "from elsewhere"


def test_a_backup_only_when_asked_and_the_oldest_stays(add: Callable[..., Path]) -> None:
    picture = add("a.png", (64, 64), caption="first")
    kept = picture.with_name("a.txt.bak")
    save_caption(picture, "second", before="first")
    assert not kept.exists()
    save_caption(picture, "third", before=file_text(picture), backup=True)
    save_caption(picture, "fourth", before=file_text(picture), backup=True)
    assert kept.read_text() == "second\n" and file_text(picture) == "fourth"


def test_a_place_that_cannot_be_written(add: Callable[..., Path]) -> None:
    picture = add("a.png", (64, 64))
    (picture.parent / "a.txt").mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        save_caption(picture, "mine", before="")
