"""What a file is by its first bytes: its name may lie, and a reader's failure says little.

What people have instead of the file that they meant to download is told by name: the pointer that git leaves where
git-LFS is not installed, the page or the message of a server that wants to be signed in to.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

FileKind = Literal["safetensors", "torch", "other"]

_HEAD_BYTES = 1024
_ITSELF = "Download the file itself"
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"RIFF", "a RIFF file (a WebP picture, or sound)"),
    (b"%PDF", "a PDF document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"GGUF", "a GGUF model"),
    (b"\x89HDF", "an HDF5 file"),
    (b"MZ", "a Windows program"),
    (b"\x7fELF", "a program"),
)


def kind_of(path: Path) -> FileKind:
    """Which reader a file is for. OSError where it cannot be read."""
    return _kind(*_head(path))


def alien(path: Path) -> str | None:
    """What a file is that is neither safetensors nor torch's, and what to do, in one sentence; None where it may be."""
    try:
        head, size_bytes = _head(path)
    except OSError:
        return None
    return None if _kind(head, size_bytes) != "other" else _alien(head, size_bytes)


def _head(path: Path) -> tuple[bytes, int]:
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES), path.stat().st_size


def _kind(head: bytes, size_bytes: int) -> FileKind:
    length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and 8 + length <= size_bytes:
        return "safetensors"
    if head.startswith(b"PK\x03\x04") or re.match(rb"\x80[\x02-\x05]", head):
        return "torch"
    return "other"


def _alien(head: bytes, size_bytes: int) -> str | None:
    if not head:
        return f"is empty. {_ITSELF} again"
    if head.startswith((b"version https://git-lfs", b"version http://git-media")):
        size = re.search(rb"^size (\d{1,20})$", head, re.MULTILINE)
        told = f" of {int(size[1]):,} bytes" if size else ""
        return f"is a git-LFS pointer, which stands for a file{told}. {_ITSELF} (`git lfs pull`)"
    if size_bytes < _HEAD_BYTES and b"annex/objects" in head:
        return f"is a git-annex pointer, which stands for another file. {_ITSELF} (`git annex get`)"
    known = next((name for start, name in _SIGNATURES if head.startswith(start)), None)
    if known is not None:
        return f"is {known}, no model file. {_ITSELF}, or unpack it"
    text = _text(head)
    if text is None:
        return None
    start = re.sub(r"\s+", " ", text)[:60].strip()
    if re.match(r"<(!doctype|html|head|body|\?xml|!--|script|meta)", start, re.IGNORECASE):
        return f"is a web page, as a site sends to those who are not signed in. {_ITSELF}"
    if start.startswith(("{", "[")):
        return f"is a message in JSON ({start}…), as a server sends instead of a file. {_ITSELF}"
    return f"is a text ({start}…), no model file. {_ITSELF}"


def _text(head: bytes) -> str | None:
    """The beginning as text; None for anything with a control character or of no encoding that texts have."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = head[: len(head) // 2 * 2].decode("utf-16", errors="replace").lstrip("\ufeff")
    else:
        text = head.removeprefix(b"\xef\xbb\xbf").decode("utf-8", errors="replace").rstrip("\ufffd")
    text = text.strip()
    odd = re.search(r"[\x00-\x08\x0e-\x1f\x7f\ufffd]", text)
    return text if text and odd is None else None
