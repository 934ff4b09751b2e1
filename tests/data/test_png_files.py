"""PNG files by their chunks: damage is found, and the first rows are those of the whole."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from lib_pivotal.data.png_files import first_rows, read_chunks

Save = Callable[..., bytes]


def saved(picture: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", **options)
    return file.getvalue()


def noisy(mode: str = "RGB", size: tuple[int, int] = (37, 53)) -> Image.Image:
    rng = np.random.default_rng(1)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 4), dtype=np.uint8), "RGBA").convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"])
@pytest.mark.parametrize("rows", [1, 15, 52, 53])
def test_first_rows_are_those_of_the_whole(mode: str, rows: int) -> None:
    deep = Image.fromarray(np.arange(37 * 53, dtype=np.uint16).reshape(53, 37) * 33)
    data = saved(deep if mode == "I;16" else noisy(mode))
    cut = first_rows(data, rows)
    assert cut is not None
    with Image.open(io.BytesIO(data)) as whole, Image.open(io.BytesIO(cut)) as first:
        assert first.size == (37, rows) and first.mode == whole.mode and first.info == whole.info
        assert np.array_equal(np.asarray(first), np.asarray(whole.crop((0, 0, 37, rows))))


def test_first_rows_of_a_large_file_with_small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.ImageFile.MAXBLOCK", 8192)
    data = saved(noisy(size=(400, 300)))
    assert data.count(b"IDAT") > 5
    with Image.open(io.BytesIO(first_rows(data, 90) or b"")) as first:
        assert np.array_equal(np.asarray(first), np.asarray(noisy(size=(400, 300)))[:90])


def test_no_first_rows() -> None:
    data = saved(noisy())
    interlaced = bytearray(data)
    interlaced[28] = 1
    assert first_rows(bytes(interlaced), 5) is None
    assert first_rows(data, 0) is None and first_rows(data, 54) is None
    assert first_rows(b"", 1) is None and first_rows(data[:30], 1) is None and first_rows(b"GIF89a" + data, 1) is None


def test_a_whole_file() -> None:
    chunks = read_chunks(saved(noisy()))
    assert chunks.complete and chunks.sound and not chunks.turned and not chunks.animated
    trailing = read_chunks(saved(noisy()) + b"more")
    assert trailing.complete and trailing.sound


def test_what_chunks_say() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_chunks(saved(noisy(), exif=exif.tobytes())).turned
    xmp = PngImagePlugin.PngInfo()
    xmp.add_itxt("XML:com.adobe.xmp", "<x/>")
    assert read_chunks(saved(noisy(), pnginfo=xmp)).turned
    assert read_chunks(saved(noisy(), save_all=True, append_images=[noisy("L").convert("RGB")])).animated


@settings(max_examples=80)
@given(st.data())
def test_every_flipped_bit_and_every_cut_is_found(data: st.DataObject) -> None:
    whole = saved(noisy())
    place = data.draw(st.integers(8, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    assert not read_chunks(bytes(damaged)).sound
    cut = read_chunks(whole[:place])
    assert not cut.complete and not cut.sound


def test_no_png_at_all() -> None:
    for data in (b"", b"text", b"\x00" * 100, b"\xff" * 100):
        assert not read_chunks(data).complete
