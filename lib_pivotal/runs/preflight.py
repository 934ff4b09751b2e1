"""What a run will cost, told before it starts: from one real dry step on the model that is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from lib_pivotal.errors import Fault


@dataclass(frozen=True)
class Preflight:
    """Time and memory of a run, and all that is wrong with it, by field.

    `step_s` one optimiser step; `total_s` the whole run without pictures; memory in bytes, None where it cannot be
    told (not on a GPU); `draws` how often each word is drawn in the run, on average.
    """

    step_s: float = 0.0
    total_s: float = 0.0
    memory_bytes: int | None = None
    memory_total_bytes: int | None = None
    draws: dict[str, float] | None = None
    faults: tuple[Fault, ...] = ()
    remarks: tuple[str, ...] = ()
