"""A compiled run on a host, from its first step, or a state, to a verified bundle."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from lib_pivotal.config import write_settings
from lib_pivotal.data.latents import remove_entries
from lib_pivotal.errors import HostError, StateError
from lib_pivotal.oom import made_or
from lib_pivotal.plain_json import parse_json
from lib_pivotal.ports import Host
from lib_pivotal.training.build import build_trainer, make_parts, spill_folder
from lib_pivotal.training.continuation import check_continuation, describe_basis
from lib_pivotal.training.distributed import ProcessGroup
from lib_pivotal.training.events import Commands, Listener, Notice, RunEnded
from lib_pivotal.training.logs import fan_out
from lib_pivotal.training.model_yield import ModelYield
from lib_pivotal.training.outputs import Evaluation
from lib_pivotal.training.prepared import Prepared
from lib_pivotal.training.state import SavedState, load_latest_state
from lib_pivotal.training.state_files import latest_run_folder, list_states, new_run_folder, states_folder

logger = logging.getLogger(__name__)
_NO_MEMORY = (
    "memory does not suffice to begin: not for encoding one picture, or not for the network beside the checkpoint. "
    "Lower data.resolution_px or the network's rank, or close other programs"
)


def train(
    prepared: Prepared,
    host: Host,
    *,
    output_folder: Path,
    listener: Listener,
    log_folder: Path | None = None,
    commands: Commands | None = None,
    resume: bool = False,
    overwrite: bool = False,
    world: ProcessGroup | None = None,
    model_yield: ModelYield | None = None,
    evaluation: Evaluation | None = None,
) -> RunEnded:
    """Train a compiled run on `host` and write `<output_folder>/<name>.safetensors`.

    run.json, states and pictures go to `log_folder` (default: `output_folder`). `model_yield` lets others have the
    model between two steps; `evaluation` makes samples and measures separation: without one there are none. With
    `resume` the run is continued from the newest state that its name has in `log_folder`. A file of another run that
    has its name in `output_folder` is replaced with `overwrite` only.

    Raises before anything starts, and before anything is written, where the processes cannot share the batches
    (ConfigError) or where the run cannot be continued (StateError): it never starts over by itself. Whatever goes wrong
    later is reported in the returned event, after saving what was good.
    """
    world, commands = world or ProcessGroup(), commands or Commands()
    world.check_size(prepared.batches.batch_size)
    log_folder = log_folder or output_folder
    listener = fan_out([listener])  # one that fails must not end a run
    saved = _state_to_continue(log_folder, prepared.name) if resume else None
    with host.session(prepared.session):
        remarks, basis = [], describe_basis(prepared, host)  # reads every picture's file: once
        parts = made_or(lambda: make_parts(prepared, host), HostError(_NO_MEMORY))
        if saved is not None:
            recorded = _recorded(_record_path(log_folder, prepared.name))
            remarks = check_continuation(saved, prepared, host, now=basis, recorded=recorded)
            prepared.results.refuse_taken(output_folder, resume=True, overwrite=overwrite)
        if world.writes:
            _record(prepared, output_folder, log_folder, listener)
            for remark in (*remarks, *parts.remarks):
                listener(Notice("warning", 0, remark))
            for problem in prepared.notices:
                level = "info" if problem.level == "info" else "warning"
                listener(Notice(level, 0, problem.message))  # type: ignore[arg-type]
        state_folder = _folder_of_states(states_folder(log_folder, prepared.name), saved, world)
        trainer, network = made_or(
            lambda: build_trainer(
                prepared,
                host,
                parts,
                output_folder=output_folder,
                log_folder=log_folder,
                state_folder=state_folder,
                basis=basis,
                listener=listener,
                commands=commands,
                overwrite=overwrite,
                world=world,
                model_yield=model_yield,
                evaluation=evaluation,
                continued=saved is not None,
            ),
            HostError(_NO_MEMORY),
        )
        with nullcontext() if network is None else network.attach():
            ended = trainer.run(resume_from=saved)
    if ended.reason == "finished" and world.writes:
        remove_entries(spill_folder(log_folder, prepared.name))
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


def _recorded(path: Path) -> dict[str, Any] | None:
    """The run.json beside a state, as it stands."""
    try:
        recorded = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return recorded if isinstance(recorded, dict) else None


def _record_path(log_folder: Path, name: str) -> Path:
    return log_folder / f"{name}.run.json"


def _record(prepared: Prepared, output_folder: Path, log_folder: Path, listener: Listener) -> None:
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
    path = _record_path(log_folder, prepared.name)
    try:
        write_settings(path, prepared.settings)
    except OSError as error:
        listener(Notice("error", 0, f"{path}: the settings cannot be written ({error.strerror or error})"))


def _folder_of_states(states: Path, saved: SavedState | None, world: ProcessGroup) -> Path:
    """Where this run's states go: a continued run's lie together, a new run has a folder of its own."""
    if saved is not None and saved.path.parent != states:
        return saved.path.parent
    if not world.writes:
        return states
    try:
        return new_run_folder(states)
    except (OSError, StateError):  # told with the first state that cannot be written
        return states / "run-0001"
