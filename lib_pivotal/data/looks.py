"""Looking at many picture files: from the cache where one did not change, the others in threads."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from lib_pivotal.data.pictures import Look, look, whole_print
from lib_pivotal.data.scan_cache import ScanCache
from lib_pivotal.errors import DataError

_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True)
class Seen:
    """A look at a file, or why there is none; the file's size, its path below the source, and the source's cache."""

    path: Path
    look: Look | str
    size_bytes: int
    key: str
    cache: ScanCache


def look_at(files: Sequence[Path], keys: Sequence[str], cache: ScanCache, *, workers: int) -> list[Seen]:
    """A look at each file."""
    found: dict[int, Seen] = {}
    for index, (path, key) in enumerate(zip(files, keys, strict=True)):
        with contextlib.suppress(OSError):  # said by `_look`
            stat = path.stat()
            if (known := cache.get(key, stat)) is not None:
                found[index] = Seen(path, known, stat.st_size, key, cache)
    missing = [index for index in range(len(files)) if index not in found]
    looks = _in_threads(lambda index: _look(files[index], keys[index], cache), missing, workers=workers)
    found.update(zip(missing, looks, strict=True))
    return [found[index] for index in range(len(files))]


def with_wholes(seen: Sequence[Seen], *, workers: int) -> list[Seen]:
    """The same with fingerprints of whole pictures, or with what is wrong where one cannot be made."""
    missing = [one for one in seen if not isinstance(one.look, str) and not one.look.print]
    made = iter(_in_threads(_with_whole, missing, workers=workers))
    return [one if isinstance(one.look, str) or one.look.print else next(made) for one in seen]


def _look(path: Path, key: str, cache: ScanCache) -> Seen:
    """A look at a file that is not in the cache yet."""
    try:
        stat = path.stat()
        seen = look(path)
        cache.put(key, stat, seen)
        return Seen(path, seen, stat.st_size, key, cache)
    except DataError as error:
        return Seen(path, str(error), 0, key, cache)
    except OSError as error:
        remedy = "It may be a link to what is gone." if error.errno == errno.ENOENT else "Fix its permissions."
        text = f"{path.name}: cannot be opened ({error.strerror}). {remedy}"
        return Seen(path, text, 0, key, cache)


def _with_whole(seen: Seen) -> Seen:
    assert isinstance(seen.look, Look)
    try:
        fuller = replace(seen.look, print=whole_print(seen.path))
    except DataError as error:
        return replace(seen, look=str(error))
    seen.cache.complete(seen.key, fuller)
    return replace(seen, look=fuller)


def _in_threads(act: Callable[[_T], _R], things: Sequence[_T], *, workers: int) -> list[_R]:
    if not things:
        return []
    with ThreadPoolExecutor(max_workers=workers) as pool:  # Pillow releases the lock while it decodes
        return list(pool.map(act, things))
