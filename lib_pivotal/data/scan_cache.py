"""What earlier scans saw of picture files, so that a folder that was scanned before opens at once.

One file a folder, in the user's cache (`files.cache_home()`), never among the pictures. An entry counts only while its
file has the same size and time of change; a cache that cannot be read or is not as it was written is as good as none.

The file: `MAGIC`; checksum of what follows these 8 bytes, and length of a JSON text; that text (paths, kinds of mode
and format); a row of `_ROW` for each path; fingerprints of tops; those of wholes where a row says that there is one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lib_pivotal.data.fingerprints import SIZE_BYTES, TOP_BYTES
from lib_pivotal.data.pictures import ImageProbe, PictureFacts
from lib_pivotal.files import replacing
from lib_pivotal.plain_json import parse_json

FOLDERS_KEPT = 64
FRESH_NS = 2_000_000_000
"""A file changed less than this before the look may change again within one tick of its clock: it is not kept."""
MAGIC = b"pivotal scan 3\n"
SUFFIX = ".scan"

_log = logging.getLogger(__name__)
_LARGEST_BYTES = 2**30
_OLD_SUFFIX = ".json"
_ROW = np.dtype(
    [("size", "<i8"), ("changed", "<i8"), ("width", "<i4"), ("height", "<i4"), ("frames", "<i4"),
     ("mode", "u1"), ("format", "u1"), ("alpha", "u1"), ("whole", "u1")]
)  # fmt: skip


@dataclass(frozen=True)
class _ScanEntry:
    """A look at a file of this size and time of change."""

    size_bytes: int
    changed_ns: int
    look: ImageProbe


class ScanCache:
    """Looks at the pictures below one folder, by their paths; `place` is the cache's folder, None keeps nothing."""

    def __init__(self, root: Path, place: Path | None) -> None:
        name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:32]
        self._path = place / "scans" / f"{name}{SUFFIX}" if place is not None else None
        self._known: Mapping[str, _ScanEntry] = self._read()
        self._kept: dict[str, _ScanEntry] = {}
        self._changed = False

    def get(self, key: str, stat: os.stat_result) -> ImageProbe | None:
        """The look at a file of this size and time, if there was one."""
        entry = self._known.get(key)
        if entry is None or entry.size_bytes != stat.st_size or entry.changed_ns != stat.st_mtime_ns:
            return None
        self._kept[key] = entry
        return entry.look

    def put(self, key: str, stat: os.stat_result, look: ImageProbe) -> None:
        """Keep a look for the next time; `stat` was taken before it."""
        if time.time_ns() - stat.st_mtime_ns >= FRESH_NS:
            self._kept[key] = _ScanEntry(stat.st_size, stat.st_mtime_ns, look)
            self._changed = True

    def complete(self, key: str, look: ImageProbe) -> None:
        """Keep a fuller look at a file whose first one was kept."""
        if key in self._kept:
            self._kept[key] = replace(self._kept[key], look=look)
            self._changed = True

    def save(self) -> None:
        """Write what was put and what was found again; files that are gone are forgotten. Trouble is only logged."""
        if self._path is None or not (self._changed or len(self._kept) != len(self._known)):
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._path) as temporary:
                temporary.write_bytes(_packed(self._kept))
            self._forget_oldest()
        except (OSError, UnicodeError, OverflowError) as error:
            _log.info("scan cache: %s is not written (%s)", self._path, error)

    def _read(self) -> Mapping[str, _ScanEntry]:
        if self._path is None:
            return {}
        try:
            if self._path.stat().st_size > _LARGEST_BYTES:
                return {}
            return _unpacked(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
            _log.info("scan cache: %s cannot be read (%s); pictures are looked at again", self._path, error)
            return {}

    def _forget_oldest(self) -> None:
        if self._path is None:
            return
        found = sorted(self._path.parent.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in [*found[FOLDERS_KEPT:], *self._path.parent.glob(f"*{_OLD_SUFFIX}")]:
            with contextlib.suppress(OSError):
                path.unlink()


def _packed(entries: Mapping[str, _ScanEntry]) -> bytes:
    facts = [entry.look.facts for entry in entries.values()]
    modes, formats = sorted({fact.mode for fact in facts}), sorted({fact.format for fact in facts})
    rows = np.array(
        [
            (
                entry.size_bytes,
                entry.changed_ns,
                entry.look.facts.width_px,
                entry.look.facts.height_px,
                entry.look.facts.frames,
                modes.index(entry.look.facts.mode),
                formats.index(entry.look.facts.format),
                entry.look.facts.has_alpha,
                bool(entry.look.print),
            )
            for entry in entries.values()
        ],
        dtype=_ROW,
    )
    text = json.dumps({"paths": list(entries), "modes": modes, "formats": formats}).encode("ascii")
    tops = b"".join(entry.look.top for entry in entries.values())
    body = b"".join((text, rows.tobytes(), tops, *(entry.look.print for entry in entries.values())))
    return b"".join((MAGIC, zlib.crc32(body).to_bytes(4, "little"), len(text).to_bytes(4, "little"), body))


def _unpacked(data: bytes) -> dict[str, _ScanEntry]:
    """What `_packed` packed. Raises ValueError where it is anything else, and others where it was made to look so."""
    start = len(MAGIC) + 8
    if not data.startswith(MAGIC) or len(data) < start:
        raise ValueError("it is of another version")
    if zlib.crc32(memoryview(data)[start:]) != int.from_bytes(data[start - 8 : start - 4], "little"):
        raise ValueError("its checksum is wrong")
    end = start + int.from_bytes(data[start - 4 : start], "little")
    plain: dict[str, Any] = parse_json(data[start:end])
    paths, modes, formats = plain["paths"], plain["modes"], plain["formats"]
    rows = np.frombuffer(data, dtype=_ROW, count=len(paths), offset=end)
    tops = end + rows.nbytes
    prints = tops + TOP_BYTES * len(rows)
    if len(data) != prints + SIZE_BYTES * int(np.count_nonzero(rows["whole"])):
        raise ValueError("its length is wrong")
    found: dict[str, _ScanEntry] = {}
    for path, row in zip(paths, rows.tolist(), strict=True):
        size, changed, width, height, frames, mode, format_name, alpha, whole = row
        facts = PictureFacts(width, height, modes[mode], formats[format_name], frames, bool(alpha))
        made = data[prints : prints + SIZE_BYTES] if whole else b""
        found[path] = _ScanEntry(size, changed, ImageProbe(facts, data[tops : tops + TOP_BYTES], made))
        tops += TOP_BYTES
        prints += len(made)
    return found
