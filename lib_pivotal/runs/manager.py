"""One run at a time, in a thread of the process: started, watched and steered from wherever one likes."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lib_pivotal import ports
from lib_pivotal.config import DataConfig, Run, check_consistency, read_run
from lib_pivotal.errors import ConfigError, DataError, HostError, PivotalError
from lib_pivotal.files import typed_path
from lib_pivotal.runs.queue_runner import QueueRunner
from lib_pivotal.runs.run_log import SUFFIX as LOG_SUFFIX
from lib_pivotal.runs.run_log import RunLog
from lib_pivotal.runs.view import RunView
from lib_pivotal.training import events, logs, model_yield, results, state_files
from lib_pivotal.training.events import Commands, Event, Listener, Reason, RunEnded

if TYPE_CHECKING:
    from lib_pivotal.data.sources.source import DatasetFile
    from lib_pivotal.runs.backend import TrainerBackend
    from lib_pivotal.runs.preflight import Preflight
    from lib_pivotal.training.model_yield import ModelYield, YieldTerms

_Job = Callable[[RunView, Commands, Listener], RunEnded]
_LogsOf = Callable[[RunView], list[Listener]]

logger = logging.getLogger(__name__)


class RunManager:
    """Owns the run that is going on, and remembers the last one that ended.

    It outlives pages: a browser that comes back, or a second one, finds the run through `current`. `dataset_files`
    reads other trainers' dataset files where a folder has one.
    """

    def __init__(self, backend: TrainerBackend, *, dataset_files: Sequence[DatasetFile] = ()) -> None:
        self.backend = backend
        self._dataset_files = dataset_files
        self._lock = threading.Lock()
        self._view: RunView | None = None
        self._commands: Commands | None = None
        self._thread: threading.Thread | None = None
        self.queue = QueueRunner(self)
        """Runs that wait for their turn; nothing is read from the disk before it is asked."""

    # ---- looking ----

    @property
    def current(self) -> RunView | None:
        """The run that is going on, or the last one; None before the first."""
        return self._view

    @property
    def running(self) -> bool:
        """Whether a run is going on. One whose end was told may draw plots still."""
        alive = self._thread is not None and self._thread.is_alive()
        return alive and self._view is not None and not self._view.ended

    def view(self, run_id: str) -> RunView:
        """By id, or `current`.

        Raises:
            HostError: no such run.
        """
        view = self._view
        if view is None or run_id not in ("current", view.run_id):
            raise HostError(f"no run {run_id!r}: none was started, or another one since")
        return view

    def resumable(self) -> list[Path]:
        """Folders of runs with a saved state, the newest first."""
        folder = self.backend.runs_folder()
        found = {path.parent for path in folder.glob("*/*.state") if state_files.has_states(path)}
        return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)

    def resumable_folder(self, run_id: str) -> Path:
        """The folder of one of `resumable` by its name, which comes from outside.

        Raises:
            HostError: there is no such run.
        """
        folder = next((path for path in self.resumable() if path.name == run_id), None)
        if folder is None:
            raise HostError(f"no interrupted run {run_id!r} with a saved state")
        return folder

    # ---- steering ----

    def start(self, run: Run, *, resume_folder: Path | None = None, overwrite: bool = False) -> RunView:
        """Begin `run` in a thread; with `resume_folder`, go on from the state there.

        Files of the run's name that are there are only replaced with `overwrite`, or where a run goes on with its own.
        Raises:
            ConfigError: every fault of the settings, before anything starts.
            FileNameError: there are files of its name.
            HostError: another run is going on.
        """
        faults = check_consistency(run)
        if faults:
            raise ConfigError(faults)
        self.backend.check_ready()
        if not run.name:
            run = replace(run, name="pivotal")
        if resume_folder is None:  # one that goes on has its settings
            run = replace(run, data=self.backend.scanned_as(run.data))
            results.refuse_taken_results(run, self.backend.lora_folder(), overwrite=overwrite)

        def job(view: RunView, commands: Commands, listen: Listener) -> RunEnded:
            return self._train(run, view, commands, listen, resume=resume_folder is not None, overwrite=overwrite)

        folder = resume_folder or _new_folder(self.backend.runs_folder(), run.name)
        logs_of = _logs_of_continued if resume_folder is not None else _logs_of
        return self._launch(run.name, run.schedule.total_steps, folder, job, logs_of=logs_of)

    def make_class_pictures(self, run: Run) -> RunView:
        """Begin to make the class pictures that a run's settings ask for; it is watched, paused and stopped as a run.

        What is in the folder already is not made again.
        Raises:
            ConfigError: no folder or no prompts.
            HostError: a run is going on, or the loaded model cannot do it.
        """
        from lib_pivotal.training.class_pictures import class_requests  # here: as in _train

        requests = class_requests(run)
        self.backend.check_ready()

        def job(view: RunView, commands: Commands, listen: Listener) -> RunEnded:
            return self._draw_class(run, requests, view, commands, listen)

        return self._launch("class pictures", len(requests), Path(run.regularisation.folder), job)

    def write_captions(self, data: DataConfig, tagger: str) -> RunView:
        """Begin to write captions for the pictures of `data.folder`, read by its settings, that have none; watched and
        stopped as a run.

        Raises:
            HostError: the tagger is not there (says what to do), or a run is going on.
            DataError: no such folder.
        """
        from lib_pivotal.runs import tagging  # here: as in _train
        from lib_pivotal.training.scanning import scan_pictures

        using = tagging.chosen(self.backend.taggers(), tagger)
        data = self.backend.scanned_as(data)
        folder = typed_path(data.folder)
        missing = tagging.without_caption(scan_pictures(data, files=self._dataset_files))

        def job(view: RunView, commands: Commands, listen: Listener) -> RunEnded:
            started = time.perf_counter()
            written, wanted = tagging.write_captions(
                missing,
                using,
                progress=lambda done, total: listen(events.Preparing("writing captions", done, total)),
                should_stop=lambda: commands.stopping,
            )
            message = f"{written} of {wanted} missing captions were written in {folder}"
            reason: Reason = "stopped" if commands.stopping else "finished"
            return events.RunEnded(reason, written, time.perf_counter() - started, None, message)

        return self._launch("captions", len(missing), folder, job)

    def _launch(
        self, name: str, length: int, folder: Path, job: _Job, *, logs_of: _LogsOf = lambda view: []
    ) -> RunView:
        """One job at a time, in a thread of its own; `logs_of` gives what writes its events into the folder."""
        with self._lock:
            if self.running:
                raise HostError("a run is in progress already: stop it first")
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise HostError(f"{folder}: cannot be made ({error.strerror}). Choose another folder.") from error
            self._view = RunView(folder.name, name, max_steps=length, folder=folder)
            self._commands = events.Commands()
            self._thread = threading.Thread(
                target=self._work,
                args=(job, name, self._view, self._commands, logs_of),
                name=f"pivotal {name}",
                daemon=True,
            )
            self._thread.start()
            return self._view

    def preflight(self, run: Run) -> Preflight:
        """What `run` will cost: from a few real steps, for which the model is borrowed and given back.

        Raises:
            HostError: a run is going on, or the loaded model cannot be trained.
        """
        from lib_pivotal.runs.preflight import Preflight, measure  # here: as in _train

        faults = tuple(check_consistency(run))
        if faults:
            return Preflight(faults=faults)
        if self.running:
            raise HostError("a run is in progress: estimate another one when it has finished")
        self.backend.check_ready()
        run = replace(run, data=self.backend.scanned_as(run.data))
        try:
            with self.backend.exclusive(run) as host:
                return measure(run, host, files=self._dataset_files)
        except ConfigError as error:
            return Preflight(faults=error.faults)

    def resume_run(self, run_id: str, *, overwrite: bool = False, max_steps: int = 0) -> RunView:
        """Go on with a run by its id, which comes from outside: only those of `resumable` are found.

        Raises:
            HostError: there is no such run, or another one is going on.
        """
        return self.resume_folder(self.resumable_folder(run_id), overwrite=overwrite, max_steps=max_steps)

    def resume_folder(self, folder: Path, *, overwrite: bool = False, max_steps: int = 0) -> RunView:
        """Go on with the run whose folder this is, from its newest state; with `max_steps`, to another length."""
        found = sorted(folder.glob("*.run.json"))
        if not found:
            raise HostError(f"{folder}: holds no run.json")
        run = read_run(found[0])
        if max_steps:
            run = replace(run, schedule=replace(run.schedule, max_steps=max_steps, epochs=0))
        return self.start(run, resume_folder=folder, overwrite=overwrite)

    def stop(self) -> None:
        """End after the step in hand, and save; nothing where no run is going on."""
        if self._commands is not None:
            self._commands.stop()

    def pause(self) -> None:
        """Wait after the step in hand; the model is free for pictures meanwhile."""
        if self._commands is not None and self.running:
            self._commands.pause()

    def resume(self) -> None:
        """Go on after a pause."""
        if self._commands is not None:
            self._commands.resume()

    def save_now(self) -> None:
        """Write a bundle and a state after the step in hand."""
        if self._commands is not None:
            self._commands.save_now()

    def sample_now(self) -> None:
        """Draw the four rows after the step in hand."""
        if self._commands is not None:
            self._commands.sample_now()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the run's end; True when it has ended."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        return self._thread is None or not self._thread.is_alive()

    # ---- the thread ----

    def _work(self, job: _Job, name: str, view: RunView, commands: Commands, logs_of: _LogsOf) -> None:
        """The thread of a run. Whatever happens in it, its last event is a `RunEnded`."""
        with RunLog().listening() as log:
            self._work_logged(job, name, view, commands, logs_of, log)

    def _work_logged(
        self, job: _Job, name: str, view: RunView, commands: Commands, logs_of: _LogsOf, log: RunLog
    ) -> None:
        started = time.perf_counter()
        listen: Listener = view.listen
        try:
            listen = logs.fan_out([view.listen, self._tell_backend, *logs_of(view)])
            ended = job(view, commands, listen)
        except BaseException as error:  # whatever it was, the page must say so and the process must live on
            if isinstance(error, PivotalError):
                log.add_error(error)
            else:
                logger.exception("%s failed", name)
            message = str(error) if isinstance(error, PivotalError) else f"{type(error).__name__}: {error}"
            passed_s = time.perf_counter() - started
            if commands.stopping and isinstance(error, DataError):  # stopped before any picture was ready
                ended = events.RunEnded("stopped", 0, passed_s, None, "stopped before the first step")
            else:
                listen(events.Notice("error", view.step, message))
                ended = events.RunEnded("failed", view.step, passed_s, None, message)
        try:
            if line := self.backend.farewell():
                listen(events.Notice("info", view.step, line))
        except Exception:  # only a line of text
            logger.exception("the end of %s could not be reported in full", name)
        if logs_of is _logs_of or (logs_of is _logs_of_continued and view.began):  # else its folder stays as it is
            _keep_log(log, view)
        listen(ended)

    def _train(
        self, run: Run, view: RunView, commands: Commands, listen: Listener, *, resume: bool, overwrite: bool
    ) -> RunEnded:
        """The run itself. Its last event is kept back: whoever hears it may count on the model being back."""

        from lib_pivotal.evaluation.in_run import RunEvaluation  # here: a page that only starts needs none of training
        from lib_pivotal.runs.result_card import card_at_end
        from lib_pivotal.training.assemble import compile_run
        from lib_pivotal.training.prepare import prepare_pictures
        from lib_pivotal.training.run import train

        def during(event: Event) -> None:
            if isinstance(event, events.RunEnded):
                view.set_status("training", "giving the model back")
            else:
                listen(event)

        with self.backend.exclusive(run) as host:
            view.set_status("preparing", "reading pictures")
            ended = train(
                compile_run(run, prepare_pictures(run, files=self._dataset_files)),
                host,
                output_folder=self.backend.lora_folder(),
                log_folder=view.folder,
                listener=during,
                commands=commands,
                resume=resume,
                overwrite=overwrite,
                model_yield=_ViewedYield(self.backend.model_yield(), view, commands),
                evaluation=RunEvaluation(),
            )
        card_at_end(run, ended, view.folder, listen)
        return ended

    def _draw_class(
        self, run: Run, requests: Sequence[ports.SampleRequest], view: RunView, commands: Commands, listen: Listener
    ) -> RunEnded:
        """Class pictures, one after another; whoever waits for the model gets it between two."""
        from lib_pivotal.training.class_pictures import make_class_pictures

        started = time.perf_counter()
        terms = model_yield.YieldTerms(
            _no_bundle, commands.wait_while_paused, lambda: commands.stopping, lambda message: None
        )

        session = ports.SessionRequest(clip_skip=run.clip_skip)
        with self.backend.exclusive(run) as host, host.session(session):
            yielding = _ViewedYield(self.backend.model_yield(), view, commands)

            def between() -> None:
                if commands.paused or yielding.wanted():
                    yielding.serve(terms)

            made = make_class_pictures(
                host,
                requests,
                view.folder,
                progress=lambda done, total: listen(events.Preparing("making class pictures", done, total)),
                between=between,
                should_stop=lambda: commands.stopping,
            )
        message = f"{made} of {len(requests)} class pictures are in {view.folder}"
        return events.RunEnded(
            "finished" if made == len(requests) else "stopped", made, time.perf_counter() - started, None, message
        )

    def _tell_backend(self, event: Event) -> None:
        if isinstance(event, events.FileSaved) and event.kind in ("bundle", "embedding"):
            self.backend.bundle_saved(event.path)


class _ViewedYield:
    """An `ModelYield` that shows in the view while it serves."""

    def __init__(self, inner: ModelYield, view: RunView, commands: Commands) -> None:
        self._inner = inner
        self._view = view
        self._commands = commands

    def wanted(self) -> bool:
        return self._inner.wanted()

    def serve(self, terms: YieldTerms) -> None:
        def tell(message: str) -> None:
            self._view.set_status("waiting", message, needs_checkpoint=True)
            terms.say(message)

        if self._commands.paused:
            self._view.set_status("paused", "paused: the model is free for pictures")
        else:
            self._view.set_status("waiting", "another job has the model")
        try:
            self._inner.serve(replace(terms, say=tell))
        finally:
            self._view.set_status("training")


def _keep_log(log: RunLog, view: RunView) -> None:
    try:
        log.write(view.folder / f"{view.name}{LOG_SUFFIX}")
    except OSError as error:
        logger.warning("%s: the log cannot be written (%s)", view.folder, error)


def _logs_of(view: RunView) -> list[Listener]:
    """The logs and plots of a run, in its folder. One that cannot be begun is left out: the run is worth more."""
    from lib_pivotal.runs.plots import PlotsAtEnd  # here: as in _train

    try:
        return [*logs.default_logs(view.folder, view.name), PlotsAtEnd(view.folder, view.name)]
    except OSError as error:
        logger.exception("no logs in %s", view.folder)
        view.listen(events.Notice("error", 0, f"{view.folder}: no logs can be written there ({error})"))
        return []


def _logs_of_continued(view: RunView) -> list[Listener]:
    """The same once the run goes on: one that is refused must leave its folder as it is."""
    return [logs.after_start(listener) for listener in _logs_of(view)]


def _no_bundle(path: Path) -> Path:
    raise HostError("class pictures are made without a network: there is none to show")


def _new_folder(parent: Path, name: str) -> Path:
    """`<parent>/<date>-<time>-<name>`, not there yet."""
    safe = re.sub(r"[^A-Za-z0-9_-]+", "_", name)
    stem = time.strftime(f"%Y%m%d-%H%M%S-{safe}")
    folder, number = parent / stem, 1
    while folder.exists():
        number += 1
        folder = parent / f"{stem}-{number}"
    return folder
