"""Small pictures as data URIs: shown inside HTML without asking the server to open any folder."""

from __future__ import annotations

import base64
import functools
import io
from pathlib import Path

from PIL import Image, ImageOps

JPEG_QUALITY = 85


def thumbnail(path: Path | str, side_px: int) -> str:
    """A data URI of the picture, at most `side_px` a side, never enlarged. Empty where it cannot be read."""
    file = Path(path)
    try:
        return _made(str(file), file.stat().st_mtime_ns, side_px)
    except (OSError, ValueError, SyntaxError):  # Pillow raises SyntaxError for some broken PNGs
        return ""


@functools.lru_cache(maxsize=2000)
def _made(path: str, modified_ns: int, side_px: int) -> str:
    with Image.open(path) as opened:
        opened.draft("RGB", (side_px, side_px))
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    small = max(picture.size) <= side_px
    if not small:
        picture.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if small:
        picture.save(buffer, "PNG")
    else:
        picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/{'png' if small else 'jpeg'};base64,{base64.b64encode(buffer.getvalue()).decode()}"
