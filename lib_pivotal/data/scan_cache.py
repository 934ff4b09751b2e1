"""What earlier scans saw of picture files, so that a folder that was scanned before opens at once.

One JSON file a folder, in the user's cache (`files.cache_home()`), never among the pictures. An entry counts only while
its file has the same size and time of change; what cannot be read is as good as absent.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lib_pivotal.data.fingerprints import SIZE_BYTES
from lib_pivotal.data.pictures import Look, PictureFacts
from lib_pivotal.files import replacing

FOLDERS_KEPT = 64
FRESH_NS = 2_000_000_000
"""A file changed less than this before the look may change again within one tick of its clock: it is not kept."""

_log = logging.getLogger(__name__)
_VERSION = 1
_LARGEST_BYTES = 2**28


class ScanCache:
    """Looks at the pictures below one folder, by their paths; `place` is the cache's folder, None keeps nothing."""

    def __init__(self, root: Path, place: Path | None) -> None:
        name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:32]
        self._path = place / "scans" / f"{name}.json" if place is not None else None
        self._known: Mapping[str, Any] = self._read()
        self._kept: dict[str, Any] = {}
        self.hits = 0

    def get(self, key: str, stat: os.stat_result) -> Look | None:
        """The look at a file of this size and time, if there was one."""
        entry = self._known.get(key)
        if not isinstance(entry, dict):
            return None
        try:
            if entry["size"] != stat.st_size or entry["changed"] != stat.st_mtime_ns:
                return None
            look = Look(PictureFacts(**entry["facts"]), base64.b64decode(entry["print"], validate=True))
        except (TypeError, KeyError, ValueError):
            return None
        if len(look.print) != SIZE_BYTES or not _is_sound(look.facts):
            return None
        self._kept[key] = entry
        self.hits += 1
        return look

    def put(self, key: str, stat: os.stat_result, look: Look) -> None:
        """Keep a look for the next time; `stat` was taken before it."""
        if time.time_ns() - stat.st_mtime_ns < FRESH_NS:
            return
        text = base64.b64encode(look.print).decode("ascii")
        self._kept[key] = {
            "size": stat.st_size, "changed": stat.st_mtime_ns, "facts": asdict(look.facts), "print": text,
        }  # fmt: skip

    def save(self) -> None:
        """Write what was put and what was found again; files that are gone are forgotten. Trouble is only logged."""
        if self._path is None or self._kept == self._known:
            return
        plain = json.dumps({"version": _VERSION, "pictures": self._kept}, separators=(",", ":"))
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._path) as temporary:
                temporary.write_text(plain, encoding="utf-8")
            self._forget_oldest()
        except (OSError, UnicodeError) as error:
            _log.info("scan cache: %s is not written (%s)", self._path, error)

    def _read(self) -> Mapping[str, Any]:
        if self._path is None:
            return {}
        try:
            if self._path.stat().st_size > _LARGEST_BYTES:
                return {}
            plain = json.loads(self._path.read_bytes())
            pictures = plain["pictures"] if plain["version"] == _VERSION else {}
            return pictures if isinstance(pictures, dict) else {}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            _log.info("scan cache: %s cannot be read (%s); pictures are looked at again", self._path, error)
            return {}

    def _forget_oldest(self) -> None:
        if self._path is None:
            return
        found = sorted(self._path.parent.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in found[FOLDERS_KEPT:]:
            with contextlib.suppress(OSError):
                path.unlink()


def _is_sound(facts: PictureFacts) -> bool:
    numbers = (facts.width_px, facts.height_px, facts.frames)
    return all(type(number) is int and number > 0 for number in numbers) and isinstance(facts.format, str)
