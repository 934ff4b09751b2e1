"""What a run will cost, told before it starts: from a few real steps on the model that is loaded."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lib_pivotal.config import Run, ValidationConfig
from lib_pivotal.data.dataset import Picture
from lib_pivotal.data.sources.source import DatasetFile
from lib_pivotal.errors import Fault, HostError
from lib_pivotal.ports import Host
from lib_pivotal.runs.under_sampled import samples_by_embedding, starvation
from lib_pivotal.training.epochs import settled
from lib_pivotal.training.events import Event, StepDone
from lib_pivotal.training.scanning import PictureParts

if TYPE_CHECKING:
    from lib_pivotal.training.prepare import PreparedPictures

STEPS = 3
"""Steps that are measured; the first, which warms up, does not count."""


@dataclass(frozen=True)
class Preflight:
    """Time and memory of a run, and all that is wrong with it, by field.

    `step_s` one optimiser step, 0 where none could be taken; `total_s` the whole run without pictures; `samples` how
    often each embedding is drawn in the run, on average. Memory in bytes: `memory_bytes` what the run needs, as
    measured on a GPU (by torch's allocator), else as counted, None where it could not be told; `memory_total_bytes`
    what the device has; `memory_free_bytes` what of it the run can have; `memory_parts` the count by what it is for, in
    people's words, at the moment that needs most, which is `memory_moment`.
    """

    step_s: float = 0.0
    total_s: float = 0.0
    memory_bytes: int | None = None
    memory_total_bytes: int | None = None
    memory_free_bytes: int | None = None
    memory_parts: dict[str, int] | None = None
    memory_moment: str = ""
    memory_fits: bool | None = None
    samples: dict[str, float] | None = None
    faults: tuple[Fault, ...] = ()
    remarks: tuple[str, ...] = ()


def measure(run: Run, host: Host, *, files: Sequence[DatasetFile] = ()) -> Preflight:
    """Count the memory that the run needs, train `STEPS` steps on as many pictures as a batch holds, keep nothing, and
    tell what they took. A run that does not fit and whose steps fail is told as one that does not fit. `files` reads
    other trainers' dataset files.

    Raises:
        ConfigError, DataError: settings or pictures that cannot work.
        HostError: the steps failed; says why.
    """
    from lib_pivotal.runs import fitting  # here: a page that only starts needs none of training
    from lib_pivotal.training.assemble import make_buckets, picture_remarks
    from lib_pivotal.training.prepare import prepare_pictures

    prepared = prepare_pictures(run, files=files)
    run = settled(run, prepared.dataset.pictures)  # the run that is trained
    pictures, held_out = _drawn(prepared)
    remarks = picture_remarks(run, prepared, PictureParts(run.data), make_buckets(run.data))
    memory = fitting.judge(run, host, prepared)
    on_gpu = host.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(host.device)
    steps, failure = _take_steps(run, host, _few(prepared, run))
    if failure and memory.fits is not False:
        raise HostError(f"the dry step failed: {failure}")
    step_s = min(steps[1:], default=0.0)
    measured = torch.cuda.max_memory_allocated(host.device) if on_gpu and not failure else None
    return Preflight(
        step_s=step_s,
        total_s=step_s * run.schedule.total_steps,
        memory_bytes=measured if measured is not None else memory.needed_bytes,
        memory_total_bytes=memory.total_bytes,
        memory_free_bytes=memory.free_bytes,
        memory_parts=memory.parts,
        memory_moment=memory.moment,
        memory_fits=memory.fits,
        samples=samples_by_embedding(run, pictures, prepared.embeddings_of, held_out=held_out),
        remarks=memory.remarks
        + tuple(problem.message for problem in remarks)
        + tuple(found.text for found in starvation(run, pictures, prepared.embeddings_of, held_out=held_out)),
    )


def _take_steps(run: Run, host: Host, few: PreparedPictures) -> tuple[list[float], str]:
    """Seconds of each step, and what went wrong, if anything."""
    from lib_pivotal.training.assemble import compile_run
    from lib_pivotal.training.run import train

    steps: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, StepDone):
            steps.append(event.seconds)

    with tempfile.TemporaryDirectory() as folder:
        ended = train(compile_run(_short(run), few), host, output_folder=Path(folder), listener=listen)
    return steps, ended.message if ended.reason == "failed" else ""


def _drawn(prepared: PreparedPictures) -> tuple[list[Picture], frozenset[str]]:
    """All pictures, and the keys of those that are not drawn."""
    order = {picture.key: place for place, picture in enumerate(prepared.dataset.pictures)}
    both = sorted([*prepared.pictures, *prepared.held_out], key=lambda picture: order[picture.key])
    return both, frozenset(picture.key for picture in prepared.held_out)


def _short(run: Run) -> Run:
    """The costliest kind of step, a few times, with nothing saved or drawn on the way."""
    schedule = replace(
        run.schedule,
        max_steps=STEPS,
        warmup_steps=0,
        phases="joint",
        embeddings_steps=0,
        network_start=0.0,
        te_stop=1.0,
        embeddings_only_share=0.0,
    )
    saving = replace(
        run.saving,
        every_steps=0,
        state_every_steps=0,
        sample_every_steps=0,
        separation_every_steps=0,
        embedding_files=False,
    )
    from lib_pivotal.training import assemble

    kept = replace(run.regularisation, batch_size=assemble.class_batch_size(run))  # not that of so short a run
    return replace(
        run,
        name=run.name or "preflight",
        schedule=schedule,
        saving=saving,
        regularisation=kept,
        validation=ValidationConfig(),
    )


def _few(prepared: PreparedPictures, run: Run) -> PreparedPictures:
    """As many pictures as a micro-batch holds, of the commonest bucket."""
    from lib_pivotal.training import assemble

    buckets = assemble.make_buckets(run.data)
    by_bucket: dict[object, list[Picture]] = {}
    for picture in prepared.pictures:
        by_bucket.setdefault(buckets.assign(picture.width_px, picture.height_px).bucket, []).append(picture)
    commonest = max(by_bucket.values(), key=len)
    few = tuple(commonest[: run.schedule.batch_size])
    kept = prepared.regularisation[: assemble.class_batch_size(run)]
    return replace(prepared, pictures=few, held_out=(), validation=(), regularisation=kept)
