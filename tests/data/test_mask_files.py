"""A painted mask is found by the next scan, weighs what was painted, and is written whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib_pivotal.data.dataset import scan
from lib_pivotal.data.mask_files import heat_map, mask_place, paint, remove_mask, save_mask
from lib_pivotal.data.masks import read_mask
from lib_pivotal.errors import DataError


@pytest.mark.parametrize("others", [False, True])
def test_the_scan_finds_what_was_painted(tmp_path: Path, add: Callable[..., Path], others: bool) -> None:
    path = add("set/a/Aoi.1.png", (80, 40), caption="x")
    if others:  # masks in every other place, which the painted one comes before
        for name in (
            "set/a/masks/Aoi.1.png",
            "set/mask/a/Aoi.1.png",
            "set/a/Aoi.1-masklabel.png",
            "set/a/mask/Aoi.1.jpg",
        ):
            add(name, (80, 40))
    painted = Image.new("L", (40, 20), 0)
    painted.paste(130, (0, 0, 20, 20))
    place = save_mask(path, painted)
    picture = scan(tmp_path / "set")["a/Aoi.1.png"]
    assert picture.mask_path == place == mask_place(path)
    assert np.array_equal(np.asarray(read_mask(place)), np.asarray(painted))
    save_mask(path, Image.new("RGB", (80, 40), (255, 255, 255)))
    assert np.asarray(read_mask(place)).min() == 255
    assert remove_mask(path) and not remove_mask(path)
    assert (scan(tmp_path / "set")["a/Aoi.1.png"].mask_path is None) != others


def test_transparent_paint_is_black(tmp_path: Path, add: Callable[..., Path]) -> None:
    path = add("a.png")
    painted = Image.new("RGBA", (64, 64), (255, 255, 255, 0))
    painted.paste((255, 255, 255, 255), (0, 0, 32, 64))
    grey = np.asarray(read_mask(save_mask(path, painted)))
    assert grey[:, :32].min() == 255 and grey[:, 32:].max() == 0


def test_a_turned_picture_is_painted_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 40), "red").save(tmp_path / "a.jpg", exif=exif)
    save_mask(tmp_path / "a.jpg", Image.new("L", (40, 80), 255))
    with pytest.raises(DataError, match="80x40 px does not fit a picture of 40x80"):
        save_mask(tmp_path / "a.jpg", Image.new("L", (80, 40), 255))


def test_an_existing_folder_of_any_case_is_used(tmp_path: Path, add: Callable[..., Path]) -> None:
    path = add("a.png")
    (tmp_path / "Mask").mkdir()
    assert save_mask(path, Image.new("L", (64, 64), 255)) == tmp_path / "Mask" / "a.png"
    assert scan(tmp_path)["a.png"].mask_path == tmp_path / "Mask" / "a.png"


def test_a_failed_write_leaves_the_old_mask(tmp_path: Path, add: Callable[..., Path], monkeypatch) -> None:
    path = add("a.png")
    place = save_mask(path, Image.new("L", (64, 64), 77))

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DataError, match="No space left"):
        save_mask(path, Image.new("L", (64, 64), 255))
    monkeypatch.undo()
    assert np.asarray(read_mask(place)).max() == 77
    assert [item.name for item in place.parent.iterdir()] == ["a.png"]


def test_painting() -> None:
    strokes = Image.new("RGB", (20, 10), 0)
    strokes.paste((255, 255, 255), (0, 0, 10, 10))
    fresh = np.asarray(paint(None, strokes, weight=1.0, rest=0.2, size=(40, 20)))
    assert fresh.shape == (20, 40) and fresh[:, :18].min() == 255 and set(fresh[:, 22:].ravel()) == {51}
    now = Image.new("L", (8, 4), 200)
    over = np.asarray(paint(now, strokes, weight=0.5, rest=0.0, size=(40, 20)))
    assert set(over[:, :18].ravel()) == {128} and set(over[:, 22:].ravel()) == {200}
    assert np.asarray(now).max() == 200  # the old mask is not touched
    untouched = paint(now, Image.new("L", (20, 10), 0), weight=1.0, rest=0.0, size=(8, 4))
    assert np.array_equal(np.asarray(untouched), np.asarray(now))


def test_heat_map() -> None:
    shown = np.asarray(heat_map(Image.new("RGB", (8, 8), (90, 90, 90)), Image.linear_gradient("L"))).astype(int)
    assert shown.shape == (8, 8, 3) and shown[0, 0, 0] - shown[0, 0, 2] < 30 < shown[7, 0, 0] - shown[7, 0, 2]
