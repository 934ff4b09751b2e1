"""A run's length and intervals in epochs, as other trainers give them, as steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from lib_pivotal.config import Run
from lib_pivotal.config_checks import check_length
from lib_pivotal.data.records import Picture
from lib_pivotal.errors import ConfigError

MOST_STEPS = 10_000_000
INTERVALS = ("every", "state_every", "sample_every")
"""Settings of `saving` that are `NAME_steps`, or `NAME_epochs` until the pictures are known."""


def with_epoch_steps(run: Run, pictures: Sequence[Picture]) -> Run:
    """The run with steps in place of `schedule.epochs` and of intervals in epochs: an epoch is pictures × repeats ÷
    (batch × accumulation), rounded up. As it is where it has none.

    Whoever says, counts or does something with a run's steps takes this run: plan, pre-flight, page and training.
    """
    schedule, saving = run.schedule, run.saving
    intervals = {name: getattr(saving, f"{name}_epochs") for name in INTERVALS}
    if not pictures or not (schedule.epochs or any(intervals.values())):
        return run
    samples = sum(picture.repeats for picture in pictures)
    each = max(1, math.ceil(samples / (schedule.batch_size * schedule.accumulation) - 1e-9))
    if schedule.epochs:
        steps = min(MOST_STEPS, each * schedule.epochs)
        warmup = schedule.warmup_steps if schedule.warmup_steps < 1 else min(schedule.warmup_steps, steps - 1)
        schedule = replace(schedule, max_steps=steps, warmup_steps=warmup, epochs=0)
    for name, epochs in intervals.items():
        if epochs:
            due = min(MOST_STEPS, each * epochs)
            saving = replace(saving, **{f"{name}_steps": due, f"{name}_epochs": 0})
    return replace(run, schedule=schedule, saving=saving)


def settled(run: Run, pictures: Sequence[Picture]) -> Run:
    """`with_epoch_steps`, checked.

    Raises:
        ConfigError: what must fit into the run's length does not fit into the length that the epochs give.
    """
    found = with_epoch_steps(run, pictures)
    if run.schedule.epochs and (faults := check_length(found.schedule)):
        raise ConfigError(faults)
    return found
