"""Pictures at the limits of Pillow: huge ones meet our own limit and a remedy; long texts and profiles cost none."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from lib_pivotal.data.dataset import scan
from lib_pivotal.data.pictures import MOST_PIXELS, inspect, look, open_picture, whole_print
from lib_pivotal.errors import DataError
from lib_pivotal.standalone.cli import main
from tests.conftest import write_pictures


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(size: tuple[int, int] = (64, 64), mode: str = "RGB") -> bytes:
    small = Image.new(mode, (8, 8))
    small.putdata([tuple(random.Random(n).randbytes(len(mode))) for n in range(64)])
    out = io.BytesIO()
    small.resize(size, Image.Resampling.NEAREST).save(out, "PNG")
    return out.getvalue()


def claiming(width: int, height: int) -> bytes:
    """A small file whose header says that it is huge."""
    data = png()
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def with_chunk(extra: bytes, *, before_pixels: bool) -> bytes:
    data = png()
    place = data.index(b"IDAT") - 4 if before_pixels else data.index(b"IEND") - 4
    return data[:place] + extra + data[place:]


LONG = b"x" * (3 * 2**20)
BURDENS = {
    "zTXt": chunk(b"zTXt", b"workflow\0\0" + zlib.compress(LONG)),
    "iTXt": chunk(b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(LONG)),
    "iCCP": chunk(b"iCCP", b"profile\0\0" + zlib.compress(LONG)),
    "many": b"".join(chunk(b"zTXt", b"w\0\0" + zlib.compress(b"y" * (2**20 - 1))) for _ in range(70)),
}


@pytest.mark.parametrize("size", [(20_000, 12_000), (12_000, 12_000), (60_000, 60_000), (2**27 + 1, 1)])
def test_a_huge_picture_is_refused_by_our_limit_with_a_remedy_that_helps(
    size: tuple[int, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_pictures(tmp_path / "set", {"ok": "aoi, ok"})
    (root / "big.png").write_bytes(claiming(*size))
    assert main(["scan", str(root)]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "big.png" in line)
    assert "megapixels" in line and "Scale it down" in line and "bomb" not in line and "save it again" not in line
    for function in (inspect, look, whole_print, open_picture):
        with pytest.raises(DataError, match="Scale it down"):
            function(root / "big.png")


def test_our_limit_comes_before_pillows() -> None:
    assert Image.MAX_IMAGE_PIXELS is None or MOST_PIXELS < 2 * Image.MAX_IMAGE_PIXELS


def test_a_limit_that_the_process_around_has_set_is_told_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(png((64, 64)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match=r"more than the 0\.002 that are read here. Scale it down"):
        inspect(tmp_path / "a.png")


@pytest.mark.parametrize("before_pixels", [True, False], ids=["before", "behind"])
@pytest.mark.parametrize("kind", BURDENS)
def test_long_texts_and_profiles_do_not_cost_a_picture(kind: str, before_pixels: bool, tmp_path: Path) -> None:
    if kind == "iCCP" and not before_pixels:
        pytest.skip("a profile stands before the pixels")
    root = write_pictures(tmp_path / "set", {})
    root.mkdir(exist_ok=True)
    (root / "a.png").write_bytes(with_chunk(BURDENS[kind], before_pixels=before_pixels))
    (root / "b.png").write_bytes(png())
    with pytest.raises(ValueError), Image.open(root / "a.png") as image:  # else this tests nothing
        image.load()
    found = scan(root)
    assert {picture.key for picture in found.pictures} == {"a.png", "b.png"}
    assert open_picture(root / "a.png").tobytes() == open_picture(root / "b.png").tobytes()
    assert look(root / "a.png").top == look(root / "b.png").top
    assert whole_print(root / "a.png") == whole_print(root / "b.png")
    assert inspect(root / "a.png", full=True) == inspect(root / "b.png")


def test_texts_of_usual_length_stay(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "aoi, hat " * 200, zip=True)
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png", pnginfo=info)
    assert inspect(tmp_path / "a.png").width_px == 64


def test_a_damaged_picture_with_a_long_text_is_still_damaged(tmp_path: Path) -> None:
    data = with_chunk(BURDENS["zTXt"], before_pixels=True)
    (tmp_path / "a.png").write_bytes(data[:-40])
    with pytest.raises(DataError, match="cannot be read as a picture"):
        open_picture(tmp_path / "a.png")
