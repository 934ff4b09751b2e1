"""PNG files by their chunks: whether one is whole, and its first rows alone, without unpacking the others.

A PNG is a list of chunks, each with a checksum, so that a cut or damaged file is found at a thirtieth of what unpacking
its pixels costs; and its rows are packed from the top in one stream, so that the first ones cost their share.
https://www.w3.org/TR/png-3/
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER_END = 33
"""Signature, then IHDR's length, type, 13 bytes and checksum."""
_HEIGHT, _INTERLACED = slice(20, 24), 28
_BURDENS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
MOST_TEXT_BYTES = 2**20
"""Pillow's limit for what one of them unpacks to (PngImagePlugin.MAX_TEXT_CHUNK)."""
_ORIENTATION = (b"eXIf", b"tEXtRaw profile type ", b"zTXtRaw profile type ", b"iTXtXML:com.adobe.xmp")


@dataclass(frozen=True)
class PngChunks:
    """What a file's chunks say: `complete` up to the end mark, `sound` by their checksums too.

    `turned`: something in them may say how to turn the picture; `animated`: it has further frames.
    """

    complete: bool
    sound: bool
    turned: bool
    animated: bool


def read_chunks(data: bytes) -> PngChunks:
    """Go through the chunks of a whole file's bytes."""
    view = memoryview(data)
    position, sound = len(SIGNATURE), True
    complete = turned = animated = False
    while position + 12 <= len(data) and not complete:
        end = position + 12 + int.from_bytes(view[position : position + 4], "big")
        if end > len(data):
            break
        kind = data[position + 4 : position + 8]
        sound = sound and zlib.crc32(view[position + 4 : end - 4]) == int.from_bytes(view[end - 4 : end], "big")
        if kind != b"IDAT":
            turned = turned or data[position + 4 : position + 32].startswith(_ORIENTATION)
            animated = animated or kind == b"acTL"
            complete = kind == b"IEND"
        position = end
    return PngChunks(complete, complete and sound, turned, animated)


def without_burdens(data: bytes, *, most: int = MOST_TEXT_BYTES) -> bytes | None:
    """The same file without texts and colour profiles that would unpack to more than `most` bytes together or alone,
    which Pillow refuses the whole picture for; None where there are none, or it is no PNG. Pixels stay as they are."""
    if not data.startswith(SIGNATURE):
        return None
    view = memoryview(data)
    kept: list[bytes | memoryview] = [view[: len(SIGNATURE)]]
    position, total, dropped = len(SIGNATURE), 0, False
    while position + 12 <= len(data):
        end = position + 12 + int.from_bytes(view[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        if kind in _BURDENS and end <= len(data):
            size = _unpacked_size(data[position + 8 : end - 4], kind, most)
            if total + size > most:
                position, dropped = end, True
                continue
            total += size
        kept.append(view[position:end])
        position = end
    return b"".join(kept) if dropped else None


def _unpacked_size(content: bytes, kind: bytes, most: int) -> int:
    """How many bytes a text or profile takes, as far as `most` and one more."""
    _, _, rest = content.partition(b"\0")
    if kind == b"tEXt":
        return len(content)
    if kind == b"iTXt":
        if rest[:1] != b"\1":
            return len(content)
        rest = rest[2:].split(b"\0", 2)[-1]
    else:
        rest = rest[1:]
    try:
        return len(zlib.decompressobj().decompress(rest, most + 1))
    except zlib.error:
        return 0


def first_rows(data: bytes, rows: int) -> bytes | None:
    """The same file as a picture of its first rows only; None where they are not first in it (interlaced), or no PNG.

    Only the height in the header is another: a reader stops after so many rows.
    """
    if len(data) < _HEADER_END or not data.startswith(SIGNATURE) or data[12:16] != b"IHDR" or data[_INTERLACED]:
        return None
    height = int.from_bytes(data[_HEIGHT], "big")
    if not 0 < rows <= height:
        return None
    header = data[12:20] + rows.to_bytes(4, "big") + data[24:29]
    return b"".join((data[:12], header, zlib.crc32(header).to_bytes(4, "big"), memoryview(data)[_HEADER_END:]))
