"""What tells one thing from another when the first is gone: files declared changed, layers of a checkpoint.

An id does not: another object may come to lie where the first one was.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from typing import Any

MARK = "pivotal_layers_mark"
"""Attribute of a checkpoint: its mapping of layers and what stands for it."""

FORGOTTEN_KEPT = 4096


class Forgotten:
    """Files that were declared changed, whatever their stamp says: a number for each that only grows.

    Of the `most` that were declared last each has its own; all others count as declared with the newest of the rest.
    """

    def __init__(self, most: int = FORGOTTEN_KEPT) -> None:
        self._lock = threading.Lock()
        self._most = most
        self._count = itertools.count(1)
        self._last: OrderedDict[str, int] = OrderedDict()
        self._rest = 0

    def add(self, path: str) -> None:
        """This file is another from now on."""
        with self._lock:
            self._last[path] = next(self._count)
            self._last.move_to_end(path)
            while len(self._last) > self._most:
                self._rest = self._last.popitem(last=False)[1]

    def number(self, path: str) -> int:
        """Another one after each `add` of this path, and never one that it had before."""
        with self._lock:
            return self._last.get(path, self._rest)


def mark_of_layers(model: Any) -> object | None:
    """An object that stands for a checkpoint's mapping of layers, another one for another mapping; None without one.

    It lies on the checkpoint beside the mapping, which a network must not keep: it holds all layers of a checkpoint.
    """
    mapping = getattr(model, "network_layer_mapping", None)
    if mapping is None:
        return None
    known = getattr(model, MARK, None)
    if known is None or known[0] is not mapping:
        known = (mapping, object())
        setattr(model, MARK, known)
    mark: object = known[1]
    return mark
