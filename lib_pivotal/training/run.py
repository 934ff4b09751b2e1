"""A whole run on a host: from run.json to a verified bundle."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lib_pivotal.config import Run, check_consistency, write_run
from lib_pivotal.config_checks import option_lines
from lib_pivotal.data.batches import BatchSource
from lib_pivotal.data.captions import WordFinder
from lib_pivotal.data.latent_files import remove_entries
from lib_pivotal.data.latents import LatentCache
from lib_pivotal.data.mixing import Mixture
from lib_pivotal.errors import ConfigError, HostError, StateError
from lib_pivotal.networks.network import Network
from lib_pivotal.oom import made_or
from lib_pivotal.plain_json import parse_json
from lib_pivotal.ports import Host, TrainingBatch
from lib_pivotal.training import assemble
from lib_pivotal.training.aside import Aside
from lib_pivotal.training.continuation import check_continuation, describe_basis
from lib_pivotal.training.distributed import World
from lib_pivotal.training.epochs import with_epoch_steps
from lib_pivotal.training.events import Commands, Listener, Notice, Preparing, RunEnded
from lib_pivotal.training.logs import fan_out
from lib_pivotal.training.loop import LoopSettings, Trainer
from lib_pivotal.training.outputs import RunOutputs
from lib_pivotal.training.picture_parts import PictureParts
from lib_pivotal.training.prepare import (
    Prepared,
    make_class_latents,
    make_latents,
    picture_remarks,
    prepare_pictures,
)
from lib_pivotal.training.progress import Progress
from lib_pivotal.training.results import refuse_taken_results
from lib_pivotal.training.seeds import derive_seed
from lib_pivotal.training.state import SavedState, load_latest_state
from lib_pivotal.training.state_files import latest_run_folder, list_states, new_run_folder, states_folder
from lib_pivotal.training.trainable import Trainable
from lib_pivotal.training.wording import draws_as_folders_say, word_of_concepts

logger = logging.getLogger(__name__)
_NO_MEMORY = (
    "memory does not suffice to begin: not for encoding one picture, or not for the network beside the checkpoint. "
    "Lower data.resolution_px or the network's rank, or close other programs"
)


def train(
    run: Run,
    host: Host,
    *,
    output_folder: Path,
    listener: Listener,
    log_folder: Path | None = None,
    commands: Commands | None = None,
    resume: bool = False,
    overwrite: bool = False,
    world: World | None = None,
    aside: Aside | None = None,
) -> RunEnded:
    """Train `run` on `host` and write `<output_folder>/<name>.safetensors`.

    run.json, states and pictures go to `log_folder` (default: `output_folder`). `aside` lets others have the model
    between two steps. With `resume` the run is continued from the newest state that its name has in `log_folder`. A
    file of another run that has its name in `output_folder` is replaced with `overwrite` only.

    Raises before anything starts, and before anything is written, where settings or pictures cannot work (ConfigError,
    DataError) or where the run cannot be continued (StateError): it never starts over by itself. Whatever goes wrong
    later is reported in the returned event, after saving what was good.
    """
    faults = check_consistency(run)
    if faults:
        raise ConfigError(faults)
    world = world or World()
    world.check_size(run.schedule.batch_size)
    return train_prepared(
        assemble.with_name(run, "pivotal"),
        host,
        prepare_pictures(run),
        output_folder=output_folder,
        listener=listener,
        log_folder=log_folder,
        commands=commands or Commands(),
        resume=resume,
        overwrite=overwrite,
        world=world,
        aside=aside,
    )


def train_prepared(
    run: Run,
    host: Host,
    prepared: Prepared,
    *,
    output_folder: Path,
    listener: Listener,
    log_folder: Path | None,
    commands: Commands,
    resume: bool,
    world: World,
    aside: Aside | None,
    overwrite: bool = False,
) -> RunEnded:
    """`train` with pictures and words that are ready, as `prepare_pictures` gives them."""
    run = with_epoch_steps(replace(run, words=prepared.words), prepared.dataset.pictures)
    log_folder = log_folder or output_folder
    listener = fan_out([listener])  # one that fails must not end a run
    saved = _state_to_continue(log_folder, run.name) if resume else None
    with host.session(assemble.session_request(run)):
        remarks, basis = [], describe_basis(run, host, prepared)  # reads every picture's file: once
        if saved is not None:
            remarks = _check_state(saved, run, host, prepared, log_folder, basis)
            refuse_taken_results(run, output_folder, resume=True, overwrite=overwrite)
        if world.writes:
            _record(run, output_folder, log_folder, listener)
            for remark in remarks:
                listener(Notice("warning", 0, remark))
            for problem in (*prepared.dataset.problems, *picture_remarks(run, prepared), *prepared.remarks):
                level = "info" if problem.level == "info" else "warning"
                listener(Notice(level, 0, problem.message))  # type: ignore[arg-type]
        states = states_folder(log_folder, run.name)
        folders = (output_folder, log_folder, _folder_of_states(states, saved, world))
        build = partial(_build, basis=basis, commands=commands, overwrite=overwrite, world=world, aside=aside)
        trainer, network = made_or(
            lambda: build(run, host, prepared, folders, listener),
            HostError(_NO_MEMORY),
        )
        with nullcontext() if network is None else network.attach():
            ended = trainer.run(resume_from=saved)
    if ended.reason == "finished" and world.writes:
        remove_entries(spill_folder(log_folder, run.name))
    return ended


def _state_to_continue(log_folder: Path, name: str) -> SavedState:
    """The newest state of the run that began last. Raises StateError where there is none that can be read."""
    states = states_folder(log_folder, name)
    folder = latest_run_folder(states)
    if folder is None or not list_states(folder):
        raise StateError(
            f"{name!r} cannot be continued: no saved state of it is in {folder or states}. Start a new run"
        )
    return load_latest_state(folder)


def _check_state(
    saved: SavedState, run: Run, host: Host, prepared: Prepared, log_folder: Path, basis: Mapping[str, Any]
) -> list[str]:
    record = _record_path(log_folder, run)
    try:
        recorded = parse_json(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        recorded = None
    return check_continuation(
        saved, run, host, prepared, now=basis, recorded=recorded if isinstance(recorded, dict) else None
    )


def _record_path(log_folder: Path, run: Run) -> Path:
    return log_folder / f"{run.name}.run.json"


def _record(run: Run, output_folder: Path, log_folder: Path, listener: Listener) -> None:
    """The run is accepted: its folders and its run.json. What cannot be written is told; the run does without.

    Raises:
        HostError: there is no folder for what is trained.
    """
    try:
        log_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(f"{log_folder}: cannot be made ({error.strerror}). Choose another folder.") from error
    try:
        output_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        text = f"{output_folder}: cannot be made ({error.strerror}). What is trained stays in {log_folder}"
        listener(Notice("error", 0, text))
    try:
        write_run(_record_path(log_folder, run), run)
    except OSError as error:
        path = _record_path(log_folder, run)
        listener(Notice("error", 0, f"{path}: the settings cannot be written ({error.strerror or error})"))


def _folder_of_states(states: Path, saved: SavedState | None, world: World) -> Path:
    """Where this run's states go: a continued run's lie together, a new run has a folder of its own."""
    if saved is not None and saved.path.parent != states:
        return saved.path.parent
    if not world.writes:
        return states
    try:
        return new_run_folder(states)
    except (OSError, StateError):  # told with the first state that cannot be written
        return states / "run-0001"


def _build(
    run: Run,
    host: Host,
    prepared: Prepared,
    folders: tuple[Path, Path, Path],
    listener: Listener,
    *,
    basis: Mapping[str, Any],
    commands: Commands,
    overwrite: bool,
    world: World,
    aside: Aside | None,
) -> tuple[Trainer, Network | None]:
    """Everything that a trainer needs, on a host whose session is open."""
    output_folder, log_folder, state_folder = folders
    with host.codec.placed():
        cache, source = _sources(run, host, prepared, log_folder, listener, commands=commands, world=world)
    layers = host.layers()
    words = assemble.make_words(run, host.text, host.device)
    initial = {name: tuple(t.detach().clone() for t in towers) for name, towers in words.as_mapping().items()}
    network = assemble.make_network(run, layers, host.device)
    micro_step = assemble.make_micro_step(run, host, network)
    trainable = Trainable(
        words,
        network,
        assemble.trained_groups(run, words, network),
        optimizer=run.schedule.optimizer,
        optimizer_options=option_lines(run.schedule.optimizer_options),
        control=assemble.make_word_control(run, host.text),
        max_norm=run.network.max_norm,
        ema_decay=run.schedule.ema_decay,
        loss_scaling=assemble.autocast_dtype(run.memory, layers[0].module) is torch.float16,
        world=world,
    )
    progress = Progress()
    outputs = RunOutputs(
        run,
        host,
        prepared,
        folder=output_folder,
        log_folder=log_folder,
        trainable=trainable,
        micro_step=micro_step,
        initial_words=initial,
        progress=progress,
        overwrite=overwrite,
        held_out=_held_out_batches(run, prepared, cache),
    )
    plan = assemble.make_phase_plan(run.schedule)
    trainer = Trainer(
        LoopSettings(
            name=run.name,
            seed=run.seed,
            max_steps=run.schedule.max_steps,
            accumulation=source.micro_batches,
            save_every_steps=run.saving.every_steps,
            state_every_steps=run.saving.state_every_steps,
            keep_states=run.saving.keep_states,
            sample_every_steps=run.saving.preview_every_steps,
            separation_every_steps=run.saving.separation_every_steps,
            state_folder=state_folder,
            basis=basis,
        ),
        trainable=trainable,
        micro_step=micro_step,
        source=source,
        plan=plan,
        rate_factor=assemble.make_rate_factor(run.schedule, plan),
        outputs=outputs,
        progress=progress,
        listener=listener,
        commands=commands,
        world=world,
        aside=aside,
        rebind=lambda: None if network is None else network.rebind(host.layers()),
    )
    return trainer, network


def spill_folder(log_folder: Path, name: str) -> Path:
    """Where latents go that memory may not hold; kept while the run can be gone on with."""
    return log_folder / f"{name}.latents"


def _sources(
    run: Run,
    host: Host,
    prepared: Prepared,
    log_folder: Path,
    listener: Listener,
    *,
    commands: Commands,
    world: World,
) -> tuple[LatentCache, Mixture]:
    """The run's own latents, and the batches of all sets."""

    def telling(activity: str) -> Callable[[int, int], None]:
        return lambda done, total: listener(Preparing(activity, done, total))

    spill = spill_folder(log_folder, run.name)
    cache, problems = make_latents(
        run,
        host,
        prepared.pictures,
        held_out=prepared.held_out,
        spill=spill,
        progress=telling("encoding pictures"),
        should_stop=lambda: commands.stopping,
    )
    class_source = None
    if prepared.regularisation:
        class_cache, more = make_class_latents(
            run,
            host,
            prepared.regularisation,
            memory_used_bytes=cache.size_bytes,
            spill=spill,
            progress=telling("encoding class pictures"),
            should_stop=lambda: commands.stopping,
        )
        problems += more
        class_source = _class_source(run, class_cache, world)
    for problem in problems:
        listener(Notice("warning", 0, problem))
    own = batch_source(run, prepared, cache, world, host.text.token_ids)
    return cache, assemble.make_mixture(run, own, class_source)


def batch_source(
    run: Run, prepared: Prepared, cache: LatentCache, world: World, token_ids: Callable[[str], list[int]]
) -> BatchSource:
    """Batches of the run's own pictures: captions, weights and rates by its settings."""
    return BatchSource(
        cache,
        assemble.make_captions(run, word_of_concepts(run, prepared.dataset), token_ids, prepared.pictures),
        batch_size=run.schedule.batch_size,
        accumulation=run.schedule.accumulation,
        words=[word.name for word in run.words],
        seed=run.seed,
        rank=world.rank,
        world_size=world.size,
        latents="draw" if run.data.random_latent else "mean",
        unmasked=run.data.mask_off,
        draw_weights=_draw_weights(run, prepared),
        loss_weights=PictureParts(run.data).loss_weights(prepared.pictures),
    )


def _draw_weights(run: Run, prepared: Prepared) -> dict[str, float] | None:
    """How often each trained picture comes, where repeats do not say it all."""
    if draws_as_folders_say(run) and not prepared.held_out:
        return None
    rates = prepared.draw_rates
    return {picture.key: rates.get(picture.key, float(picture.repeats)) for picture in prepared.pictures}


def _class_source(run: Run, cache: LatentCache, world: World) -> BatchSource:
    return BatchSource(
        cache,
        assemble.make_class_captions(run),
        batch_size=assemble.class_batch_size(run, processes=world.size),
        accumulation=run.schedule.accumulation,
        words=[word.name for word in run.words],
        seed=derive_seed("class pictures", run.seed),
        rank=world.rank,
        world_size=world.size,
        latents="draw" if run.data.random_latent else "mean",
    )


def _held_out_batches(run: Run, prepared: Prepared, cache: LatentCache) -> dict[str, list[TrainingBatch]]:
    """Held-out pictures by word, one a batch, with their captions as they are (no shuffling, no dropout)."""
    find = WordFinder([word.name for word in run.words])
    found: dict[str, list[TrainingBatch]] = {}
    ready = {picture.key for picture in cache.pictures}
    for picture in prepared.held_out:
        names = find(picture.caption)
        if not names or picture.key not in ready:
            continue
        entry = cache.get(picture.key)
        batch = TrainingBatch(
            latents=entry.mean[None],
            captions=[picture.caption],
            mask=None,
            weights=torch.ones(1),
            keys=[picture.key],
            words=[names],
            sizes=torch.tensor([cache.sizes(picture.key)]),
            inpaint=None if entry.inpaint is None else entry.inpaint[None],
        )
        found.setdefault(names[0], []).append(batch)
    return found
