"""Small pictures as data URIs: shown inside HTML without asking the server to open any folder."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image, ImageOps

from lib_pivotal.byte_cache import ByteCache
from lib_pivotal.errors import DataError

THUMB_PX = 208
"""Longer side of a picture on the Data page."""
JPEG_QUALITY = 85
UNREADABLE = (OSError, ValueError, SyntaxError, DataError)
"""Pillow raises SyntaxError for some broken PNGs."""
ENTRY_BYTES = 300
"""About what an entry takes beside its text: also those count that are empty, of pictures that cannot be read."""
SINGLE_BYTES = 32 * 2**20
_singles: ByteCache[tuple[str, int, int], str] = ByteCache(SINGLE_BYTES)


def thumbnail(path: Path | str, side_px: int) -> str:
    """A data URI of the picture, at most `side_px` a side, never enlarged. Empty where it cannot be read.

    Those used last are kept for all pages, `SINGLE_BYTES` of them.
    """
    file = Path(path)
    try:
        key = str(file), file.stat().st_mtime_ns, side_px
        uri = _singles.get(key)
        if uri is None:
            uri = data_uri(file, side_px)
            _singles.put(key, uri, size_bytes=len(uri) + ENTRY_BYTES)
        return uri
    except UNREADABLE:
        return ""


def data_uri(path: Path, side_px: int) -> str:
    """The picture at most `side_px` a side; raises what Pillow or `open_picture` raise."""
    with Image.open(path) as opened:
        plain = opened.format in ("JPEG", "MPO")
        if plain:  # decoded small: a photograph takes a few ms so
            opened.draft("RGB", (side_px, side_px))
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    if not plain:
        from lib_pivotal.data.pictures import open_picture  # here: the page is built at start-up

        picture = open_picture(path)
    small = max(picture.size) <= side_px
    if not small:
        picture.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if small:
        picture.save(buffer, "PNG")
    else:
        picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/{'png' if small else 'jpeg'};base64,{base64.b64encode(buffer.getvalue()).decode()}"


class Thumbs:
    """Thumbnails of one size, made by several threads, each once as long as its file is the same; thread-safe.

    Those used last are kept, `most_bytes` of them.
    """

    def __init__(self, side_px: int, *, workers: int = 4, most_bytes: int = 96 * 2**20) -> None:
        self.side_px = side_px
        self._made: ByteCache[tuple[str, int], str] = ByteCache(most_bytes)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="pivotal-thumbs")

    def of(self, paths: Sequence[Path]) -> list[str]:
        """Data URIs in the order of `paths`; empty where a picture cannot be read."""
        return list(self._pool.map(self._one, paths))

    def ahead(self, paths: Sequence[Path]) -> None:
        """Make these while nobody waits."""
        for path in paths:
            self._pool.submit(self._one, path)

    def _one(self, path: Path) -> str:
        try:
            key = (str(path), path.stat().st_mtime_ns)
        except OSError:
            return ""
        known = self._made.get(key)
        if known is not None:
            return known
        try:
            uri = data_uri(path, self.side_px)
        except UNREADABLE:
            uri = ""
        self._made.put(key, uri, size_bytes=len(uri) + ENTRY_BYTES)
        return uri


def stamp(path: Path) -> str:
    """Tells versions of a file apart."""
    try:
        return f"{path.stat().st_mtime_ns:x}"
    except OSError:
        return ""
