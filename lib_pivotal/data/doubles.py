"""Pictures that are in a dataset twice: files that are equal, and pictures that look the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal

from lib_pivotal.data.fingerprints import maybe_near, near_groups
from lib_pivotal.data.looks import Seen, with_wholes
from lib_pivotal.data.pictures import Look, file_sha256
from lib_pivotal.data.records import Picture, ProblemList

Duplicates = Literal["keep", "skip", "skip_near"]
"""Double pictures: all are drawn; those equal byte for byte only once; also those that look the same only once."""


def find_doubles(
    pictures: Sequence[Picture], seen: Mapping[str, Seen], problems: ProblemList, choice: Duplicates, *, workers: int
) -> set[str]:
    """Name pictures that are there twice; the keys of those that are left out. `seen` are the looks by pictures' keys.

    A picture that turns out to be damaged when it is decoded for this is named and left out, too.
    """
    copies = _equal(pictures, seen, problems, choice)
    left = set() if choice == "keep" else set(copies)
    single = [picture for picture in pictures if picture.key not in copies]
    tops = [look.top for picture in single if isinstance(look := seen[picture.key].look, Look)]
    maybe = [single[index] for index in maybe_near(tops, [(p.width_px, p.height_px) for p in single])]
    prints: dict[str, bytes] = {}
    for picture, whole in zip(maybe, with_wholes([seen[p.key] for p in maybe], workers=workers), strict=True):
        if isinstance(whole.look, Look):
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
    pictures: Sequence[Picture], seen: Mapping[str, Seen], problems: ProblemList, choice: Duplicates
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
