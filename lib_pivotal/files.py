"""Replacing a file in one step: after a crash at any moment the old content or the new is there, never a half."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

TEMPORARY_SUFFIX = ".tmp"
_QUOTES = (('"', '"'), ("'", "'"), ("`", "`"), ("\u201c", "\u201d"), ("\u2018", "\u2019"), ("\u00ab", "\u00bb"))
_FILE_ADDRESS = re.compile(r"file:(?://localhost(?=/)|//(?=/)|(?=/))", re.IGNORECASE)
_DRIVE = re.compile(r"/[A-Za-z]:[\\/]")


@contextlib.contextmanager
def replacing(path: Path, *, folder_too: bool = True) -> Iterator[Path]:
    """Yield a file beside `path` to write (and to check); on leaving it is flushed to the disk and becomes `path`.

    Where the body raises, `path` stays as it was and the temporary file is removed. OSError passes through, and names
    `path`: the caller knows what the file was for. Temporary files are hidden: `.<name>.<random>.tmp`. Who writes many
    files of one folder leaves it out (`folder_too=False`) and calls `sync_folder` behind the last one.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}{TEMPORARY_SUFFIX}")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield temporary
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        if folder_too:
            sync_folder(path.parent)
    except OSError as error:
        if error.filename in (None, str(temporary), temporary):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def publish(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`: by a second name for it where the file system can, else as a copy.

    In one step, as `replacing`. The two are independent as long as nobody writes into a file in place.

    Raises:
        OSError: it cannot be made; `target` stays as it was.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as temporary:
        linked = temporary.with_name(f"{temporary.name}.link")
        try:
            os.link(source, linked)
        except OSError:  # another disk, or one that knows no second names
            shutil.copyfile(source, temporary)
        else:
            linked.replace(temporary)


def sentence_of(error: OSError, place: Path | str = "") -> str:
    """What the system has against a file, as one sentence; `place` is named where the error names no file."""
    what = error.strerror or str(error) or type(error).__name__
    named = error.filename if isinstance(error.filename, str | os.PathLike) else place
    where = f"{os.fspath(named)}: " if named else ""
    return f"{where}cannot be read or written: {what}. Check the path, its rights and the space on its disk."


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable; Windows has no handle for a folder."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def typed_path(text: str | Path) -> Path:
    """A path as people type or paste it: without blanks and quotes around it, `file://` taken off, `~` filled in.

    What is there under just this name is meant as it is.
    """
    plain = str(text)
    meant = Path(_bare(plain))
    with contextlib.suppress(RuntimeError):  # ~nobody
        meant = meant.expanduser()
    with contextlib.suppress(OSError, ValueError):
        if str(meant) != plain and Path(plain).exists():
            return Path(plain)
    return meant


def typed_text(text: str) -> str:
    """The same as text, for settings: nothing is nothing, and a path that needs no mending stays as it is written."""
    if not text.strip():
        return ""
    path = typed_path(text)
    return text if path == Path(text) else str(path)


def typed_meanings(text: str | Path) -> tuple[Path, ...]:
    """Every path that `typed_path` may take a text for, whatever is there: for who has to judge a path beforehand, and
    for one that is read more than once on its way."""
    found: dict[Path, None] = {}
    texts = [str(text)]
    for one in texts:
        for path in (Path(one), Path(_bare(one))):
            found[path] = None
            with contextlib.suppress(RuntimeError):
                found[path.expanduser()] = None
        texts += [meant for meant in map(str, found) if meant not in texts]  # `"/a"/` is `"/a"`, and then `/a`
    return tuple(found)


def _bare(text: str) -> str:
    """A path's text without what stands around it."""
    plain = text.strip()
    while len(plain) > 1 and any(plain[0] == opening and plain[-1] == closing for opening, closing in _QUOTES):
        plain = plain[1:-1].strip()
    if match := _FILE_ADDRESS.match(plain):
        plain = unquote(plain[match.end() :])
        plain = plain[1:] if _DRIVE.match(plain) else plain
    return plain


def is_taken(path: Path) -> bool:
    """Whether there is anything at `path`, also a link that leads nowhere; False where nobody may look."""
    return os.path.lexists(path)


def cache_home() -> Path:
    """The folder for what can be made again (facts about pictures, unpacked archives); it may not exist yet.

    `PIVOTAL_CACHE` if it is set, else `pivotal-tuning` in the user's cache folder.
    """
    if given := os.environ.get("PIVOTAL_CACHE"):
        return typed_path(given)
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "pivotal-tuning"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pivotal-tuning"
