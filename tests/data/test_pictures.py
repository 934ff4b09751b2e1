"""Real files of every awkward kind."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from lib_pivotal.data.dataset import scan
from lib_pivotal.data.fingerprints import fingerprint, top_of
from lib_pivotal.data.pictures import (
    background,
    file_sha256,
    flatten,
    inspect,
    look,
    open_picture,
    open_rgba,
    whole_print,
)
from lib_pivotal.errors import DataError

RED, BLUE = (255, 0, 0), (0, 0, 255)


def _halves(size: tuple[int, int] = (40, 20)) -> Image.Image:
    """Left half red, right half blue."""
    image = Image.new("RGB", size, BLUE)
    image.paste(RED, (0, 0, size[0] // 2, size[1]))
    return image


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.bmp", "a.tif"])
def test_lossless_formats_open_exactly(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    _halves().save(path, **({"lossless": True} if name.endswith("webp") else {}))
    assert np.array_equal(np.asarray(open_picture(path)), np.asarray(_halves()))
    facts = inspect(path)
    assert (facts.width_px, facts.height_px, facts.has_alpha, facts.frames) == (40, 20, False, 1)


@pytest.mark.parametrize("extension", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_picture(tmp_path: Path, extension: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{extension}"
    _halves((64, 32)).save(path, exif=exif.tobytes(), quality=95)
    upright = open_picture(path)
    facts = inspect(path)
    assert upright.size == (facts.width_px, facts.height_px)
    assert upright.size == ((32, 64) if orientation >= 5 else (64, 32))
    # EXIF 2.3, table 4: where the stored left edge (red) is to be shown
    edge = {1: "left", 2: "right", 3: "right", 4: "left", 5: "top", 6: "top", 7: "bottom", 8: "bottom"}[orientation]
    width, height = upright.size
    spot = {"left": (2, height // 2), "right": (width - 3, height // 2),
            "top": (width // 2, 2), "bottom": (width // 2, height - 3)}[edge]  # fmt: skip
    red, _, blue = upright.getpixel(spot)
    assert red > 200 and blue < 60


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.linspace(0, 65_535, 256).astype(np.uint16).reshape(16, 16)
    path = tmp_path / "grey16.png"
    Image.fromarray(values).save(path)
    opened = np.asarray(open_picture(path))
    assert np.array_equal(opened[..., 0], np.rint(values / 257.0).astype(np.uint8))
    assert np.array_equal(opened[..., 0], opened[..., 2])


def test_dark_sixteen_bit_grey_stays_dark(tmp_path: Path) -> None:
    path = tmp_path / "dark.png"
    Image.fromarray(np.full((16, 16), 200, dtype=np.uint16)).save(path)
    assert np.asarray(open_picture(path)).max() == 1


def test_thirty_two_bit_and_float_tiff(tmp_path: Path) -> None:
    large = np.array([[0, 2**30], [2**31 - 1, 2**29]], dtype=np.int32)
    Image.fromarray(large, mode="I").save(tmp_path / "i.tif")
    assert np.asarray(open_picture(tmp_path / "i.tif"))[..., 0].tolist() == [[0, 128], [255, 64]]
    Image.fromarray(np.array([[0.0, 0.5], [1.0, 0.25]], dtype=np.float32)).save(tmp_path / "f.tif")
    assert np.asarray(open_picture(tmp_path / "f.tif"))[..., 0].tolist() == [[0, 128], [255, 64]]


def test_sixteen_bit_rgb_png(tmp_path: Path) -> None:
    """Pillow cannot write one, so it is written by hand: 2x1 pixels, full red and half blue."""
    row = b"\x00" + struct.pack(">6H", 65_535, 0, 0, 0, 0, 32_896)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(row)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    path = tmp_path / "rgb16.png"
    path.write_bytes(data)
    assert np.asarray(open_picture(path)).tolist() == [[[255, 0, 0], [0, 0, 128]]]


def test_cmyk_jpeg(tmp_path: Path) -> None:
    path = tmp_path / "print.jpg"
    Image.new("RGB", (32, 32), RED).convert("CMYK").save(path, quality=95)
    red, green, blue = open_picture(path).getpixel((16, 16))
    assert red > 240 and green < 15 and blue < 15


@pytest.mark.parametrize("mode", ["L", "1", "LA", "P", "RGBA"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (16, 16), (255, 255, 255)).convert(mode).save(path)
    opened = open_picture(path)
    assert opened.mode == "RGB"
    assert min(opened.getpixel((8, 8))) > 250


def test_transparency_lies_over_the_background(tmp_path: Path) -> None:
    image = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 8, 16))
    path = tmp_path / "clear.png"
    image.save(path)
    assert inspect(path).has_alpha
    white, green = open_picture(path), open_picture(path, background=(0, 255, 0))
    assert white.getpixel((2, 2)) == BLUE and white.getpixel((12, 2)) == (255, 255, 255)
    assert green.getpixel((12, 2)) == (0, 255, 0)
    _, alpha = open_rgba(path)
    assert alpha is not None and alpha.getpixel((2, 2)) == 255 and alpha.getpixel((12, 2)) == 0


def test_palette_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (16, 16), 1)
    image.putpalette([255, 0, 0, 0, 0, 255, 0, 255, 0])
    image.paste(0, (0, 0, 8, 16))
    for name in ("a.png", "a.gif"):
        image.save(tmp_path / name, transparency=0)
        opened = open_picture(tmp_path / name, background=(9, 9, 9))
        assert opened.getpixel((2, 2)) == (9, 9, 9) and opened.getpixel((12, 2)) == BLUE


def test_rgb_with_a_transparent_colour(tmp_path: Path) -> None:
    path = tmp_path / "key.png"
    _halves().save(path, transparency=RED)
    assert open_picture(path).getpixel((2, 2)) == (255, 255, 255)


def test_opaque_alpha_counts_as_none(tmp_path: Path) -> None:
    path = tmp_path / "opaque.png"
    _halves().convert("RGBA").save(path)
    assert open_rgba(path)[1] is None


@pytest.mark.parametrize("extension", ["gif", "webp", "png"])
def test_animations_give_their_first_frame(tmp_path: Path, extension: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in (RED, BLUE, (0, 255, 0))]
    path = tmp_path / f"moving.{extension}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50)
    assert inspect(path).frames == 3
    red, _, blue = open_picture(path).getpixel((10, 10))
    assert red > 240 and blue < 15


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "gif", "bmp"])
@pytest.mark.parametrize("kept", [0.05, 0.5, 0.98])
def test_cut_off_files_are_found_without_decoding_all(tmp_path: Path, extension: str, kept: float) -> None:
    path = tmp_path / f"cut.{extension}"
    Image.effect_noise((64, 64), 80).convert("RGB").save(path)
    inspect(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(DataError, match=rf"cut\.{extension}: cannot be read as a picture"):
        inspect(path)


def test_a_host_that_accepts_cut_off_files_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cut.jpg"
    Image.effect_noise((64, 64), 80).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:-400])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(DataError, match="the end of the file is missing"):
        inspect(path)


def test_trailing_bytes_are_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "phone.jpg"
    _halves((64, 64)).save(path)
    with path.open("ab") as file:
        file.write(b"\x00" * 70_000)  # more than the tail that is looked at
    assert inspect(path).width_px == 64


def test_a_damaged_middle_is_found_by_the_full_check(tmp_path: Path) -> None:
    path = tmp_path / "bad.png"
    Image.effect_noise((64, 64), 80).save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 20] = b"\xff" * 20
    path.write_bytes(data)
    inspect(path)
    with pytest.raises(DataError, match="cannot be read"):
        inspect(path, full=True)
    with pytest.raises(DataError, match="cannot be read"):
        open_picture(path)


def _soft(mode: str, size: tuple[int, int] = (90, 120)) -> Image.Image:
    rng = np.random.default_rng(3)
    small = Image.fromarray(rng.integers(0, 256, (6, 5, 4), dtype=np.uint8), "RGBA")
    return small.resize(size, Image.Resampling.BICUBIC).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_a_look_at_a_png_sees_its_top_alone_and_right(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    _soft(mode).save(path)
    seen = look(path)
    assert seen.facts == inspect(path) and seen.print == b""
    whole = whole_print(path)
    assert seen.top == top_of(whole) and whole == fingerprint(open_picture(path))


def test_a_look_at_deep_grey_or_a_turned_png(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.linspace(0, 65_535, 64 * 64).astype(np.uint16).reshape(64, 64)).save(path)
    assert look(path).top == top_of(fingerprint(open_picture(path)))
    exif = Image.Exif()
    exif[0x0112] = 6
    _soft("RGB").save(path, exif=exif.tobytes())
    assert look(path).print == fingerprint(open_picture(path)) and look(path).facts.width_px == 120


@pytest.mark.parametrize(
    ("name", "options"), [("a.jpg", {"quality": 90}), ("a.webp", {}), ("a.bmp", {}), ("a.gif", {})]
)
def test_a_look_at_others_sees_the_whole(tmp_path: Path, name: str, options: dict[str, int]) -> None:
    path = tmp_path / name
    _soft("RGB", (600, 800)).save(path, **options)
    seen = look(path)
    assert seen.top == top_of(seen.print)
    exact = np.frombuffer(fingerprint(open_picture(path)), dtype=np.uint8).astype(int)
    assert np.abs(exact - np.frombuffer(seen.print, dtype=np.uint8)).max() <= 4  # JPEG was decoded at a quarter


@pytest.mark.parametrize("place", [0.2, 0.5, 0.9])
def test_a_look_finds_one_wrong_byte_of_a_png(tmp_path: Path, place: float) -> None:
    path = tmp_path / "bad.png"
    Image.effect_noise((64, 64), 80).save(path)
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DataError, match="cannot be read"):
        look(path)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_a_wrong_checksum_behind_the_pixels_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "noted.png"
    _soft("RGB").save(path)
    data = path.read_bytes()
    path.write_bytes(data[:-12] + _chunk(b"tEXt", b"Comment\0by hand").replace(b"by", b"By") + data[-12:])
    assert look(path).print == fingerprint(_soft("RGB"))


def test_a_png_of_sound_chunks_whose_pixels_end_early(tmp_path: Path) -> None:
    """Its maker stopped, but closed it well: only decoding tells."""
    whole, path = tmp_path / "whole.png", tmp_path / "few.png"
    _soft("RGB").save(whole)
    packed = zlib.compress(b"".join(b"\x00" + _soft("RGB").crop((0, y, 90, y + 1)).tobytes() for y in range(120)))
    header = struct.pack(">IIBBBBB", 90, 120, 8, 2, 0, 0, 0)
    chunks = (_chunk(b"IHDR", header), _chunk(b"IDAT", packed[: len(packed) * 3 // 4]), _chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    assert look(path).top == look(whole).top
    with pytest.raises(DataError, match=r"few\.png: cannot be read"):
        whole_print(path)
    dataset = scan(tmp_path, use_cache=False)  # its top is like the other's, so it is decoded
    assert [picture.key for picture in dataset.pictures] == ["whole.png"]
    assert [problem.keys for problem in dataset.problems if problem.code == "unreadable"] == [("few.png",)]


def test_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    with pytest.raises(DataError, match="0 bytes"):
        inspect(tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("not a picture, whatever the name says")
    with pytest.raises(DataError, match="cannot be read as a picture"):
        inspect(tmp_path / "text.png")


def test_a_wrong_ending_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "really_a_jpeg.png"
    _halves().save(path, format="JPEG")
    assert inspect(path).format == "JPEG"


def test_backgrounds() -> None:
    assert background("white", random.Random(0)) == background("mask", random.Random(1)) == (255, 255, 255)
    assert background("grey", random.Random(0)) == (128, 128, 128)
    assert background("random", random.Random(0)) == background("random", random.Random(0))
    assert background("random", random.Random(0)) != background("random", random.Random(1))
    assert flatten(_halves(), None, background=(0, 0, 0)).getpixel((0, 0)) == RED


def test_file_hash(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_sha256(tmp_path / "a").startswith("ba7816bf8f01cfea")  # FIPS 180-2, B.1
