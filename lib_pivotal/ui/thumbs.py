"""Small pictures as data URIs: shown inside HTML without asking the server to open any folder."""

from __future__ import annotations

import base64
import functools
import io
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image, ImageOps

from lib_pivotal.data.pictures import open_picture
from lib_pivotal.errors import DataError

JPEG_QUALITY = 85
UNREADABLE = (OSError, ValueError, SyntaxError, DataError)
"""Pillow raises SyntaxError for some broken PNGs."""


def thumbnail(path: Path | str, side_px: int) -> str:
    """A data URI of the picture, at most `side_px` a side, never enlarged. Empty where it cannot be read."""
    file = Path(path)
    try:
        return _made(str(file), file.stat().st_mtime_ns, side_px)
    except UNREADABLE:
        return ""


@functools.lru_cache(maxsize=500)
def _made(path: str, modified_ns: int, side_px: int) -> str:
    return data_uri(Path(path), side_px)


def data_uri(path: Path, side_px: int) -> str:
    """The picture at most `side_px` a side; raises what Pillow or `open_picture` raise."""
    with Image.open(path) as opened:
        plain = opened.format in ("JPEG", "MPO")
        if plain:  # decoded small: a photograph takes a few ms so
            opened.draft("RGB", (side_px, side_px))
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    if not plain:
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

    The newest `most_bytes` of them are kept.
    """

    def __init__(self, side_px: int, *, workers: int = 4, most_bytes: int = 96 * 2**20) -> None:
        self.side_px = side_px
        self._most_bytes = most_bytes
        self._made: OrderedDict[tuple[str, int], str] = OrderedDict()
        self._held_bytes = 0
        self._lock = threading.Lock()
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
        with self._lock:
            if key in self._made:
                self._made.move_to_end(key)
                return self._made[key]
        try:
            uri = data_uri(path, self.side_px)
        except UNREADABLE:
            uri = ""
        with self._lock:
            if key not in self._made:
                self._made[key] = uri
                self._held_bytes += len(uri)
            while self._held_bytes > self._most_bytes and len(self._made) > 1:
                self._held_bytes -= len(self._made.popitem(last=False)[1])
        return uri


def stamp(path: Path) -> str:
    """Tells versions of a file apart."""
    try:
        return f"{path.stat().st_mtime_ns:x}"
    except OSError:
        return ""
