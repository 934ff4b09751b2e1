"""Pictures that look the same: a small fingerprint of each, and the groups that are nearly alike.

A fingerprint has 128 bits, whether each of 8 x 8 cells is brighter than its neighbour to the left and the one above
(a difference hash, as described in https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html),
and the mean colours of 9 x 9 cells, so that two drawings of one shape in other colours are not taken for doubles.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

Array = np.ndarray[Any, Any]

CELLS = 9
MOST_BITS = 10
"""Bits in which near doubles differ at most, of 128: scaling and saving as JPEG change 0 to 6, another picture 40."""
MOST_COLOUR = 6.0
"""By which their colours differ on average at most, of 255."""
MOST_SHAPE = 0.03
"""By which their shapes (width : height) differ at most."""
MARGIN = 2
"""Grey levels by which a cell must be brighter: in flat areas noise would else decide."""

SIZE_BYTES = 16 + 3 * CELLS * CELLS


def fingerprint(rgb: Image.Image) -> bytes:
    """16 bytes of bits and 243 of colours (`CELLS` rows of `CELLS` cells, RGB) of an upright RGB picture."""
    cells = np.asarray(rgb.resize((CELLS, CELLS), Image.Resampling.BOX), dtype=np.uint8)
    grey = cells.astype(np.int32) @ np.array([299, 587, 114]) // 1000
    across = grey[:8, 1:] - grey[:8, :-1] > MARGIN
    down = grey[1:, :8] - grey[:-1, :8] > MARGIN
    return np.packbits(np.concatenate([across.ravel(), down.ravel()])).tobytes() + cells.tobytes()


def near_groups(
    prints: Sequence[bytes], sizes_px: Sequence[tuple[int, int]], *, most_bits: int = MOST_BITS
) -> list[list[int]]:
    """Groups of pictures that look the same, as positions: the one with the most pixels first, the others by position.

    `sizes_px` are widths and heights. Nobody is in two groups, and everybody in one looks like its first: a slow pan
    whose every frame is near to the next does not become one group. Two fingerprints that differ in at most
    `most_bits` bits have one of `most_bits + 1` bands of bits in common; only pictures with such a band are compared.
    """
    if len(prints) < 2:
        return []
    table = np.frombuffer(b"".join(prints), dtype=np.uint8).reshape(len(prints), SIZE_BYTES)
    near: dict[int, list[int]] = defaultdict(list)
    for first, second in _near_pairs(table, sizes_px, most_bits):
        near[first].append(second)
        near[second].append(first)
    order = sorted(near, key=lambda index: (-sizes_px[index][0] * sizes_px[index][1], index))
    taken: set[int] = set()
    groups: list[list[int]] = []
    for index in order:
        if index in taken:
            continue
        others = sorted({other for other in near[index] if other not in taken})
        if others:
            groups.append([index, *others])
            taken.update(groups[-1])
    return sorted(groups, key=min)


def _near_pairs(table: Array, sizes_px: Sequence[tuple[int, int]], most_bits: int) -> list[tuple[int, int]]:
    bits = np.unpackbits(table[:, :16], axis=1)
    words = np.ascontiguousarray(table[:, :16]).view(np.uint64)
    colours = table[:, 16:].astype(np.int16)
    shapes = np.log(np.array([width / max(height, 1) for width, height in sizes_px], dtype=np.float64))
    found: set[tuple[int, int]] = set()
    for band in np.array_split(np.arange(bits.shape[1]), most_bits + 1):
        keys = bits[:, band] @ (1 << np.arange(len(band), dtype=np.int64))
        for first, second in _pairs_of_equal(keys):
            differing = sum(_bit_count(words[first, word] ^ words[second, word]) for word in range(2))
            close = (differing <= most_bits) & (np.abs(shapes[first] - shapes[second]) <= MOST_SHAPE)
            a, b = first[close], second[close]
            same = np.abs(colours[a] - colours[b]).mean(axis=1) <= MOST_COLOUR
            found |= {(int(min(x, y)), int(max(x, y))) for x, y in zip(a[same], b[same], strict=True)}
    return sorted(found)


def _pairs_of_equal(keys: Array) -> Iterator[tuple[Array, Array]]:
    """Positions of all pairs with equal keys, in blocks: each with its first neighbour in order, its second, ..."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    left = np.arange(len(order))
    for step in range(1, len(order)):
        left = left[left + step < len(order)]
        left = left[ordered[left] == ordered[left + step]]
        if not len(left):
            return
        yield order[left], order[left + step]


def _bit_count(values: Array) -> Array:
    """Set bits of each of an array of uint64: sums of pairs, of fours, of eights, then of all bytes by one product."""
    values = values - ((values >> np.uint64(1)) & np.uint64(0x5555555555555555))
    values = (values & np.uint64(0x3333333333333333)) + ((values >> np.uint64(2)) & np.uint64(0x3333333333333333))
    values = (values + (values >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return ((values * np.uint64(0x0101010101010101)) >> np.uint64(56)).astype(np.uint16)
