"""Zip and tar files of pictures: unpacked once into the user's cache, never among the user's files.

Nothing in an archive decides where it is written: names that lead out of it, links and devices are left out, and so is
what no dataset holds. An archive that would fill the disk is refused before or while it is unpacked.
"""

from __future__ import annotations

import contextlib
import hashlib
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from lib_pivotal.data.pictures import EXTENSIONS
from lib_pivotal.data.records import DatasetProblem
from lib_pivotal.errors import DataError
from lib_pivotal.files import cache_home

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
KEPT_ENDINGS = EXTENSIONS | {".txt", ".caption", ".json", ".jsonl", ".csv", ".toml", ".yaml", ".yml"}
MOST_FILES = 200_000
MOST_BYTES = 64 * 2**30
MOST_TEXT_BYTES = 2**27
MOST_TIMES = 200
"""How many times larger than the archive its content may be: pictures hardly shrink, captions tenfold."""
MOST_DEPTH = 16
ARCHIVES_KEPT = 8
_IS_UTF8 = 0x800
_FRAMES = re.compile("[\u2500-\u259f]")
_KANA = re.compile("[\u3041-\u30ff]")

_Member = tuple[str, int, IO[bytes]]
_DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, ValueError, LookupError, OverflowError, NotImplementedError, RuntimeError, OSError),
)


def is_archive(path: Path) -> bool:
    """Whether a file's name says that it is one."""
    return path.name.lower().endswith(SUFFIXES)


def unpacked(path: Path, place: Path | None = None) -> tuple[Path, tuple[DatasetProblem, ...]]:
    """The folder in the cache that holds what is in an archive, and what was left out; unpacks it if it changed.

    Raises:
        DataError: it cannot be read, would be too large, or the disk is full.
    """
    home = (place or cache_home()) / "archives"
    facts = path.stat()
    name = f"{os.fsencode(path.resolve())!r} {facts.st_size} {facts.st_mtime_ns}"
    folder = home / hashlib.sha256(name.encode()).hexdigest()[:24]
    target = folder / _stem(path)
    told = folder / "left_out.txt"
    if not target.is_dir():
        home.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=home))
        try:
            (work / target.name).mkdir()
            left_out = _unpack(path, work / target.name)
            (work / told.name).write_text("\n".join(left_out), encoding="utf-8", errors="replace")
            with contextlib.suppress(OSError):  # someone else may have unpacked it meanwhile
                work.rename(folder)
        except _DAMAGE as error:
            text = f"{path.name}: cannot be unpacked ({error}). Unpack it yourself, and give the folder."
            raise DataError(text) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
        _forget_oldest(home, folder)
    left = told.read_text(encoding="utf-8").splitlines() if told.exists() else []
    if not left:
        return target, ()
    text = f"{path.name}: {len(left)} file(s) were left out: {', '.join(left[:5])}. A dataset needs none of them."
    return target, (DatasetProblem("warning", "left_out_of_archive", text, tuple(left)),)


def _stem(path: Path) -> str:
    name = path.name
    ending = next(ending for ending in sorted(SUFFIXES, key=len, reverse=True) if name.lower().endswith(ending))
    return name[: -len(ending)].strip(". ") or "archive"


def _unpack(path: Path, target: Path) -> list[str]:
    """Write the members below `target`; returns the names that were left out."""
    most = min(MOST_BYTES, max(2**20, path.stat().st_size * MOST_TIMES), shutil.disk_usage(target).free - 2**28)
    left_out: list[str] = []
    count = total = 0
    for name, size, file in _members(path, left_out):
        count += 1
        if count > MOST_FILES:
            raise ValueError(f"it holds more than {MOST_FILES} files")
        place = _safe(name)
        if place is None or PurePosixPath(name).suffix.lower() not in KEPT_ENDINGS:
            left_out.append(_shown(name))
            continue
        if total + size > most:
            raise ValueError(f"its content is larger than {most >> 20} MB, more than such a file should hold")
        total += _write(file, target / place, min(most - total, size))
    return left_out


def _members(path: Path, left_out: list[str]) -> Iterator[_Member]:
    """Name, size and content of every plain file."""
    if path.name.lower().endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.is_dir():
                    continue
                if stat.S_ISLNK(info.external_attr >> 16):
                    left_out.append(_shown(info.filename))
                    continue
                with archive.open(info) as file:
                    yield _name(info), info.file_size, file
        return
    with tarfile.open(path, "r:*") as archive:
        for member in archive:
            if member.isfile():
                content = archive.extractfile(member)
                if content is not None:
                    yield member.name, member.size, content
            elif not member.isdir():
                left_out.append(_shown(member.name))


def _name(info: zipfile.ZipInfo) -> str:
    """A member's name. One without the mark of UTF-8 is in its maker's code page, for which zipfile takes cp437: right
    for western names; Japanese has kana, and Chinese comes as frames and shades, which no name has."""
    name = info.filename
    if info.flag_bits & _IS_UTF8 or name.isascii():
        return name
    with contextlib.suppress(UnicodeEncodeError):
        raw = name.encode("cp437")
        with contextlib.suppress(UnicodeDecodeError):
            return raw.decode("utf-8")
        with contextlib.suppress(UnicodeDecodeError):
            if _KANA.search(found := raw.decode("cp932")):
                return found
        with contextlib.suppress(UnicodeDecodeError):
            if _FRAMES.search(name):
                return raw.decode("gbk")
    return name


def _shown(name: str) -> str:
    """A member's name in one line."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)[:200]


def _safe(name: str) -> Path | None:
    """A member's place below the target; None for names that lead elsewhere or that a file system may not take."""
    text = name.replace("\\", "/")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    wrong = text.startswith("/") or ".." in parts or not parts or len(parts) > MOST_DEPTH
    if wrong or any(":" in part or len(part.encode("utf-8", "replace")) > 200 for part in parts):
        return None
    if any(ord(letter) < 32 or 0xD800 <= ord(letter) < 0xE000 for letter in text):
        return None
    hidden = [part for part in parts if part.startswith(".") and not part.endswith("_meta.json")]
    return None if hidden or "__MACOSX" in parts else Path(*parts)


def _write(file: IO[bytes], place: Path, most: int) -> int:
    """Copy at most so many bytes: a member may hold more than it says."""
    place.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with place.open("wb") as out:
        while block := file.read(1 << 20):
            written += len(block)
            if written > most:
                raise ValueError(f"{place.name} holds more than it says")
            out.write(block)
    return written


def _forget_oldest(home: Path, kept: Path) -> None:
    with contextlib.suppress(OSError):
        found = sorted((path for path in home.iterdir() if path != kept), key=lambda path: path.stat().st_mtime)
        for path in found[: max(0, len(found) + 1 - ARCHIVES_KEPT)]:
            shutil.rmtree(path, ignore_errors=True)
