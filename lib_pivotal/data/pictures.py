"""Opening picture files as they really are: rotation, palettes, 16 bits, CMYK, transparency, damage."""

from __future__ import annotations

import hashlib
import importlib
import io
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, cast

import numpy as np
from PIL import Image, ImageFile, ImageOps

from lib_pivotal.data.fingerprints import fingerprint, rows_of_top, top_fingerprint, top_of
from lib_pivotal.data.png_files import PngChunks, first_rows, read_chunks, without_burdens
from lib_pivotal.errors import DataError

Transparency = Literal["white", "grey", "random", "mask"]
"""What stands behind transparent pixels; `mask`: white, and the alpha channel weighs the loss (see masks.py)."""

Colour = tuple[int, int, int]

EXTENSIONS = frozenset(
    {".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".jxl", ".heic", ".heif"}
)
"""File name endings that mean a picture; whether Pillow can open one is found by opening it."""

MOST_PIXELS = 2**27
"""More than this (11585 x 11585 px) is no picture to train on; small files can claim it to fill the memory. Below the
limit at which Pillow itself refuses pictures (178 956 970 pixels), whose sentence helps nobody."""

PLUGINS = {
    ".avif": ("AVIF", "pillow_avif", "pillow-avif-plugin"),
    ".jxl": ("JPEG XL", "pillow_jxl", "pillow-jxl-plugin"),
    ".heic": ("HEIC", "pillow_heif", "pillow-heif"),
    ".heif": ("HEIF", "pillow_heif", "pillow-heif"),
}
"""Formats that Pillow itself cannot read: name, module and package. The web UI has the first."""

_DRAFT_PX = 144
"""JPEG is decoded at a half, quarter or eighth as long as that is larger: nine pixels a cell of a fingerprint."""
_ORIENTATION = 0x0112
_TAIL_BYTES = 65_536
_LONGER_SIDE_PX = 4096
_T = TypeVar("_T")


@dataclass(frozen=True)
class PictureFacts:
    """What a file's header says; the size is the size as displayed, after EXIF rotation."""

    width_px: int
    height_px: int
    mode: str
    format: str
    frames: int
    has_alpha: bool


@dataclass(frozen=True)
class ImageProbe:
    """What one look at a file gave: its facts, and by what it is known again (see fingerprints.py).

    `print` is empty where the look was at the picture's top alone.
    """

    facts: PictureFacts
    top: bytes
    print: bytes = b""


def inspect(path: Path, *, full: bool = False) -> PictureFacts:
    """Read a picture's header; decode it too if `full` or if the end of the file looks cut off.

    Raises DataError for a file that is empty, no picture, or damaged.
    """
    _refuse_empty(path)

    def facts_of(image: Image.Image, data: bytes) -> PictureFacts:
        facts, cut_off = _facts(image, path, read_chunks(data) if data else None)
        if full or cut_off:
            image.load()
        return facts

    return _read(path, facts_of)


def look(path: Path) -> ImageProbe:
    """Facts of a picture, and its fingerprint or that of its top.

    Of a PNG whose checksums are right only the top is unpacked, which is a quarter of the work; `whole_print` gives
    the rest where it matters. Others are decoded, JPEG at an eighth of its size.

    Raises DataError for a file that is empty, no picture, or damaged.
    """
    _refuse_empty(path)

    def look_of(image: Image.Image, data: bytes) -> ImageProbe:
        chunks = read_chunks(data) if data else None
        facts, _ = _facts(image, path, chunks)
        if chunks is not None and chunks.sound and not (chunks.turned or chunks.animated):
            rows = first_rows(data, rows_of_top(image.height))
            if rows is not None:
                with Image.open(io.BytesIO(rows), formats=("PNG",)) as first:
                    return ImageProbe(facts, top_fingerprint(_over_white(first), height_px=image.height))
        made = fingerprint(_over_white(image))
        return ImageProbe(facts, top_of(made), made)

    return _read(path, look_of)


def whole_print(path: Path) -> bytes:
    """The fingerprint of a whole picture; decodes it.

    Raises DataError where that fails.
    """
    return _read(path, lambda image, _: fingerprint(_over_white(image)))


def open_rgba(path: Path) -> tuple[Image.Image, Image.Image | None]:
    """Open the first frame, upright: an RGB picture and its alpha channel (None where every pixel is opaque)."""

    def rgba_of(image: Image.Image, _: bytes) -> tuple[Image.Image, Image.Image | None]:
        image.load()
        return _upright(image)

    return _read(path, rgba_of)


def open_picture(path: Path, *, background: Colour = (255, 255, 255)) -> Image.Image:
    """Open the first frame, upright, as RGB, transparent pixels over `background`."""
    rgb, alpha = open_rgba(path)
    return flatten(rgb, alpha, background=background)


def flatten(rgb: Image.Image, alpha: Image.Image | None, *, background: Colour) -> Image.Image:
    """Lay a picture over a plain colour."""
    if alpha is None:
        return rgb
    ground = Image.new("RGB", rgb.size, background)
    ground.paste(rgb, (0, 0), alpha)
    return ground


def background(transparency: Transparency, rng: random.Random) -> Colour:
    """The colour behind transparent pixels; `random` draws one."""
    if transparency == "grey":
        return (128, 128, 128)
    if transparency == "random":
        return (rng.randrange(256), rng.randrange(256), rng.randrange(256))
    return (255, 255, 255)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class _TooLargeError(DataError):
    """A picture of more pixels than are read."""


def _read(path: Path, work: Callable[[Image.Image, bytes], _T]) -> _T:
    """What `work` makes of an opened picture and, of a PNG, its file's bytes.

    What Pillow's limits for texts and colour profiles are in the way of is read without these.

    Raises DataError where anything of it fails.
    """
    try:
        try:
            with _opened(path) as image:
                return work(image, path.read_bytes() if image.format == "PNG" else b"")
        except ValueError:
            if (lighter := without_burdens(path.read_bytes())) is None:
                raise
        with Image.open(io.BytesIO(lighter), formats=("PNG",)) as image:
            _refuse_huge(image)
            return work(image, lighter)
    except Exception as error:  # a damaged file makes Pillow raise almost anything
        raise DataError(_unreadable(path, error)) from error


def _refuse_huge(image: Image.Image) -> None:
    if image.width * image.height > MOST_PIXELS:
        raise _TooLargeError(_too_large(image.width * image.height, MOST_PIXELS, f"{image.width}x{image.height} px, "))


def _too_large(pixels: int, most: int, size: str = "") -> str:
    return (
        f"{size}{pixels / 1e6:.0f} megapixels, are more than the {most / 1e6:.3g} that are read here. Scale it down, "
        f"to {_LONGER_SIDE_PX} px on its longer side or so: it is trained at a fraction of that"
    )


def _opened(path: Path) -> Image.Image:
    """Open a file; where Pillow alone cannot, with the plugin for its kind, if that is installed."""
    plugin = PLUGINS.get(path.suffix.lower())
    if plugin is not None and path.suffix.lower() not in Image.registered_extensions():
        name, module, package = plugin
        try:
            brought = importlib.import_module(module)
        except ImportError as error:
            raise DataError(f"{name} needs the Python package {package}, which is not installed") from error
        if module == "pillow_heif":
            brought.register_heif_opener()
    try:
        image = Image.open(path)
    except Image.DecompressionBombError as error:  # beyond ours; or the process around has set another limit
        found = re.search(r"\d+", str(error))
        most = min(MOST_PIXELS, 2 * (Image.MAX_IMAGE_PIXELS or MOST_PIXELS))
        raise _TooLargeError(_too_large(int(found.group()) if found else most, most)) from error
    try:
        _refuse_huge(image)
    except _TooLargeError:
        image.close()
        raise
    return image


def _upright(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    turned = ImageOps.exif_transpose(image)
    return _split_alpha(turned if turned is not None else image, format_name=image.format or "")


def _refuse_empty(path: Path) -> None:
    if path.stat().st_size == 0:
        raise DataError(f"{path.name}: the file is empty (0 bytes). Copy it again from its source.")


def _unreadable(path: Path, error: Exception) -> str:
    if isinstance(error, _TooLargeError):
        return f"{path.name}: {error}."
    reason = str(error).replace(str(path), path.name) or type(error).__name__
    return f"{path.name}: cannot be read as a picture ({reason}). Open it in an image editor and save it again."


def _facts(image: Image.Image, path: Path, chunks: PngChunks | None) -> tuple[PictureFacts, bool]:
    """The facts, and whether the file seems cut off; decodes nothing (Pillow's PNG `getexif` would).

    Raises DataError for a file that is cut off where decoding would not tell, as the host asked Pillow not to.
    """
    format_name = image.format or ""
    cut_off = not (chunks.complete if chunks is not None else _ends_well(path, format_name=format_name))
    if cut_off and ImageFile.LOAD_TRUNCATED_IMAGES:
        raise DataError("the end of the file is missing")
    width_px, height_px = image.size
    if (chunks is None or chunks.turned) and image.getexif().get(_ORIENTATION) in (5, 6, 7, 8):
        width_px, height_px = height_px, width_px
    facts = PictureFacts(
        width_px=width_px,
        height_px=height_px,
        mode=image.mode,
        format=format_name,
        frames=getattr(image, "n_frames", 1),
        has_alpha=_has_alpha(image),
    )
    return facts, cut_off


def _over_white(image: Image.Image) -> Image.Image:
    """A picture as it is known again: small where its format allows that, upright, over white, RGB."""
    image.draft("RGB", (_DRAFT_PX, _DRAFT_PX))
    image.load()
    if image.mode == "RGB" and not _has_alpha(image) and image.getexif().get(_ORIENTATION, 1) == 1:
        return image  # as most are: spares copies of the whole picture
    rgb, alpha = _upright(image)
    return flatten(rgb, alpha, background=(255, 255, 255))


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info


def _split_alpha(image: Image.Image, *, format_name: str) -> tuple[Image.Image, Image.Image | None]:
    if image.mode.startswith(("I", "F")):
        image = _eight_bit(image, format_name=format_name)
    elif _has_alpha(image):
        if image.mode == "La":
            image = image.convert("LA")
        rgba = image.convert("RGBA")
        alpha = rgba.getchannel("A")
        low, _ = cast(tuple[int, int], alpha.getextrema())
        return rgba.convert("RGB"), alpha if low < 255 else None
    return image.convert("RGB"), None


def _eight_bit(image: Image.Image, *, format_name: str) -> Image.Image:
    """Grey of 16 or 32 bits or of floats to 8 bits, as Pillow's own conversion clips instead of scaling."""
    values = np.asarray(image).astype(np.float64)
    if image.mode == "F":
        scale = 255.0 if values.size and values.max() <= 1.0 else 1.0
    elif image.mode.startswith("I;16") or format_name in ("PNG", "PPM") or values.max(initial=0) <= 65_535:
        scale = 255.0 / 65_535.0
    else:
        scale = 255.0 / float(values.max())
    return Image.fromarray(np.clip(np.rint(values * scale), 0, 255).astype(np.uint8))


def _ends_well(path: Path, *, format_name: str) -> bool:
    """Whether a file has the end that its format demands: finds cut-off downloads without decoding them."""
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        file.seek(max(0, size_bytes - _TAIL_BYTES))
        tail = file.read()
    if format_name in ("JPEG", "MPO"):
        return b"\xff\xd9" in tail
    if format_name == "WEBP":
        return int.from_bytes(head[4:8], "little") + 8 <= size_bytes
    if format_name == "GIF":
        return tail.rstrip(b"\x00").endswith(b"\x3b")
    if format_name == "BMP":
        return int.from_bytes(head[2:6], "little") <= size_bytes
    return True
