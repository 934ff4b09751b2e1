"""What was found while a conditioning was computed, for as long as the web UI keeps the conditioning for reuse."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Facts:
    """What was found while a conditioning was computed: lines of the infotext, names and hashes of embeddings."""

    parameters: dict[str, Any]
    used: tuple[tuple[str, str], ...]


class FactsOf:
    """Facts of conditionings, each as long as the web UI keeps the conditioning, which is not kept for them."""

    def __init__(self) -> None:
        self._held: list[tuple[weakref.ref[Tensor], Facts]] = []

    def __len__(self) -> int:
        return len(self._held)

    def put(self, conditioning: Any, facts: Facts) -> None:
        """Remember; what belongs to conditionings that are gone is forgotten."""
        anchor = first_tensor(conditioning)
        if anchor is not None:
            self._held = [(known, old) for known, old in self._held if known() is not None and known() is not anchor]
            self._held.append((weakref.ref(anchor), facts))

    def get(self, conditioning: Any) -> Facts | None:
        """Of this very conditioning."""
        anchor = first_tensor(conditioning)
        return next((facts for known, facts in self._held if anchor is not None and known() is anchor), None)


def first_tensor(conditioning: Any) -> Tensor | None:
    """Of what the web UI caches: a `MulticondLearnedConditioning`, or lists of `ScheduledPromptConditioning`, whose
    conditioning is a tensor or, for SDXL, several by name."""
    if isinstance(conditioning, Tensor):
        return conditioning
    inner: Any = getattr(conditioning, "batch", None)
    if inner is None:
        inner = getattr(conditioning, "schedules", None)
    if inner is None:
        inner = getattr(conditioning, "cond", conditioning)
    if isinstance(inner, Tensor):
        return inner
    pieces = inner.values() if isinstance(inner, Mapping) else inner if isinstance(inner, list | tuple) else ()
    return next((found for piece in pieces if (found := first_tensor(piece)) is not None), None)
