"""Runs: start, continue, steer, and keep a step; and what a run.json trains without a manager."""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import TYPE_CHECKING

from lib_pivotal.commands.datasets import given_folder
from lib_pivotal.config import Run, read_run
from lib_pivotal.config_checks import name_faults
from lib_pivotal.confinement import Confinement
from lib_pivotal.errors import ConfigError, HostError
from lib_pivotal.file_names import refuse_taken
from lib_pivotal.files import replacing
from lib_pivotal.importing.datasets import DATASET_FILES
from lib_pivotal.ports import Host
from lib_pivotal.runs.backend import TrainerBackend
from lib_pivotal.runs.manager import RunManager
from lib_pivotal.runs.preflight import Preflight, measure
from lib_pivotal.runs.view import RunView
from lib_pivotal.training.events import Commands, Listener, RunEnded
from lib_pivotal.training.results import refuse_taken_results
from lib_pivotal.training.state_files import latest_run_folder, list_states

if TYPE_CHECKING:
    from lib_pivotal.training.distributed import ProcessGroup
    from lib_pivotal.training.model_yield import ModelYield
    from lib_pivotal.training.outputs import Evaluation

STEERING: Mapping[str, Callable[[RunManager], None]] = MappingProxyType(
    {
        "stop": RunManager.stop,
        "save": RunManager.save_now,
        "sample": RunManager.sample_now,
        "pause": RunManager.pause,
        "resume": RunManager.resume,
    }
)
"""What can be asked of a run that is going on."""
LOG_END_BYTES = 4096


@dataclass(frozen=True)
class StartRequest:
    """A run; with `overwrite` it may replace files of its name. `folders` says what may be read and written."""

    run: Run
    _: KW_ONLY
    overwrite: bool = False
    folders: Confinement = field(default_factory=Confinement)

    def check(self) -> None:
        """What is said of a run before the model is asked for.

        Raises:
            ConfigError: no folder of pictures is given.
            FolderError: a file or folder that the run names may not be used.
        """
        self.folders.check_run(self.run, files=DATASET_FILES)
        given_folder(self.run.data.folder)


@dataclass(frozen=True)
class TrainRequest:
    """A run.json to train in this process; `out` is the folder for its files, None: where the run or its file says."""

    file: Path
    _: KW_ONLY
    out: Path | None = None
    resume: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class Kept:
    """A bundle of a step that is in the LoRA folder now."""

    file: Path

    @property
    def said(self) -> str:
        """As a sentence."""
        return f"Kept as {self.file.name}: use it as <lora:{self.file.stem}:1>."


def make_manager(backend: TrainerBackend) -> RunManager:
    """The run manager on a backend, which reads other trainers' dataset files, too."""
    return RunManager(backend, dataset_files=DATASET_FILES)


# ---- before a run ----


def start(manager: RunManager, request: StartRequest) -> RunView:
    """Begin a run.

    Raises:
        ConfigError: with every fault by field.
        FolderError: a file or folder that it names may not be used.
        FileNameError: there are files of its name.
        HostError: another run goes on, or there is no model.
    """
    request = _found(request, manager)
    request.check()
    return manager.start(request.run, overwrite=request.overwrite)


def preflight(manager: RunManager, request: StartRequest) -> Preflight:
    """What a run will cost: from a few real steps.

    Raises:
        ConfigError, FolderError: see `StartRequest.check`.
        HostError: a run is going on, or the loaded model cannot be trained.
    """
    request = _found(request, manager)
    request.check()
    return manager.preflight(request.run)


def start_file(text: str, folder: Path) -> str:
    """`start.init_file` as a path: a LoRA folder's file may be named as in a tag, with or without its ending."""
    given = PurePath(text)
    if not text or given.is_absolute() or given.drive or ".." in given.parts:
        return text
    candidates = (folder / text, folder / f"{text}.safetensors")
    return next((str(path.absolute()) for path in candidates if path.is_file()), text)


def _found(request: StartRequest, manager: RunManager) -> StartRequest:
    start = request.run.start
    found = start_file(start.init_file, manager.backend.lora_folder()) if start.init_file else ""
    return replace(request, run=replace(request.run, start=replace(start, init_file=found)))


def class_pictures(manager: RunManager, request: StartRequest) -> RunView:
    """Begin to make a run's class pictures, with the run's own clip skip.

    Raises:
        ConfigError: no folder or no prompts.
        FolderError: a file or folder that the run names may not be used.
        HostError: a run is going on, or the loaded model cannot do it.
    """
    request.folders.check_run(request.run, files=DATASET_FILES)
    return manager.make_class_pictures(request.run)


# ---- a run ----


def interrupted(manager: RunManager) -> list[str]:
    """Ids of runs that can be continued, the newest first: they have a saved state, and did not come to their end."""
    return [folder.name for folder in manager.resumable() if not _is_finished(folder)]


def finished(manager: RunManager) -> list[str]:
    """Ids of runs that came to their end and can be made longer, the newest first: their last state was kept."""
    return [folder.name for folder in manager.resumable() if _is_finished(folder)]


def continue_run(manager: RunManager, run_id: str, *, overwrite: bool = False, max_steps: int = 0) -> RunView:
    """Continue a run that has a saved state, by its id; with `max_steps` it has so many in all, also where it had come
    to its end.

    Raises:
        HostError: there is no such run, another one is going on, or it has so many steps already.
        FileNameError: there are files of its name that are another run's.
    """
    if max_steps:
        refuse_done(manager.resumable_folder(run_id), max_steps)
    return manager.resume_run(run_id, overwrite=overwrite, max_steps=max_steps)


def refuse_done(folder: Path, max_steps: int) -> None:
    """Refuse a `schedule.max_steps` with which a run would not be longer than it is, by the name of its newest state.

    Raises:
        HostError: how many steps it has.
        ConfigError: its run.json cannot be read.
    """
    found = sorted(folder.glob("*.run.json"))
    schedule = replace(read_run(found[0]).schedule, max_steps=max_steps, epochs=0) if found else None
    total = max_steps if schedule is None else schedule.total_steps  # with those that the network sits out
    places = (latest_run_folder(states) for states in folder.glob("*.state"))
    step = max((state.step for place in places if place for state in list_states(place)[:1]), default=0)
    if total <= step:
        would = "" if total == max_steps else f"; with {max_steps} steps of the network it would have {total}"
        raise HostError(f"{folder.name} has {step} steps already{would}: ask for more than that, in all")


def steer(manager: RunManager, run_id: str, *, verb: str) -> RunView:
    """Ask something of `STEERING` of the run that is going on; nothing happens where it has ended.

    Raises:
        HostError: no such run.
    """
    view = manager.view(run_id)
    STEERING[verb](manager)
    return view


def use_live(manager: RunManager, *, on: bool) -> str:
    """Whether pictures made during a run may use its network as it is; the name for `<lora:NAME:1>`, empty where that
    cannot be done."""
    manager.backend.set_live(on)
    return manager.backend.live_name()


def load_checkpoint(manager: RunManager, run_id: str) -> RunView:
    """Load the checkpoint that a waiting run needs.

    Raises:
        HostError: no such run, no run waits, or the checkpoint's file is gone.
    """
    view = manager.view(run_id)
    manager.backend.load_checkpoint()
    return view


def keep(manager: RunManager, run_id: str, *, step: int) -> Kept:
    """Copy the bundle that belongs to a step's samples into the LoRA folder.

    Raises:
        HostError: no such run, or that step has no file.
        FileNameError: there is another file of its name in the folder.
    """
    snapshot = manager.view(run_id).snapshot()
    item = next((made for made in snapshot["pictures"] if made["step"] == step), None)
    source = Path(item["bundle"]) if item and item.get("bundle") else None
    if source is None or not source.is_file():
        raise HostError(f"step {step} has no file to keep: it was not saved, or it was cleared away")
    target = manager.backend.lora_folder() / f"{snapshot['name']}-{step:06d}.safetensors"
    if not (target.is_file() and filecmp.cmp(source, target, shallow=False)):
        refuse_taken([target], overwrite=False, remedy="Move it away, or give it another name.")
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
    manager.backend.bundle_saved(target)
    return Kept(target)


# ---- without a manager ----


def run_of(file: Path) -> Run:
    """The run of a run.json, named as the file where it says no name.

    Raises:
        ConfigError: with every fault by field.
    """
    run = read_run(file)
    run = run if run.name else replace(run, name=file.stem)
    if faults := name_faults(run.name):  # of the file's own name; any other was checked as it was read
        raise ConfigError(faults)
    given_folder(run.data.folder)
    return run


def training_of(request: TrainRequest) -> tuple[Run, Path]:
    """The run of a run.json, and the folder for what it writes.

    Raises:
        ConfigError: with every fault by field.
        FileNameError: there are files of its name; one that is continued is known by its state.
    """
    run = run_of(request.file)
    folder = request.out or (Path(run.saving.folder) if run.saving.folder else request.file.parent)
    if not request.resume:
        refuse_taken_results(run, folder, overwrite=request.overwrite)
        folder.mkdir(parents=True, exist_ok=True)  # before minutes are spent on the checkpoint
    return run, folder


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
    world: ProcessGroup | None = None,
    model_yield: ModelYield | None = None,
    evaluation: Evaluation | None = None,
) -> RunEnded:
    """Train in this process: the pictures are prepared, the run is compiled, and `training.run.train` has the rest.

    Raises before anything starts, and before anything is written, where settings or pictures cannot work (ConfigError,
    DataError) or where the run cannot be continued (StateError).
    """
    from lib_pivotal.training import run as running  # here: a page that only starts needs none of training
    from lib_pivotal.training.assemble import compile_run
    from lib_pivotal.training.prepare import prepare_pictures

    pictures = prepare_pictures(run, files=DATASET_FILES)
    return running.train(
        compile_run(run, pictures),
        host,
        output_folder=output_folder,
        listener=listener,
        log_folder=log_folder,
        commands=commands,
        resume=resume,
        overwrite=overwrite,
        world=world,
        model_yield=model_yield,
        evaluation=evaluation,
    )


def estimate(run: Run, host: Host) -> Preflight:
    """`preflight` in this process.

    Raises:
        ConfigError, DataError: settings or pictures that cannot work.
        HostError: the steps failed; says why.
    """
    return measure(run, host, files=DATASET_FILES)


def _is_finished(folder: Path) -> bool:
    """Whether the last thing that a run's log says is that it came to its end."""
    for log in folder.glob("*.events.jsonl"):
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LOG_END_BYTES))
            lines = file.read().splitlines()
        if lines and b'"RunEnded"' in lines[-1] and b'"finished"' in lines[-1]:
            return True
    return False
