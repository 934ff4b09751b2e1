"""Who is drawn when: a fixed, endless order that can be asked at any point, so that resuming needs only a number."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from lib_pivotal.errors import DataError

_CACHED_EPOCHS = 4


class Stream:
    """An endless shuffled sequence of items in which item i comes `rates[i]` times an epoch.

    In epoch e it comes floor((e+1)·r + u) - floor(e·r + u) times, u random in [0, 1): exactly r times for a whole r,
    else r on average with the least possible spread (systematic sampling). `at` costs the same at any position.
    """

    def __init__(self, items: Sequence[int], rates: Sequence[float], *, seed: str) -> None:
        self._items = np.asarray(items, dtype=np.int64)
        self._rates = np.asarray(rates, dtype=np.float64)
        rng = random.Random(f"{seed}/offsets")
        self._offsets = np.asarray([rng.random() for _ in items], dtype=np.float64)
        self._seed = seed
        self._epochs: OrderedDict[int, list[int]] = OrderedDict()

    def _counts_before(self, epoch: int) -> NDArray[np.float64]:
        return np.floor(epoch * self._rates + self._offsets)

    def _before(self, epoch: int) -> int:
        return int(self._counts_before(epoch).sum())

    def _epoch(self, epoch: int) -> list[int]:
        if epoch not in self._epochs:
            counts = (self._counts_before(epoch + 1) - self._counts_before(epoch)).astype(np.int64)
            order: list[int] = np.repeat(self._items, counts).tolist()
            random.Random(f"{self._seed}/epoch/{epoch}").shuffle(order)
            self._epochs[epoch] = order
            while len(self._epochs) > _CACHED_EPOCHS:
                self._epochs.popitem(last=False)
        return self._epochs[epoch]

    def at(self, start: int, count: int) -> list[int]:
        """The items at positions `start` to `start + count`."""
        epoch = _interval(start, self._before, mean=float(self._rates.sum()))
        skip = start - self._before(epoch)
        found: list[int] = []
        while len(found) < count:
            order = self._epoch(epoch)
            found += order[skip : skip + count - len(found)]
            epoch, skip = epoch + 1, 0
        return found


class Sampler:
    """Groups of `batch_size` items of one bucket each, buckets mixed at random, every item at its rate.

    `buckets` names each item's bucket, `rates` says how often it comes an epoch (its repeats, or any weight).
    Within an epoch each bucket gets as many groups as its share asks, rounded so that nothing is lost over epochs:
    no bucket is padded and no remainder dropped.
    """

    def __init__(self, buckets: Sequence[str], rates: Sequence[float], *, batch_size: int, seed: int) -> None:
        if len(buckets) != len(rates):
            raise DataError(f"{len(buckets)} buckets but {len(rates)} sampling weights: give one of each per picture.")
        if batch_size < 1:
            raise DataError(f"batch_size = {batch_size}: a batch holds at least one picture.")
        if any(not np.isfinite(rate) or rate < 0 for rate in rates) or not sum(rates) > 0:
            raise DataError(
                "sampling weights of pictures must be finite, 0 or more, and not all 0. Check repeats and weights."
            )
        self._batch_size, self._seed = batch_size, seed
        self.samples_per_epoch = float(sum(rates))
        self._streams: list[Stream] = []
        totals: list[float] = []
        for name in sorted(set(buckets)):
            inside = [item for item, bucket in enumerate(buckets) if bucket == name and rates[item] > 0]
            if inside:
                own = [float(rates[item]) for item in inside]
                self._streams.append(Stream(inside, own, seed=f"{seed}/bucket/{name}"))
                totals.append(float(sum(own)))
        rng = random.Random(f"{seed}/quota")
        self._totals = np.asarray(totals, dtype=np.float64)
        self._offsets = np.asarray([rng.random() for _ in totals], dtype=np.float64)
        self._blocks: OrderedDict[int, list[tuple[int, int]]] = OrderedDict()

    def group(self, index: int) -> list[int]:
        """The items of group `index` (0, 1, 2, ... without end)."""
        block = _interval(index, self._groups_before, mean=self.samples_per_epoch / self._batch_size)
        bucket, nth = self._block(block)[index - self._groups_before(block)]
        return self._streams[bucket].at(nth * self._batch_size, self._batch_size)

    def _quota_before(self, block: int) -> NDArray[np.float64]:
        return np.floor(block * self._totals / self._batch_size + self._offsets)

    def _groups_before(self, block: int) -> int:
        return int(self._quota_before(block).sum())

    def _block(self, block: int) -> list[tuple[int, int]]:
        """For each group of an epoch in its order: its bucket, and which of that bucket's groups it is."""
        if block not in self._blocks:
            first, last = self._quota_before(block), self._quota_before(block + 1)
            turns: list[int] = np.repeat(np.arange(len(first)), (last - first).astype(np.int64)).tolist()
            random.Random(f"{self._seed}/order/{block}").shuffle(turns)
            nth = [int(count) for count in first]
            order: list[tuple[int, int]] = []
            for bucket in turns:  # a bucket's own groups stay in order, so that its epochs do too
                order.append((bucket, nth[bucket]))
                nth[bucket] += 1
            self._blocks[block] = order
            while len(self._blocks) > _CACHED_EPOCHS:
                self._blocks.popitem(last=False)
        return self._blocks[block]


def _interval(position: int, before: Callable[[int], int], *, mean: float) -> int:
    """The epoch that holds `position`: before(e) <= position < before(e + 1)."""
    epoch = max(0, int(position / mean))
    while before(epoch) > position:
        epoch -= 1
    while before(epoch + 1) <= position:
        epoch += 1
    return epoch
