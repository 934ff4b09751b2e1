"""Thumbnails: right, once, and no more than may be held."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from lib_pivotal.byte_cache import ByteCache
from lib_pivotal.ui import thumbs
from lib_pivotal.ui.thumbs import Thumbs, data_uri


def _opened(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_small_pictures_are_not_touched_and_large_ones_shrink(tmp_path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(_opened(data_uri(tmp_path / "a.png", 64))), noise)
    for name in ("b.jpg", "b.webp", "b.png"):
        Image.new("RGB", (900, 300), (10, 200, 30)).save(tmp_path / name)
        small = _opened(data_uri(tmp_path / name, 90)).convert("RGB")
        assert small.size == (90, 30) and np.allclose(np.asarray(small), (10, 200, 30), atol=6)


def test_what_is_transparent_or_deep_looks_as_it_is_trained(tmp_path) -> None:
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert _opened(data_uri(tmp_path / "clear.png", 32)).convert("RGB").getpixel((3, 3)) == (255, 255, 255)
    Image.fromarray(np.full((20, 20), 32768, dtype=np.uint16)).save(tmp_path / "deep.png")
    assert abs(_opened(data_uri(tmp_path / "deep.png", 32)).convert("L").getpixel((3, 3)) - 128) <= 1


def test_each_is_made_once_until_its_file_changes(tmp_path, monkeypatch) -> None:
    made = []
    monkeypatch.setattr(thumbs, "data_uri", lambda path, side: made.append(path.name) or data_uri(path, side))
    paths = [tmp_path / f"{n}.png" for n in range(5)]
    for path in paths:
        Image.new("RGB", (30, 30), "red").save(path)
    small = Thumbs(16)
    first = small.of([*paths, tmp_path / "none.png"])
    assert small.of(paths) == first[:5] and first[5] == "" and sorted(made) == [p.name for p in paths]
    Image.new("RGB", (31, 30), "blue").save(paths[0])
    assert small.of(paths)[0] != first[0] and len(made) == 6
    small.ahead(paths)
    assert small.of(paths)[1] == first[1] and len(made) == 6


def test_only_so_much_is_held(tmp_path) -> None:
    paths = [tmp_path / f"{n}.png" for n in range(8)]
    for number, path in enumerate(paths):
        Image.new("RGB", (30, 30), (number, 0, 0)).save(path)
    small = Thumbs(16, most_bytes=1500)
    small.of(paths)
    assert sum(map(len, small._made.values())) <= 1500 and small._made


def test_single_thumbnails_are_kept_by_bytes_and_made_once(tmp_path, monkeypatch) -> None:
    """Large ones, as the caption editor shows: 500 of them would be hundreds of megabytes."""
    kept = ByteCache(3000)
    made = []
    monkeypatch.setattr(thumbs, "_singles", kept)
    monkeypatch.setattr(thumbs, "data_uri", lambda path, side: made.append(path.name) or "x" * 900)
    paths = [tmp_path / f"{n}.png" for n in range(5)]
    for path in paths:
        path.write_bytes(b"")
        assert thumbs.thumbnail(path, 16) == thumbs.thumbnail(path, 16) == "x" * 900
    assert made == [path.name for path in paths]
    assert 0 < kept.held_bytes <= 3000 and len(kept) == 2
    thumbs.thumbnail(paths[-1], 32)
    assert len(made) == 6, "another size is another thumbnail"
    assert thumbs.thumbnail(tmp_path / "none.png", 16) == ""


def test_pictures_that_cannot_be_read_take_room_too(tmp_path) -> None:
    small = Thumbs(16, most_bytes=3 * thumbs.ENTRY_BYTES)
    for number in range(8):
        (tmp_path / f"{number}.png").write_text("no picture")
    assert small.of(sorted(tmp_path.glob("*.png"))) == [""] * 8
    assert len(small._made) == 3
