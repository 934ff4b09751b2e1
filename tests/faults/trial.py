"""One trial: a run, a fault in it, and what is demanded afterwards.

Every process that trains is forked from the one that holds the checkpoint, so that it costs little and may die; what it
has to say it leaves in a note. The demands are the same for every kind: see `Held`.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import mmap
import os
import shutil
import signal
import struct
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lib_pivotal.bundle.verify import verify
from lib_pivotal.errors import PivotalError, StateError
from lib_pivotal.standalone.signals import stopping_on_signals
from lib_pivotal.training.events import Commands, Event, FileSaved, Notice, RunEnded, RunStarted, StepDone
from lib_pivotal.training.logs import after_start, default_logs, fan_out
from lib_pivotal.training.state_files import StateFile, latest_run_folder, list_states
from tests.faults import kernel
from tests.faults.kinds import Act, Kind, Settings
from tests.faults.material import (
    CACHE_HOME,
    NAME,
    Expected,
    Folders,
    Material,
    Tensors,
    equal,
    picture_hash,
    quiet_environment,
    read_note,
    settings_of,
    shorten_pictures,
    tensors_of,
    weights_hash,
    write_note,
)
from tests.faults.moments import Passing
from tests.training.runs import train

OWN_NAMES = (NAME, "aoi", "hana")
"""The run's, and its embeddings'."""
LONGEST_S = 90.0
"""A process that takes longer hangs; an undisturbed one takes about a second on a processor of its own."""


@dataclass
class Held:
    """What held; None where it was not asked."""

    ended: bool | None = None
    """The process ended by an event, was refused with a sentence, or was killed; it did not hang or crash."""
    kept: bool | None = None
    """What was trained is in the result, or in a state from which the run goes on at the step it was saved at."""
    same: bool | None = None
    """In the end the tensors are bit for bit those of the undisturbed run."""
    weights: bool | None = None
    """Every parameter of the checkpoint, and its file, as before."""
    picture: bool | None = None
    """The picture of a seed as before."""
    inside: bool | None = None
    """No file outside the run's own, none of another's changed."""
    answers: bool | None = None
    """The web UI answers, and turns no client away."""

    def add(self, name: str, good: bool) -> None:
        """One more look at a demand: it holds if every look was good."""
        setattr(self, name, good and getattr(self, name) is not False)


@dataclass
class Result:
    """A trial's outcome; `why` tells what did not hold."""

    number: int
    kind: str
    variant: str
    settings: Settings
    seconds: float = 0.0
    held: Held = field(default_factory=Held)
    why: list[str] = field(default_factory=list)
    backend: str = "standalone"

    @property
    def good(self) -> bool:
        return not self.why

    def as_dict(self) -> dict[str, Any]:
        """For a line of JSON."""
        return {**asdict(self), "settings": {key: _plain(value) for key, value in self.settings.items()}}


def _plain(value: Any) -> Any:
    return f"{value.place} {value.number}" if hasattr(value, "place") else value


class Trial:
    """The parent's side: starts processes, does harm in between, and judges."""

    nothing_to_continue: tuple[str, ...] = ("cannot",)
    """Of the sentences that refuse a run without a usable state."""

    def __init__(self, material: Material, expected: Expected, kind: Kind, result: Result, root: Path) -> None:
        self.material, self.expected, self.kind, self.result = material, expected, kind, result
        self.settings, self.held = result.settings, result.held
        self.folders = Folders(root / "place")
        self.notes = root / "notes"
        self.notes.mkdir()
        self._lost: StateFile | None = None
        self._overwrite = False
        self._saved_step = 0
        self._processes = 0

    # ---- the whole of it ----

    def run(self) -> None:
        """From the first process to the last look. What does not hold is in the result."""
        material, folders = self.material, self.folders
        material.lay_out(folders)
        self.kind.prepare(folders, self.settings)
        try:
            others = self.files()
            first = self._first()
            self.kind.between(self)
            self._look_at_the_end(first)
            self._look_outside(others, first)
        finally:
            self.kind.clear(folders)
        same_file = hashlib.sha256(material.checkpoint.read_bytes()).hexdigest() == material.sha256
        self.demand("weights", same_file, "the checkpoint's file has changed")

    def demand(self, name: str, good: bool, otherwise: str) -> bool:
        """Note whether a demand holds."""
        self.held.add(name, good)
        if not good:
            self.result.why.append(f"{name}: {otherwise}")
        return good

    # ---- processes ----

    def _first(self) -> dict[str, Any]:
        if self.kind.name != "two runs at once, one name":
            return self.process(plant=self.kind.plant, own_thread=self.kind.own_thread)
        other = self.start(plant=lambda act: self.kind.plant(_second(act)))
        first = self.process(plant=self.kind.plant)
        self.finish(other)
        return first

    def process(self, **how: Any) -> dict[str, Any]:
        """One run from start to end; its note, with what is known of a process that was killed."""
        return self.finish(self.start(**how))

    def start(
        self, *, resume: bool = False, plant: Callable[[Act], None] | None = None, own_thread: bool = False
    ) -> tuple[int, Path, mmap.mmap]:
        """Fork; the child trains, leaves its note, and ends."""
        self._processes += 1
        note = self.notes / f"{self._processes}.note"
        shared = mmap.mmap(-1, 16)
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            child = Child(self, note, shared)
            child.live(resume=resume, plant=plant, own_thread=own_thread, overwrite=self._overwrite)
        return pid, note, shared

    def finish(self, started: tuple[int, Path, mmap.mmap]) -> dict[str, Any]:
        """Wait for it. What every process owes is demanded here."""
        pid, path, shared = started
        status = _wait(pid)
        note = read_note(path) or {}
        note["steps"], note["saved"] = struct.unpack("=ii", shared[:8])
        note["killed"] = status is not None and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        self._saved_step = max(self._saved_step, note["saved"])
        if status is None:
            self.demand("ended", False, f"hangs: more than {LONGEST_S:.0f} s")
            note["killed"] = True
        elif not note["killed"]:
            told = note.get("crash") or f"no note, exit status {status}: {self._log_of(path)}"
            self.demand("ended", "weights" in note and not note.get("crash"), told)
            if "weights" in note:
                self.demand("weights", note["weights"], "the checkpoint's parameters have changed")
                self.demand("picture", note["picture"], "the picture of a seed has changed")
        else:
            self.demand("ended", True, "")
        return note

    @staticmethod
    def _log_of(note: Path) -> str:
        log = note.with_suffix(".log")
        return log.read_text(errors="replace")[-1500:] if log.exists() else ""

    # ---- what kinds ask for in between ----

    def states(self) -> list[StateFile]:
        """Of the run that began last, the newest first."""
        folder = latest_run_folder(self.folders.states)
        return [] if folder is None else list_states(folder)

    def tensors(self, path: Path) -> Tensors | None:
        """Of a bundle; None where it is broken."""
        with contextlib.suppress(PivotalError):
            return tensors_of(path)
        return None

    def let_overwrite(self) -> None:
        """A file of the run is another's now: going on over it is refused until the user says so, who then does."""
        if self.states():
            note = self.process(resume=True)
            told = note.get("refused", "")
            if note.get("reason") != "finished":
                self.demand("kept", "of this name already" in told, f"refused otherwise: {told or note.get('message')}")
        self._overwrite = True

    def loses(self, state: StateFile) -> None:
        """The harm has taken a state: the run may go on from the one before."""
        self._lost = state

    def original(self, path: Path) -> bytes:
        """A file of the material as it was laid out."""
        with tempfile.TemporaryDirectory() as folder:
            fresh = Folders(Path(folder))
            self.material.lay_out(fresh)
            return (Path(folder) / path.relative_to(self.folders.root)).read_bytes()

    def disturb_continuing(self, plant: Callable[[Act], None]) -> None:
        """Go on, with one more fault."""
        if self.states():
            self.process(resume=True, plant=plant)

    def demand_refusal(self, *embeddings: str) -> None:
        """Going on is refused with one of these words, and nothing is touched."""
        before = self.files()
        note = self.process(resume=True)
        told = note.get("refused", "")
        refused = any(embedding in told for embedding in embeddings)
        self.demand("kept", refused, f"not refused with {embeddings}: {told or note.get('reason')}")
        self.demand("inside", self.files() == before, "a refused run has touched files")

    def demand_that_damage_is_told(self, path: Path, before: Tensors | None) -> None:
        """A damaged bundle is told from a good one, unless its tensors are the same."""
        try:
            same = before is not None and equal(tensors_of(path), before)
        except PivotalError:
            same = False
        told = any(problem.severity == "error" for problem in verify(path))
        self.demand("kept", same or told, f"{path.name} is damaged, and nobody says so")

    # ---- the judgement ----

    def _look_at_the_end(self, first: dict[str, Any]) -> None:
        """The result is there, or the run goes on to it."""
        by_nature = self.kind.changes_result(first, self.settings)
        place = Path(first["bundle"]) if first.get("bundle") else None
        if first.get("reason") == "finished":
            found = None if place is None else self.tensors(place)
            if self.demand("kept", found is not None, f"finished, but {place} is no whole bundle"):
                self._compare(found, by_nature)
            return
        if first.get("reason") == "failed" and not self._kept_of(first):
            return
        note = self._go_on()
        by_nature |= self.kind.changes_result(note, self.settings)
        found = self.tensors(self.folders.bundle)
        told = note.get("refused") or note.get("message") or note.get("crash")
        if self.demand("kept", found is not None, f"gone on with, but there is no result: {told}"):
            self._compare(found, by_nature)

    def _kept_of(self, first: dict[str, Any]) -> bool:
        """Whether a run that failed kept what it had trained, or said that nothing took it."""
        if first["steps"] == 0 or self.states() or first.get("bundle"):
            return True
        told = first.get("message", "")
        nowhere = self.kind.leaves_no_place(self.settings) and "saved anywhere" in told
        self.demand("kept", nowhere, f"failed after {first['steps']} steps, and nothing is left: {told}")
        return True

    def _go_on(self) -> dict[str, Any]:
        """Continue from the newest state; where there is none, that is refused, and the run begins anew."""
        states = [state for state in self.states() if self._lost is None or state.path != self._lost.path]
        if states or (self._lost is not None and self._is_whole(self._lost)):
            wanted = self._saved_step if self._lost is None else min((state.step for state in states[:1]), default=0)
            note = self.process(resume=True)
            self.demand("kept", note.get("first_step", -1) >= wanted, f"went on {_told_start(note)}, saved at {wanted}")
            return note
        self.demand("kept", self._saved_step == 0 or self._lost is not None, "a state was saved and is gone")
        self.demand_refusal(*self.nothing_to_continue)
        self._overwrite = True  # a stopped run's file may be there
        return self.process()

    @staticmethod
    def _is_whole(state: StateFile) -> bool:
        """Damage may hit what says nothing."""
        from lib_pivotal.training.state import load_state

        try:
            load_state(state)
        except StateError:
            return False
        return True

    def _compare(self, found: Tensors | None, by_nature: bool) -> None:
        assert found is not None
        if by_nature:
            finite = all(bool(tensor.isfinite().all()) for tensor in found.values())
            self.demand("kept", finite and found.keys() == self.expected.tensors.keys(), "the result is not whole")
            return
        self.demand("same", equal(found, self.expected.tensors), "other tensors than the undisturbed run's")

    def _look_outside(self, others: dict[str, str], first: dict[str, Any]) -> None:
        """Only the run's own files are new; those of others are as they were."""
        now = self.files()
        told = " ".join((*first.get("told", ()), str(first.get("bundle"))))
        litter = first["killed"] or self.kind.leaves_litter(self.settings)
        odd = [name for name in now if name not in others and not self.is_own(name, told, litter=litter)]
        self.demand("inside", not odd, f"files outside: {odd[:5]}")
        changed = [name for name, content in others.items() if now.get(name) != content]
        self.demand("inside", not [one for one in changed if not self._may_change(one)], f"changed: {changed[:5]}")

    def files(self) -> dict[str, str]:
        """What lies in the trial's place."""
        return listing(self.folders.root)

    @staticmethod
    def is_own(name: str, told: str, *, litter: bool) -> bool:
        """Whether a new file belongs to the run: its name in its folders, its cache, or a place that it told of."""
        folder, _, rest = name.partition("/")
        if folder in ("log", "loras"):
            own = rest.lstrip(".").startswith(OWN_NAMES)
            return own or (folder == "log" and rest.startswith(("steps/", "pictures/")))
        if folder == "temporary":
            return litter or rest.split("/")[0] in told
        return folder == "cache"

    def _may_change(self, name: str) -> bool:
        return name.startswith("pictures/") and self.kind.name.startswith("picture")


def _second(act: Act) -> Act:
    act.settings = {**act.settings, "second": True}
    return act


def _told_start(note: dict[str, Any]) -> str:
    return f"from step {note['first_step']}" if "first_step" in note else f"not at all ({note.get('refused')})"


def listing(root: Path) -> dict[str, str]:
    """Every file below a folder by its path, with a hash of what is in it; not what is known of scanned pictures."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != kernel.BALLAST and CACHE_HOME not in str(path)
    }


def _wait(pid: int) -> int | None:
    """The status of a process, None where it had to be ended."""
    deadline = time.monotonic() + LONGEST_S
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


class Child:
    """The forked process's side: it trains as the command line does, and leaves a note."""

    def __init__(self, trial: Trial, note: Path, shared: mmap.mmap) -> None:
        self._material, self._folders, self._result = trial.material, trial.folders, trial.result
        self._note_path, self._shared = note, shared
        self._note: dict[str, Any] = {"told": []}
        self._overwrite = False
        self._last: Event | None = None

    def live(self, *, resume: bool, plant: Callable[[Act], None] | None, own_thread: bool, overwrite: bool) -> None:
        """Never returns."""
        self._overwrite = overwrite
        status = 1
        try:
            with self._quietly():
                commands = Commands()
                act = self._act(commands)
                with stopping_on_signals(commands):
                    if own_thread:
                        thread = threading.Thread(target=self._train, args=(act, resume, plant))
                        thread.start()
                        thread.join()
                    else:
                        self._train(act, resume, plant)
                act.passing.then.clear()
                kernel.limit_files(None)
                self._look()
                write_note(self._note_path, self._note)
                status = 0
        except BaseException:  # a forked process must not return into its parent's code
            traceback.print_exc()
        finally:
            os._exit(status)

    @contextlib.contextmanager
    def _quietly(self) -> Iterator[None]:
        log = os.open(self._note_path.with_suffix(".log"), os.O_CREAT | os.O_WRONLY)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stderr = os.fdopen(log, "w", buffering=1)
        logging.basicConfig(stream=sys.stderr, level=logging.WARNING, force=True)
        quiet_environment(self._folders)
        tempfile.tempdir = str(self._folders.temporary)
        yield
        sys.stderr.flush()

    def _act(self, commands: Commands) -> Act:
        host = self._material.host
        passing = Passing(self._folders.root)
        act = Act(self._folders, dict(self._result.settings), commands, host, passing)
        shorten_pictures(host)
        passing.install(host)
        return act

    def _train(self, act: Act, resume: bool, plant: Callable[[Act], None] | None) -> None:
        logs = default_logs(self._folders.log, NAME)
        logs = [after_start(log) for log in logs] if resume else logs
        listener = fan_out([self._hear, act.passing.listener, *logs])

        def hear_all(event: Event) -> None:
            listener(event)
            for heard in act.on_event:
                heard(event)

        if plant is not None:
            plant(act)
        try:
            ended = train(
                settings_of(self._result.variant, self._folders),
                act.host,
                output_folder=self._folders.loras,
                log_folder=self._folders.log,
                listener=hear_all,
                commands=act.commands,
                resume=resume,
                overwrite=self._overwrite,
            )
        except PivotalError as error:
            self._note["refused"] = str(error)
        except KeyboardInterrupt:
            key = "crash" if "first_step" in self._note else "refused"
            self._note[key] = "interrupted"
        except Exception as error:
            self._note["crash"] = f"{type(error).__name__}: {error}\n{traceback.format_exc()[-1500:]}"
        else:
            if self._last is not ended:
                self._note["crash"] = f"the last event is {self._last}"
            self._note |= {"reason": ended.reason, "message": ended.message, "bundle": ended.bundle}

    def _hear(self, event: Event) -> None:
        steps, saved = struct.unpack("=ii", self._shared[:8])
        if isinstance(event, StepDone):
            steps = event.step
        if isinstance(event, FileSaved) and event.kind == "state":
            saved = event.step
        if isinstance(event, RunStarted):
            self._note["first_step"] = event.first_step
        if isinstance(event, Notice):
            self._note["told"].append(event.message)
        if isinstance(event, RunEnded):
            self._last = event
        self._shared[:8] = struct.pack("=ii", steps, saved)

    def _look(self) -> None:
        self._note["weights"] = weights_hash(self._material.host) == self._material.weights
        self._note["picture"] = picture_hash(self._material.host) == self._material.picture


def undisturbed(material: Material, variant: str) -> Expected:
    """What the variant gives where nothing happens, and how often it comes by each moment."""
    with tempfile.TemporaryDirectory() as folder:
        result = Result(0, "none", variant, {})
        trial = Trial(material, Expected({}), Kind(), result, Path(folder))
        material.lay_out(trial.folders)
        counts_file = trial.notes / "counts"

        def plant(act: Act) -> None:
            act.on_event.append(
                lambda event: write_note(counts_file, dict(act.passing.counts)) if isinstance(event, RunEnded) else None
            )

        note = trial.process(plant=plant)
        if note.get("reason") != "finished" or not result.good:
            raise RuntimeError(f"the undisturbed run {variant} failed: {note} {result.why}")
        return Expected(tensors_of(trial.folders.bundle), read_note(counts_file))


def try_one(material: Material, expected: Expected, kind: Kind, result: Result) -> Result:
    """One trial in a folder of its own, which is removed."""
    started = time.perf_counter()
    root = Path(tempfile.mkdtemp(prefix=f"trial-{result.number:05d}-", dir=material.folder))
    trial = Trial(material, expected, kind, result, root)
    try:
        trial.run()
    except Exception as error:
        result.why.append(f"the trial itself failed: {type(error).__name__}: {error}\n{traceback.format_exc()[-1500:]}")
    result.seconds = time.perf_counter() - started
    if result.good:
        shutil.rmtree(root, ignore_errors=True)
    return result
