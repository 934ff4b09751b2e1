"""The queue of runs: add runs and sweeps, put them in order, take them out, let it wait, go on and skip."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from lib_pivotal.commands.datasets import given_folder
from lib_pivotal.config import Run, run_from_dict, run_to_dict
from lib_pivotal.confinement import Confinement, paths_in
from lib_pivotal.errors import ConfigError, HostError
from lib_pivotal.files import typed_path
from lib_pivotal.importing.datasets import DATASET_FILES
from lib_pivotal.runs.manager import RunManager
from lib_pivotal.runs.queue import Axis, QueuedRun, RunQueue, Sweep, refuse_clashes
from lib_pivotal.runs.queue_file import SERVED_ELSEWHERE, QueueFile
from lib_pivotal.runs.queue_runner import QueueRunner, draw_finished_sweep
from lib_pivotal.runs.sweep import set_value, sweep_runs
from lib_pivotal.training.results import NAMELESS, Results, refuse_taken_results


@dataclass(frozen=True)
class AddRequest:
    """A run for the queue; with `sweep` one run for each of its values. `overwrite` and `folders` as at a start."""

    run: Run
    _: KW_ONLY
    sweep: Sequence[Axis] = ()
    overwrite: bool = False
    folders: Confinement = field(default_factory=Confinement)

    def runs(self) -> list[tuple[tuple[int, ...], Run]]:
        """Each run, with its place in the sweep: checked as a start checks it, with paths that hold anywhere.

        Raises:
            ConfigError: with every fault by field.
            FolderError: a file or folder that a run names may not be used.
        """
        found = sweep_runs(self.run, self.sweep) if self.sweep else [((), self.run)]
        for _, run in found:
            self.folders.check_run(run, files=DATASET_FILES)
            given_folder(run.data.folder)
        return [(place, _anywhere(run)) for place, run in found]


@dataclass(frozen=True)
class QueuePlace:
    """Where a queue is kept, where its runs' files go, and who serves it: a process, or nobody (`runner` None).

    Looking writes nothing; the first change makes the process the one that serves the queue.
    """

    file: QueueFile
    lora_folder: Path
    _: KW_ONLY
    checkpoint: str = ""
    runner: QueueRunner | None = None

    @classmethod
    def of_manager(cls, manager: RunManager) -> QueuePlace:
        """The queue of a process that trains."""
        backend, runner = manager.backend, manager.queue
        return cls(runner.unclaimed, backend.lora_folder(), checkpoint=backend.checkpoint(), runner=runner)

    @classmethod
    def of_folder(cls, runs_folder: Path, lora_folder: Path) -> QueuePlace:
        """The queue of a folder, looked at or changed by a process that trains nothing."""
        return cls(QueueFile(runs_folder), lora_folder)

    def look(self) -> RunQueue:
        """As it is; where nobody serves it, as the next change puts it in order: what was running is interrupted.

        Raises:
            HostError: its file cannot be read.
        """
        queue = self.file.look()
        return queue if self.file.served else queue.recovered(pause_waiting=self.runner is not None)

    def changed(self, change: Callable[[RunQueue], RunQueue]) -> RunQueue:
        """Change the queue, and begin what is due then.

        Raises:
            HostError: the folder cannot be read or written.
        """
        if self.runner is None:
            self.file.put_in_order(pause_waiting=False)
            return self.file.change(change)
        queue = self.runner.take_over().change(change)
        self.runner.nudge()
        return queue


@dataclass(frozen=True)
class Listing:
    """A queue as it is now."""

    queue: RunQueue
    runner: QueueRunner | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON values; settings of runs are left out."""
        return {
            "paused": self.queue.paused,
            "notice": self.queue.notice,
            "runs": [self._entry(entry) for entry in self.queue.runs],
            "sweeps": [
                {
                    "id": sweep.id,
                    "name": sweep.name,
                    "settings": {axis.path: list(axis.values) for axis in sweep.axes},
                    "grid": sweep.grid,
                }
                for sweep in self.queue.sweeps
            ],
        }

    def _entry(self, entry: QueuedRun) -> dict[str, Any]:
        step, max_steps = (entry.step, entry.max_steps) if self.runner is None else self.runner.step(entry)
        return {
            "id": entry.id,
            "name": entry.name,
            "state": entry.state,
            "reason": entry.reason,
            "position": self.queue.position(entry.id),
            "step": step,
            "max_steps": max_steps,
            "run_id": entry.run_id,
            "sweep": entry.sweep,
        }


def listing(place: QueuePlace) -> Listing:
    """The queue as it is.

    Raises:
        HostError: its file cannot be read.
    """
    return Listing(place.look(), place.runner)


def add(place: QueuePlace, request: AddRequest) -> tuple[QueuedRun, ...]:
    """Put a run, or all runs of a sweep, at the end of the queue; all of them or, where one is refused, none.

    Raises:
        ConfigError: with every fault by field.
        FolderError: a file or folder that a run names may not be used.
        FileNameError: there are files of its name, or another run in the queue will write some.
        HostError: the queue cannot be written.
    """
    made = request.runs()
    results = [Results.of(run) for _, run in made]
    for _, run in made:
        refuse_taken_results(run, place.lora_folder, overwrite=request.overwrite)
    entries = [
        QueuedRun(
            name=run.name or NAMELESS,
            settings=run_to_dict(run),
            max_steps=run.schedule.total_steps,
            overwrite=request.overwrite,
            checkpoint=place.checkpoint,
            place=where,
        )
        for where, run in made
    ]
    name = request.run.name or NAMELESS
    sweep = Sweep(name=name, axes=tuple(request.sweep)) if request.sweep else None

    def change(queue: RunQueue) -> RunQueue:
        if not request.overwrite:
            refuse_clashes(results, [one for entry in queue.runs if (one := _results(entry)) is not None])
        return queue.with_added(entries, sweep)

    return place.changed(change).runs[-len(entries) :]


def move(place: QueuePlace, entry_id: int, *, to: int) -> RunQueue:
    """Make a waiting run the `to`-th that begins, counted from 1.

    Raises:
        HostError: no such run, or it does not wait.
    """
    return place.changed(lambda queue: queue.with_moved(entry_id, to))


def move_by(place: QueuePlace, entry_id: int, *, by: int) -> RunQueue:
    """Move a waiting run up (-1) or down (1).

    Raises:
        HostError: no such run, or it does not wait.
    """
    return place.changed(lambda queue: queue.with_moved(entry_id, max(queue.position(entry_id) + by, 1)))


def remove(place: QueuePlace, entry_id: int) -> RunQueue:
    """Take a run out; its files stay.

    Raises:
        HostError: no such run, or it goes on.
    """
    return place.changed(lambda queue: queue.without(entry_id))


def clear(place: QueuePlace) -> RunQueue:
    """Take out every run that has ended; their files stay."""
    return place.changed(RunQueue.without_ended)


def pause(place: QueuePlace) -> RunQueue:
    """Begin no further run; one that goes on is not touched."""
    return place.changed(lambda queue: queue if queue.paused else queue.with_pause())


def resume(place: QueuePlace) -> RunQueue:
    """Go on: an interrupted run from its saved state, then those that wait.

    Raises:
        HostError: another process serves the queue.
    """
    if place.runner is not None:
        place.runner.refuse_elsewhere()
    elif place.file.serve():
        place.file.release()
    else:
        raise HostError(SERVED_ELSEWHERE)
    return place.changed(RunQueue.with_resume)


def skip(place: QueuePlace, entry_id: int) -> RunQueue:
    """Leave a run out: one that goes on is stopped and saved.

    Raises:
        HostError: no such run, it has ended, or another process trains it.
    """
    entry = place.look().get(entry_id)
    if entry.ended:
        raise HostError(f"{entry.name} is {entry.state} already")
    if entry.state == "running":
        if place.runner is None:
            raise HostError(SERVED_ELSEWHERE)
        place.runner.skip_running(entry)
        return place.look()
    queue = place.changed(lambda queue: queue.with_changed(entry_id, state="skipped", reason="skipped"))
    draw_finished_sweep(place.file, queue, entry.sweep)
    return queue


def _results(entry: QueuedRun) -> Results | None:
    """What a queued run will write; None of one that has ended, or whose settings are none."""
    if entry.ended:
        return None
    try:
        return Results.of(run_from_dict(dict(entry.settings)))
    except ConfigError:
        return None


def _anywhere(run: Run) -> Run:
    """The run with whole paths: the queue may be served from another folder than the one it was filled in."""
    plain = run_to_dict(run)
    for path, text in paths_in(run):
        set_value(plain, path, _whole(text))
    return run_from_dict(plain)


def _whole(text: str) -> str:
    """What is not there from here may be a name in the LoRA folder (`start.init_file`), and stays as it is."""
    path = typed_path(text)
    return str(path.absolute()) if not path.is_absolute() and path.exists() else text


ONE_ENTRY: Mapping[str, Callable[[QueuePlace, int], RunQueue]] = {
    "remove": remove,
    "skip": skip,
    "up": lambda place, entry_id: move_by(place, entry_id, by=-1),
    "down": lambda place, entry_id: move_by(place, entry_id, by=1),
}
"""What a button beside a run does."""
