"""Pictures that look the same: a small fingerprint of each, and the groups that are nearly alike.

A fingerprint is the picture itself at 16 x 16 px. Saving and scaling change it a little everywhere; another expression
or another shirt changes it much in one place, so that the largest differences count, not the mean alone: two drawings
of one character on a plain ground are mostly ground. The limits are measured, see docs/datasets.md.

Whoever looks the same also does so at the top. Fingerprints of tops alone, which cost less to make, tell of most
pictures that they look like no other one (`maybe_near`); none is missed by that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

Array = np.ndarray[Any, Any]

CELLS = 16
TOP_CELLS = 4
"""Rows of cells of the top."""
MOST_DIFFERENCE = 9.0
"""Root mean square by which near doubles differ at most, of 255."""
MOST_IN_PLACE = 24.0
"""By which a colour channel differs at most in any of the 8 x 8 places of 2 x 2 cells: near doubles 0 to 10, where
1 % was cut off from each side 10 to 22, another expression 9 to 90."""
MOST_PEAK = 8.0
"""How many times its root mean square a difference is at most in one cell: near doubles 4 to 8, a small mouth that
opens 10 to 20."""
CONTRAST_SHARE = 0.25
"""By which near doubles differ at most, of the spread of their cells: dark pictures are all alike in numbers."""
MOST_SHAPE = 0.03
"""By which their shapes (width : height) differ at most."""
SIZE_BYTES, TOP_BYTES = CELLS * CELLS * 3, TOP_CELLS * CELLS * 3

_FLAT = 1.0
_FAINT = 1.25
_BLOCK = 512
_PAIRS = 2**14
_FEW_PAIRS = 2**11
_ROUNDING = 1.0
"""Fingerprints are whole numbers, one that was made of a top may be one off."""


def fingerprint(rgb: Image.Image) -> bytes:
    """`CELLS` rows of `CELLS` cells, RGB, of an upright RGB picture."""
    return np.asarray(rgb.resize((CELLS, CELLS), Image.Resampling.BILINEAR), dtype=np.uint8).tobytes()


def rows_of_top(height_px: int) -> int:
    """How many rows of a picture the fingerprint of its top depends on: a cell's share reaches half into the next."""
    return min(height_px, -(-height_px * (2 * TOP_CELLS + 1) // (2 * CELLS)) + 1)


def top_fingerprint(rows: Image.Image, *, height_px: int) -> bytes:
    """What `top_of` gives of the whole, from the first `rows_of_top` rows of a picture `height_px` high."""
    box = (0, 0, rows.width, height_px * TOP_CELLS / CELLS)
    return np.asarray(rows.resize((CELLS, TOP_CELLS), Image.Resampling.BILINEAR, box=box), dtype=np.uint8).tobytes()


def top_of(whole: bytes) -> bytes:
    """The part of a fingerprint that is of the top."""
    return whole[:TOP_BYTES]


def maybe_near(tops: Sequence[bytes], sizes_px: Sequence[tuple[int, int]]) -> list[int]:
    """Positions of those that may look like another one, going by their tops; all others look like none."""
    if len(tops) < 2:
        return []
    places = _places(np.frombuffer(b"".join(tops), dtype=np.uint8).reshape(len(tops), TOP_CELLS, CELLS, 3))
    shapes = _shapes(sizes_px)
    found = np.zeros(len(tops), dtype=bool)
    limit = MOST_DIFFERENCE * (CELLS / TOP_CELLS) ** 0.5 + _ROUNDING
    for first, second in _close(places, limit):
        near = np.abs(shapes[first] - shapes[second]) <= MOST_SHAPE
        first, second = first[near], second[near]
        while len(first):  # one partner is enough: of many white tops a few pairs tell
            a, b = first[:_FEW_PAIRS], second[:_FEW_PAIRS]
            near = _most(places, a, b) <= MOST_IN_PLACE + _ROUNDING
            found[a[near]] = True
            found[b[near]] = True
            first, second = first[_FEW_PAIRS:], second[_FEW_PAIRS:]
            left = ~(found[first] & found[second])
            first, second = first[left], second[left]
    return [int(position) for position in np.flatnonzero(found)]


def near_groups(prints: Sequence[bytes], sizes_px: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Groups of pictures that look the same, as positions: the one with the most pixels first, the others by position.

    `sizes_px` are widths and heights. Nobody is in two groups, and everybody in one looks like its first: a slow pan
    whose every frame is near to the next does not become one group.
    """
    if len(prints) < 2:
        return []
    table = np.frombuffer(b"".join(prints), dtype=np.uint8).reshape(len(prints), CELLS, CELLS, 3)
    near: dict[int, list[int]] = defaultdict(list)
    for first, second in _near_pairs(table, _shapes(sizes_px)):
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


def _near_pairs(table: Array, shapes: Array) -> Iterator[tuple[int, int]]:
    places = _places(table)
    cells = table.reshape(len(table), -1).astype(np.int16)
    spread = cells.astype(np.float32).std(axis=1)
    for first, second in _close(places, MOST_DIFFERENCE):
        close = np.abs(shapes[first] - shapes[second]) <= MOST_SHAPE
        first, second = first[close], second[close]
        close = _most(places, first, second) <= MOST_IN_PLACE
        first, second = first[close], second[close]
        limit = np.minimum(MOST_DIFFERENCE, CONTRAST_SHARE * np.minimum(spread[first], spread[second]))
        difference, peak = _differences(cells, first, second)
        close = (difference <= np.maximum(limit, _FLAT)) & (peak <= MOST_PEAK * np.maximum(difference, _FAINT))
        yield from zip(first[close].tolist(), second[close].tolist(), strict=True)


def _places(table: Array) -> Array:
    """Means of 2 x 2 cells of `(n, rows, columns, 3)`, flat and around 0: `(n, places)`."""
    sums = table[:, 0::2].astype(np.float32) + table[:, 1::2]
    sums = sums[:, :, 0::2] + sums[:, :, 1::2]
    return sums.reshape(len(table), -1) * np.float32(0.25) - np.float32(128)


def _shapes(sizes_px: Sequence[tuple[int, int]]) -> Array:
    return np.log(np.array([max(width, 1) / max(height, 1) for width, height in sizes_px], dtype=np.float64))


def _close(points: Array, limit: float) -> Iterator[tuple[Array, Array]]:
    """Positions of all pairs of points `(n, d)` whose root mean square difference is at most `limit`, and a few more.

    In blocks: points in the order of their means are only compared with those whose mean is near, which it then is.
    """
    order = np.argsort(points.mean(axis=1), kind="stable")
    points = points[order]
    means = points.mean(axis=1)
    ends = np.searchsorted(means, means + limit * 1.001, side="right")
    most = limit**2 * points.shape[1] * 1.001 + 1.0  # the sums are of single precision
    lengths = np.square(points).sum(axis=1, keepdims=True)
    ones = np.ones_like(lengths)
    left, right = np.hstack([points * -2, lengths, ones]), np.hstack([points, ones, lengths]).T
    for start in range(0, len(points), _BLOCK):
        stop = min(start + _BLOCK, len(points))
        first, second = np.nonzero(left[start:stop] @ right[:, start : int(ends[stop - 1])] <= most)
        once = second > first
        yield order[start + first[once]], order[start + second[once]]


def _most(points: Array, first: Array, second: Array) -> Array:
    """The largest difference of each pair of points."""
    return _by_pairs(first, second, lambda a, b: np.abs(points[a] - points[b]).max(axis=1))


def _differences(cells: Array, first: Array, second: Array) -> tuple[Array, Array]:
    """The root mean square difference of each pair, and the largest one."""

    def of(a: Array, b: Array) -> Array:
        apart = (cells[a] - cells[b]).astype(np.float32)
        return np.stack([np.sqrt(np.square(apart).mean(axis=1)), np.abs(apart).max(axis=1)], axis=1)

    found = _by_pairs(first, second, of).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _by_pairs(first: Array, second: Array, of: Callable[[Array, Array], Array]) -> Array:
    """`of` for so many pairs at once that they are no burden."""
    starts = range(0, len(first), _PAIRS)
    parts = [of(first[start : start + _PAIRS], second[start : start + _PAIRS]) for start in starts]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)
