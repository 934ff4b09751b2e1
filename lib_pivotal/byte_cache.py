"""A cache that is bounded by bytes: what was not used for the longest time goes first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class ByteCache(Generic[K, V]):
    """At most `most_bytes` of values, the least recently used are dropped for new ones; safe from any thread.

    A value tells its size when it is put. One that is larger than the whole cache is not kept.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._held: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._held_bytes = 0
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """Sum of the sizes of what is held."""
        return self._held_bytes

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: K) -> V | None:
        """The value, which counts as used now; None where there is none."""
        with self._lock:
            found = self._held.get(key)
            if found is None:
                return None
            self._held.move_to_end(key)
            return found[0]

    def put(self, key: K, value: V, *, size_bytes: int) -> None:
        """Keep a value, in the place of one of the same key."""
        with self._lock:
            self._drop(key)
            if size_bytes > self.most_bytes:
                return
            self._held[key] = value, size_bytes
            self._held_bytes += size_bytes
            while self._held_bytes > self.most_bytes:
                self._drop(next(iter(self._held)))

    def pop(self, key: K) -> None:
        """Forget one; nothing where there is none."""
        with self._lock:
            self._drop(key)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._held.clear()
            self._held_bytes = 0

    def values(self) -> list[V]:
        """What is held, the least recently used first; counts as no use."""
        with self._lock:
            return [value for value, _ in self._held.values()]

    def _drop(self, key: K) -> None:
        found = self._held.pop(key, None)
        if found is not None:
            self._held_bytes -= found[1]
