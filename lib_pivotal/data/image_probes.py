"""Looking at many picture files, from the cache where one did not change; and which of them look the same."""

from __future__ import annotations

import contextlib
import errno
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from lib_pivotal.data.fingerprints import maybe_near, near_groups
from lib_pivotal.data.pictures import ImageProbe, file_sha256, look, whole_print
from lib_pivotal.data.records import Picture, ProblemList
from lib_pivotal.data.scan_cache import ScanCache
from lib_pivotal.errors import DataError

_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True)
class ProbedImage:
    """A look at a file, or why there is none; the file's size, its path below the source, and the source's cache."""

    path: Path
    look: ImageProbe | str
    size_bytes: int
    key: str
    cache: ScanCache


def look_at(files: Sequence[Path], keys: Sequence[str], cache: ScanCache, *, workers: int) -> list[ProbedImage]:
    """A look at each file."""
    found: dict[int, ProbedImage] = {}
    for index, (path, key) in enumerate(zip(files, keys, strict=True)):
        with contextlib.suppress(OSError):  # said by `_look`
            stat = path.stat()
            if (known := cache.get(key, stat)) is not None:
                found[index] = ProbedImage(path, known, stat.st_size, key, cache)
    missing = [index for index in range(len(files)) if index not in found]
    looks = _in_threads(lambda index: _look(files[index], keys[index], cache), missing, workers=workers)
    found.update(zip(missing, looks, strict=True))
    return [found[index] for index in range(len(files))]


def with_wholes(seen: Sequence[ProbedImage], *, workers: int) -> list[ProbedImage]:
    """The same with fingerprints of whole pictures, or with what is wrong where one cannot be made."""
    missing = [one for one in seen if not isinstance(one.look, str) and not one.look.print]
    made = iter(_in_threads(_with_whole, missing, workers=workers))
    return [one if isinstance(one.look, str) or one.look.print else next(made) for one in seen]


def _look(path: Path, key: str, cache: ScanCache) -> ProbedImage:
    """A look at a file that is not in the cache yet."""
    try:
        stat = path.stat()
        seen = look(path)
        cache.put(key, stat, seen)
        return ProbedImage(path, seen, stat.st_size, key, cache)
    except DataError as error:
        return ProbedImage(path, str(error), 0, key, cache)
    except OSError as error:
        remedy = "It may be a link to what is gone." if error.errno == errno.ENOENT else "Fix its permissions."
        text = f"{path.name}: cannot be opened ({error.strerror}). {remedy}"
        return ProbedImage(path, text, 0, key, cache)


def _with_whole(seen: ProbedImage) -> ProbedImage:
    assert isinstance(seen.look, ImageProbe)
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


Duplicates = Literal["keep", "skip", "skip_near"]
"""Double pictures: all are drawn; those equal byte for byte only once; also those that look the same only once."""


def find_doubles(
    pictures: Sequence[Picture],
    seen: Mapping[str, ProbedImage],
    problems: ProblemList,
    choice: Duplicates,
    *,
    workers: int,
) -> set[str]:
    """Name pictures that are there twice; the keys of those that are left out. `seen` are the looks by pictures' keys.

    A picture that turns out to be damaged when it is decoded for this is named and left out, too.
    """
    copies = _equal(pictures, seen, problems, choice)
    left = set() if choice == "keep" else set(copies)
    single = [picture for picture in pictures if picture.key not in copies]
    tops = [look.top for picture in single if isinstance(look := seen[picture.key].look, ImageProbe)]
    maybe = [single[index] for index in maybe_near(tops, [(p.width_px, p.height_px) for p in single])]
    prints: dict[str, bytes] = {}
    for picture, whole in zip(maybe, with_wholes([seen[p.key] for p in maybe], workers=workers), strict=True):
        if isinstance(whole.look, ImageProbe):
            prints[picture.key] = whole.look.print
        else:
            problems.say("error", "unreadable", f"{whole.look} It is left out.", [picture.key])
            left.add(picture.key)
    maybe = [picture for picture in maybe if picture.key in prints]
    for near in near_groups([prints[p.key] for p in maybe], [(p.width_px, p.height_px) for p in maybe]):
        keys = [maybe[index].key for index in near]
        what = "only the largest is used" if choice == "skip_near" else "each is sampled"
        text = f"{keys[0]}: {len(keys)} pictures look the same (other sizes, or saved again); {what}."
        problems.say("warning", "near_double", f"{text} Keep the best one, or leave near doubles out.", keys)
        if choice == "skip_near":
            left.update(keys[1:])
    return left


def _equal(
    pictures: Sequence[Picture], seen: Mapping[str, ProbedImage], problems: ProblemList, choice: Duplicates
) -> set[str]:
    """Name files that are equal; all keys but each first. Hashes only files of equal length."""
    by_length: dict[int, list[Picture]] = defaultdict(list)
    for picture in pictures:
        by_length[seen[picture.key].size_bytes].append(picture)
    groups: dict[str, list[Picture]] = defaultdict(list)
    for same_length in by_length.values():
        if len(same_length) > 1:
            for picture in same_length:
                groups[file_sha256(picture.path)].append(picture)
    copies: set[str] = set()
    for group in groups.values():
        if len(group) > 1:
            keys = [picture.key for picture in group]
            what = "each is sampled, so it counts more than others" if choice == "keep" else "only the first is used"
            text = f"{keys[0]}: {len(keys)} files are the same picture; {what}. Delete the copies, or use repeats."
            problems.say("warning", "duplicate", text, keys)
            copies.update(keys[1:])
    return copies
