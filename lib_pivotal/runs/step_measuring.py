"""Measures the kept steps of a run on the checkpoint, and keeps the figures in the run's folder."""

from __future__ import annotations

import contextlib
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from lib_pivotal.bundle.reader import read_bundle, require
from lib_pivotal.config import Run
from lib_pivotal.data.captions import EmbeddingFinder
from lib_pivotal.data.latents import LatentCache
from lib_pivotal.data.records import Picture
from lib_pivotal.data.sources.source import DatasetFile
from lib_pivotal.errors import DataError, HostError
from lib_pivotal.evaluation.loading import load_on_host
from lib_pivotal.evaluation.step_choice import StepRecord
from lib_pivotal.evaluation.step_measures import diversity, drift, obedience
from lib_pivotal.files import replacing, sentence_of
from lib_pivotal.ports import Host, SampleRequest, TrainingBatch
from lib_pivotal.runs.step_records import FIGURES_SUFFIX
from lib_pivotal.training.assemble import compile_run
from lib_pivotal.training.build import make_latents, make_micro_step
from lib_pivotal.training.prepare import prepare_pictures
from lib_pivotal.training.prepared import Prepared

PICTURES = 8
"""So many pictures are looked at, spread over the embeddings."""
SEEDS = 4
"""So many samples of each embedding tell the diversity."""
EMBEDDINGS = 4
"""Of so many embeddings, at most."""


def measure_steps(
    run: Run,
    records: Sequence[StepRecord],
    host: Host,
    folder: Path,
    *,
    files: Sequence[DatasetFile] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[int, dict[str, float]]:
    """Drift, obedience and diversity of each step, written to `NAME.figures.json`; answers them by step.

    Raises:
        ConfigError, DataError: the run's pictures cannot be read any more.
        HostError: the figures cannot be written.
    """
    chosen = _chosen(run, files)
    found: dict[int, dict[str, float]] = {}
    with host.session(chosen.session):
        batches = _batches(chosen, host)
        for done, record in enumerate(records):
            progress(done, len(records))
            found[record.step] = _measured(chosen, record.file, host, batches)
        progress(len(records), len(records))
    path = folder / f"{run.name}{FIGURES_SUFFIX}"
    try:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(found, indent=1), encoding="utf-8")
    except OSError as error:
        raise HostError(sentence_of(error, path)) from error
    return found


def _measured(prepared: Prepared, file: Path, host: Host, batches: Sequence[TrainingBatch]) -> dict[str, float]:
    embeddings, network = load_on_host(host, require(read_bundle(file)))
    micro_step = make_micro_step(prepared, host, network)
    with contextlib.nullcontext() if network is None else network.attach():
        figures = {
            "drift": drift(micro_step, batches, network),
            "obedience": obedience(micro_step, batches, embeddings),
        }
    spread = []
    with contextlib.nullcontext() if network is None else network.merged():
        for name in list(embeddings)[:EMBEDDINGS]:
            side = prepared.outputs.side_px
            requests = [SampleRequest(name, width_px=side, height_px=side, seed=seed) for seed in range(SEEDS)]
            spread.append(diversity(host.sample(requests, embeddings)))
    known = [value for value in spread if value is not None]
    figures["diversity"] = statistics.fmean(known) if known else None
    return {name: value for name, value in figures.items() if value is not None}


def _chosen(run: Run, files: Sequence[DatasetFile]) -> Prepared:
    """The compiled run on a few of its pictures."""
    plain = replace(run.regularisation, folder="")
    prepared = prepare_pictures(replace(run, regularisation=plain), files=files)
    names = [embedding.name for embedding in run.embeddings]
    few = tuple(_spread(prepared.pictures, names))
    if not few:
        raise DataError(f"{run.data.folder}: no picture of an embedding is there any more")
    return compile_run(replace(run, regularisation=plain), replace(prepared, pictures=few, held_out=()))


def _spread(pictures: Sequence[Picture], names: Sequence[str]) -> Iterator[Picture]:
    """The first pictures of each embedding in turn, `PICTURES` in all."""
    find = EmbeddingFinder(names)
    by_name: dict[str, list[Picture]] = {}
    for picture in pictures:
        for name in find(picture.flat)[:1]:
            by_name.setdefault(name, []).append(picture)
    turns = (column[turn] for turn in range(PICTURES) for column in by_name.values() if turn < len(column))
    for _, picture in zip(range(PICTURES), turns, strict=False):
        yield picture


def _batches(prepared: Prepared, host: Host) -> list[TrainingBatch]:
    with tempfile.TemporaryDirectory() as spill, host.codec.placed():
        cache, _ = make_latents(prepared.latents, host, spill=Path(spill))
        return [_batch(cache, picture.key, picture.flat, prepared.word_names) for picture in cache.pictures]


def _batch(cache: LatentCache, key: str, caption: str, names: Sequence[str]) -> TrainingBatch:
    """A picture as it is, under its caption as it is trained, without shuffling and dropout."""
    entry = cache.get(key)
    return TrainingBatch(
        latents=entry.mean[None],
        captions=[caption],
        mask=None,
        weights=torch.ones(1),
        keys=[key],
        embeddings=[EmbeddingFinder(names)(caption)],
        sizes=torch.tensor([cache.sizes(key)]),
        inpaint=None if entry.inpaint is None else entry.inpaint[None],
    )
