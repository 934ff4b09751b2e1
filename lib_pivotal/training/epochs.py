"""A run's length in epochs, as other trainers give it, as steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from lib_pivotal.config import Run
from lib_pivotal.data.records import Picture

MOST_STEPS = 10_000_000


def with_epoch_steps(run: Run, pictures: Sequence[Picture]) -> Run:
    """The run with steps in place of `schedule.epochs`: pictures × repeats ÷ (batch × accumulation), rounded up, times
    the epochs. As it is where it has none."""
    schedule = run.schedule
    if not schedule.epochs or not pictures:
        return run
    draws = sum(picture.repeats for picture in pictures)
    each = max(1, math.ceil(draws / (schedule.batch_size * schedule.accumulation) - 1e-9))
    steps = min(MOST_STEPS, each * schedule.epochs)
    warmup = min(schedule.warmup_steps, steps - 1)
    return replace(run, schedule=replace(schedule, max_steps=steps, warmup_steps=warmup, epochs=0))
