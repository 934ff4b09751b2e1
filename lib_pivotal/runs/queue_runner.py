"""Serves the queue of a process: one run after another through its run manager, each recorded before the next."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lib_pivotal.config import Run, run_from_dict
from lib_pivotal.errors import HostError, PivotalError
from lib_pivotal.runs.queue import QueuedRun, RunQueue, State, Sweep
from lib_pivotal.runs.queue_file import SERVED_ELSEWHERE, QueueFile

if TYPE_CHECKING:
    from lib_pivotal.runs.backend import TrainerBackend
    from lib_pivotal.runs.view import RunView

POLL_S = 0.2

logger = logging.getLogger(__name__)


class OneAtATime(Protocol):
    """What a queue asks of the run manager (`runs.manager.RunManager`)."""

    backend: TrainerBackend

    @property
    def current(self) -> RunView | None:
        """The run that is going on, or the last one."""
        ...

    @property
    def running(self) -> bool:
        """Whether a run is going on."""
        ...

    def start(self, run: Run, *, overwrite: bool = False) -> RunView:
        """Begin a run; it returns at once."""
        ...

    def resume_run(self, run_id: str, *, overwrite: bool = False) -> RunView:
        """Go on with a run from its state."""
        ...

    def stop(self) -> None:
        """End after the step in hand, and save."""
        ...

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the run's end; True when it has ended."""
        ...


class QueueRunner:
    """The queue in the backend's folder of runs. A run that fails does not stop it; a run by hand is waited for.

    It never starts over what it has started: a run that was cut off goes on from its saved state, and where that cannot
    be read it has failed, with the reason. Safe to call from any thread.
    """

    def __init__(self, manager: OneAtATime) -> None:
        self._manager = manager
        self._lock = threading.RLock()
        self._file: QueueFile | None = None
        self._thread: threading.Thread | None = None
        self._skipping: set[int] = set()
        self._closed = False

    # ---- looking and steering ----

    @property
    def file(self) -> QueueFile:
        """The queue's file, served by this process where no other does it.

        Raises:
            HostError: the folder of runs cannot be read or written.
        """
        return self.take_over()

    @property
    def unclaimed(self) -> QueueFile:
        """The queue's file to look at, whoever serves it."""
        with self._lock:
            folder = self._manager.backend.runs_folder()
            if self._file is None or (self._file.folder != folder and self._thread is None):
                if self._file is not None:
                    self._file.release()
                self._file = QueueFile(folder)
            return self._file

    def take_over(self, *, pause_waiting: bool = True) -> QueueFile:
        """Serve the queue, unless another process does. What the one before left is put in order first; with
        `pause_waiting` also runs that had not begun wait then.

        Raises:
            HostError: the folder of runs cannot be read or written.
        """
        with self._lock:
            file = self.unclaimed
            if not file.serves and not self._closed and file.serve():
                file.change(lambda queue: queue.recovered(pause_waiting=pause_waiting))
            return file

    def refuse_elsewhere(self) -> None:
        """Say where the queue is served, if not here.

        Raises:
            HostError: another process serves it.
        """
        if not self.file.serves:
            raise HostError(SERVED_ELSEWHERE)

    def nudge(self) -> None:
        """Begin what waits, if the queue is not paused and this process serves it; returns at once."""
        with self._lock:
            if self._thread is None and not self._closed and self.file.serves and _due(self.file.look()) is not None:
                self._thread = threading.Thread(target=self._serve, name="pivotal queue", daemon=True)
                self._thread.start()

    def skip_running(self, entry: QueuedRun) -> None:
        """Stop and save the run that trains, and begin the next.

        Raises:
            HostError: another process serves the queue.
        """
        self.refuse_elsewhere()
        self._skipping.add(entry.id)
        view = self._manager.current
        if view is not None and view.run_id == entry.run_id:
            self._manager.stop()

    def step(self, entry: QueuedRun) -> tuple[int, int]:
        """How far a run is: steps done and in all; 0 in all where that is not known."""
        view = self._manager.current
        if entry.state == "running" and view is not None and view.run_id == entry.run_id:
            shown = view.snapshot()
            return shown["step"], shown["max_steps"]
        return entry.step, entry.max_steps

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until nothing is left to begin; True when it is so."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout_s)
        return self._thread is None

    def begin_no_more(self) -> None:
        """Begin no further run; the present one is not touched."""
        self._closed = True

    def close(self) -> None:
        """`begin_no_more`, wait for the end of the present run, and let another process serve the queue."""
        self.begin_no_more()
        self.join()
        with self._lock:
            if self._file is not None:
                self._file.release()

    # ---- the thread ----

    def _serve(self) -> None:
        try:
            while (entry := self._turn()) is not None:
                self._run(entry)
        except Exception as error:  # the disk, most likely: the process lives on, and the page says so
            logger.exception("the queue stopped")
            with self._lock:
                self._thread = None
            self._try(functools.partial(RunQueue.with_pause, notice=f"The queue stopped: {error}"))

    def _try(self, change: Callable[[RunQueue], RunQueue]) -> None:
        try:
            self.file.change(change)
        except PivotalError:
            logger.exception("the queue could not be written")

    def _turn(self) -> QueuedRun | None:
        """The next run, once the model is free; None, and the thread's end, where none is due."""
        while True:
            with self._lock:
                entry = None if self._closed else _due(self.file.look())
                if entry is None:
                    self._thread = None
                    return None
            if not self._manager.join(POLL_S):  # a run that was started by hand
                continue
            try:
                self._refuse_unready(entry)
            except HostError as error:  # every other run would fail alike
                told = f"{entry.name} could not begin: {str(error).rstrip('.')}. Resume the queue when that is done."
                self.file.change(functools.partial(RunQueue.with_pause, notice=told))
                continue
            return entry

    def _refuse_unready(self, entry: QueuedRun) -> None:
        """Refuse to begin on a checkpoint that cannot be trained, or is another one than when the run was added.

        Raises:
            HostError: what to do.
        """
        backend = self._manager.backend
        backend.check_ready()
        loaded = backend.checkpoint()
        if entry.checkpoint and loaded and _bare(entry.checkpoint) != _bare(loaded):
            raise HostError(
                f"it was added for the checkpoint {entry.checkpoint}, and {loaded} is loaded. Load the former, or "
                "remove the run and add it again."
            )

    def _run(self, entry: QueuedRun) -> None:
        """One run from its start to its record."""
        file = self.file
        if not self._mark_running(file, entry):
            return
        try:
            view = self._begin(entry)
        except Exception as error:
            if self._manager.running and isinstance(error, HostError):  # somebody was quicker, by hand
                file.change(lambda queue: queue.with_changed(entry.id, state="waiting"))
                return
            if not isinstance(error, PivotalError):
                logger.exception("%s could not begin", entry.name)
            self._record(entry, "failed", str(error) or type(error).__name__)
            return
        file.change(lambda queue: queue.with_changed(entry.id, run_id=view.run_id))
        if entry.id in self._skipping or self._closed:  # between its start and its record
            self._manager.stop()
        while not view.ended:
            time.sleep(POLL_S)
        self._record_end(entry, view)

    def _mark_running(self, file: QueueFile, entry: QueuedRun) -> bool:
        """Put on the disk that it begins, unless it was removed, skipped or moved back meanwhile."""
        begun = False

        def mark(queue: RunQueue) -> RunQueue:
            nonlocal begun
            due = _due(queue)
            begun = due is not None and due.id == entry.id
            return queue.with_changed(entry.id, state="running", reason="") if begun else queue

        file.change(mark)
        return begun

    def _begin(self, entry: QueuedRun) -> RunView:
        manager = self._manager
        if not entry.run_id:
            return manager.start(run_from_dict(dict(entry.settings)), overwrite=entry.overwrite)
        return manager.resume_run(entry.run_id, overwrite=entry.overwrite)

    def _record_end(self, entry: QueuedRun, view: RunView) -> None:
        shown = view.snapshot()  # a length in epochs has become steps
        self.file.change(functools.partial(RunQueue.with_changed, entry_id=entry.id, max_steps=shown["max_steps"]))
        ended = shown["ended"]
        step = int(ended["step"])
        if ended["reason"] == "finished":
            self._record(entry, "done", "", step)
        elif ended["reason"] == "failed":
            self._record(entry, "failed", ended["message"], step)
        elif entry.id in self._skipping:
            self._record(entry, "skipped", "stopped and saved", step)
        else:
            self._record(entry, "interrupted", "stopped by hand", step)
            told = (
                f"{entry.name} was stopped, so the queue waits. Resume continues that run, then the others; skip or "
                "remove it to train them without it."
            )
            self.file.change(functools.partial(RunQueue.with_pause, notice=told))
        self._skipping.discard(entry.id)

    def _record(self, entry: QueuedRun, state: State, reason: str, step: int = 0) -> None:
        queue = self.file.change(lambda queue: queue.with_changed(entry.id, state=state, reason=reason, step=step))
        self.finish_sweep(queue, entry.sweep)

    def finish_sweep(self, queue: RunQueue, sweep_id: int) -> None:
        """Draw the picture of a sweep whose runs have all ended; one that cannot be drawn is told in the log."""
        draw_finished_sweep(self.file, queue, sweep_id)


def draw_finished_sweep(file: QueueFile, queue: RunQueue, sweep_id: int) -> None:
    """Draw the picture of a sweep whose runs have all ended, and record it; one that cannot be drawn is told in the
    log."""
    sweep = next((one for one in queue.sweeps if one.id == sweep_id), None)
    if sweep is None or not all(entry.ended for entry in queue.of_sweep(sweep_id)):
        return
    try:
        path = _draw_sweep(file.folder, queue, sweep)
    except Exception:  # a picture is worth no run
        logger.exception("the picture of the sweep %s could not be made", sweep.name)
        return
    file.change(lambda queue: queue.with_grid(sweep_id, path))


def _draw_sweep(runs_folder: Path, queue: RunQueue, sweep: Sweep) -> str:
    from lib_pivotal.runs.sweep_grid import draw_sweep, last_parts_grid, save_sweep  # here: only a sweep needs it

    cells: dict[tuple[int, ...], Path | str] = {}
    for entry in queue.of_sweep(sweep.id):
        grid = last_parts_grid(runs_folder / entry.run_id, entry.name) if entry.run_id else None
        cells[entry.place] = grid or (entry.state if entry.state != "done" else "no samples were made")
    name = f"{sweep.name}-sweep-{sweep.id}.png"
    return str(save_sweep(runs_folder / "sweeps" / name, draw_sweep(cells, sweep.axes)))


def _due(queue: RunQueue) -> QueuedRun | None:
    return None if queue.paused else queue.next()


def _bare(checkpoint: str) -> str:
    """A checkpoint's name without its hash, which is known only once the file was read."""
    return checkpoint.partition(" [")[0].strip()
