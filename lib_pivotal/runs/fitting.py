"""Whether a run fits into the memory that its device has, and what to change where it does not."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lib_pivotal.config import Run
from lib_pivotal.oom import is_out_of_memory
from lib_pivotal.ports import Host
from lib_pivotal.training.assemble import compile_run
from lib_pivotal.training.memory import CONTEXT_BYTES, PURPOSES, MemoryCount, count_memory, weight_bytes
from lib_pivotal.training.prepare import PreparedPictures

logger = logging.getLogger(__name__)

GB = 2**30
CLOSE = 0.92
"""Beyond this share of what is free, a run is said to fit closely: gaps in the allocator's memory are not counted."""


@dataclass(frozen=True)
class MemoryVerdict:
    """Memory in bytes, None where unknown; `fits` is None where need or room is unknown."""

    needed_bytes: int | None = None
    free_bytes: int | None = None
    total_bytes: int | None = None
    parts: dict[str, int] | None = None
    moment: str = ""
    fits: bool | None = None
    remarks: tuple[str, ...] = ()


def judge(run: Run, host: Host, prepared: PreparedPictures) -> MemoryVerdict:
    """Count the run, compare it with the device, and where it does not fit, look for settings with which it does.

    A checkpoint that cannot be counted (modules that need numbers) does not stop anything: it is said.
    """
    total, free = room(host)
    try:
        count = count_memory(compile_run(run, prepared), host)
    except Exception as error:  # any module of any extension may be in the model
        if is_out_of_memory(error):
            raise
        logger.warning("memory could not be counted", exc_info=True)
        told = f"What the run needs of memory could not be counted ({type(error).__name__}: {error})."
        return MemoryVerdict(free_bytes=free, total_bytes=total, remarks=(told,))
    needed = count.total_bytes
    fits = None if free is None else needed <= free
    remarks: tuple[str, ...] = ()
    if free is not None and not fits:

        def need(other: Run) -> int:
            return count_memory(compile_run(other, prepared), host).total_bytes

        remarks = tuple(advice(run, needed, need, free))
    elif free is not None and needed > CLOSE * free:
        remarks = (f"It fits closely: {needed / GB:.1f} of {free / GB:.1f} GB that are free. Close other programs.",)
    return MemoryVerdict(needed, free, total, by_purpose(count), count.largest.name, fits, remarks)


def by_purpose(count: MemoryCount) -> dict[str, int]:
    """The largest moment's bytes by what they are for, in the words and the order that people read."""
    return {PURPOSES[part]: size for part, size in count.largest.parts.items()}


def room(host: Host) -> tuple[int | None, int | None]:
    """What the device has in all, and what the run with the checkpoint could have: what is free and what the checkpoint
    takes already. Of the machine's memory where there is no GPU (Linux only)."""
    own = sum(weight_bytes(modules) for modules in host.modules().values())
    if host.device.type == "cuda":
        free, total = torch.cuda.mem_get_info(host.device)
        idle = torch.cuda.memory_reserved(host.device) - torch.cuda.memory_allocated(host.device)
        here = sum(
            weight_bytes([module])
            for modules in host.modules().values()
            for module in modules
            if next(module.parameters()).device.type == "cuda"
        )
        return total, min(total, free + idle + here + CONTEXT_BYTES)
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, ValueError, AttributeError, StopIteration):
        return None, None
    return total, min(total, available + own)


CALM = "no samples while it trains"


def advice(run: Run, needed: int, count: Callable[[Run], int], free: int) -> Iterator[str]:
    """What is wrong, then the first change of settings with which the run fits, or that none does; in bytes."""
    yield f"It does not fit: {needed / GB:.1f} GB are needed, {free / GB:.1f} GB are free."
    least = needed
    for embeddings, other in changes(run):
        least = min(least, size := count(other))
        if size <= free:
            yield f"It fits with {embeddings}: {size / GB:.1f} GB."
            return
    yield (
        f"Even one picture at a time with gradient checkpointing needs {least / GB:.1f} GB. Lower data.resolution_px, "
        "load the checkpoint in half precision, or choose a smaller one."
    )


def changes(run: Run) -> Iterator[tuple[str, Run]]:
    """Settings that need less, the ones that cost least first. The effective batch stays the same."""
    calm = replace(run, saving=replace(run.saving, sample_every_steps=0))
    if calm == run:
        yield from _lighter(run)
        return
    yield CALM, calm
    yield from _lighter(run)
    for embeddings, other in _lighter(calm):
        yield f"{embeddings}, {CALM}", other


def _lighter(run: Run) -> Iterator[tuple[str, Run]]:
    """Gradient checkpointing, and smaller micro-batches."""
    schedule = run.schedule
    checkpointed = replace(run, memory=replace(run.memory, gradient_checkpointing=True))
    if not run.memory.gradient_checkpointing:
        yield "gradient checkpointing (about 1.4 times the time)", checkpointed
    batch = schedule.batch_size
    while batch > 1:
        parts = next(divisor for divisor in range(2, batch + 1) if batch % divisor == 0)
        batch //= parts
        accumulation = schedule.accumulation * schedule.batch_size // batch
        smaller = replace(checkpointed, schedule=replace(schedule, batch_size=batch, accumulation=accumulation))
        yield f"gradient checkpointing, a batch of {batch} and {accumulation} micro-batches a step", smaller
