"""The kinds of faults: how one is drawn, how it is put into a run, and what a run may and may not do about it.

A kind strikes at a drawn moment in the process that trains (`plant`), or at what that process left (`between`). It says
when the result is another one by its nature; everything else is demanded by `trial.py` of all kinds alike.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from lib_pivotal.training.events import Commands, Event, RunStarted, StepDone
from lib_pivotal.training.step import MicroStep
from lib_pivotal.training.trainable import Trainable
from tests.faults import kernel
from tests.faults.material import CAPTIONS, NAME, STEPS, Folders, same_size
from tests.faults.moments import COMPUTING, PLACES, Moment, Passing

Settings = dict[str, Any]
TEN_YEARS_S = 10 * 365 * 86400.0


@dataclass
class Act:
    """A process that trains, as a kind sees it: it may hang something on moments and steps."""

    folders: Folders
    settings: Settings
    commands: Commands
    host: Any
    passing: Passing
    on_event: list[Callable[[Event], None]] = field(default_factory=list)
    call: Callable[[], None] = lambda: None
    """In a web UI: tells the one outside that the moment has come, and waits until he has begun."""

    def at(self, moment: Moment, strike: Callable[[], None], *, times: int = 1) -> None:
        """Call `strike` at the moment, and at the same place again until it was called `times` times."""

        def then(place: str, number: int) -> None:
            if place == moment.place and 0 <= number - moment.number < times:
                strike()

        self.passing.then.append(then)

    def after_step(self, number: int, strike: Callable[[], None]) -> None:
        """Call `strike` once this many steps are done (0: when the run starts)."""

        def heard(event: Event) -> None:
            started = isinstance(event, RunStarted) and number == 0
            if started or (isinstance(event, StepDone) and event.step == number):
                strike()

        self.on_event.append(heard)


class Kind:
    """One kind of fault. Settings are plain values, so that a trial can be told and repeated."""

    name: str
    own_thread: bool = False
    """The run is in a thread of its own: what the kernel refuses, it refuses to that thread alone."""
    may_kill: bool = False
    """The process that trains may die of it."""
    places: tuple[str, ...] = PLACES

    def available(self) -> bool:
        """Whether this system can have such a fault."""
        return True

    def draw(self, rng: random.Random, counts: Mapping[str, int]) -> Settings:
        """Settings, the moment among them."""
        return {"moment": Moment.drawn(rng, counts, self.places)}

    def prepare(self, folders: Folders, settings: Settings) -> None:
        """Before the process starts."""

    def plant(self, act: Act) -> None:
        """In the process, before it trains."""
        act.at(act.settings["moment"], lambda: self.strike(act))

    def strike(self, act: Act) -> None:
        """At the moment."""

    def between(self, trial: Any) -> None:
        """After the process ended, before the run is continued: more harm, or the cause taken away."""

    def clear(self, folders: Folders) -> None:
        """At the very end of the trial."""

    def changes_result(self, note: Mapping[str, Any], settings: Settings) -> bool:
        """Whether the result is by nature another one than that of an undisturbed run."""
        return False

    def leaves_no_place(self, settings: Settings) -> bool:
        """Whether nothing on the disk could take what was trained."""
        return False

    def leaves_litter(self, settings: Settings) -> bool:
        """Whether what is temporary cannot be removed."""
        return False


# ---- processes ----


class Killed(Kind):
    """kill -9 at a moment, or after a time; perhaps the run that goes on from there, too."""

    name = "kill -9"
    may_kill = True

    def draw(self, rng: random.Random, counts: Mapping[str, int]) -> Settings:
        again = Moment.drawn(rng, counts) if rng.random() < 0.3 else None
        after_s = rng.uniform(0.0, 1.5) if rng.random() < 0.25 else None
        return {**super().draw(rng, counts), "after_s": after_s, "again": again}

    def plant(self, act: Act) -> None:
        if act.settings["after_s"] is None:
            super().plant(act)
        else:
            _later(act.settings["after_s"], lambda: self.strike(act))

    def strike(self, act: Act) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def between(self, trial: Any) -> None:
        if trial.settings["again"] is not None:
            trial.disturb_continuing(lambda act: act.at(trial.settings["again"], lambda: self.strike(act)))


class Terminated(Killed):
    """SIGTERM, as a system that shuts down sends it: the step in hand is finished."""

    name = "SIGTERM"

    def strike(self, act: Act) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


class InterruptedTwice(Kind):
    """Ctrl-C twice: the run is torn at whatever it does."""

    name = "Ctrl-C twice"
    may_kill = True

    def plant(self, act: Act) -> None:
        act.at(act.settings["moment"], lambda: self.strike(act))

    def strike(self, act: Act) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


class TwoAtOnce(Kind):
    """The same run is started twice, with the same name and folders."""

    name = "two runs at once, one name"

    def draw(self, rng: random.Random, counts: Mapping[str, int]) -> Settings:
        return {"wait_s": rng.choice([0.0, 0.05, 0.2, 0.5])}

    def plant(self, act: Act) -> None:
        if act.settings.get("second"):
            time.sleep(act.settings["wait_s"])


# ---- disks ----


class _Disk(Kind):
    """From a moment on, perhaps until a step."""

    def draw(self, rng: random.Random, counts: Mapping[str, int]) -> Settings:
        until = rng.randint(1, STEPS) if rng.random() < 0.5 else None
        return {**super().draw(rng, counts), "until_step": until}

    def plant(self, act: Act) -> None:
        super().plant(act)
        if act.settings["until_step"] is not None:
            act.after_step(act.settings["until_step"], lambda: self.lift(act.folders))

    def lift(self, folders: Folders) -> None:
        """As it was before."""


class FileLimit(_Disk):
    """ENOSPC, first form: no file can grow beyond a few bytes (RLIMIT_FSIZE)."""

    name = "disk full: RLIMIT_FSIZE"

    def draw(self, rng: random.Random, counts: Mapping[str, int]) -> Settings:
        return {**super().draw(rng, counts), "limit_bytes": rng.choice([0, 1, 100, 5_000, 8_000, 50_000, 100_000])}

    def strike(self, act: Act) -> None:
        kernel.limit_files(act.settings["limit_bytes"])

    def lift(self, folders: Folders) -> None:
        kernel.limit_files(None)

    def leaves_no_place(self, settings: Settings) -> bool:
        return True


class FullFileSystem(_Disk):
    """ENOSPC, second form: the file system of the run's folders is filled by another program."""

    name = "disk full: ENOSPC"

    def available(self) -> bool:
        return kernel.can_mount() or kernel.can_filter()

    def draw(self, rng: random.Random, counts: Mapping[str, int]) -> Settings:
        return {**super().draw(rng, counts), "leave_bytes": rng.choice([0, 4096, 40_000, 70_000, 200_000])}

    @property
    def own_thread(self) -> bool:
        return not kernel.can_mount()

    def prepare(self, folders: Folders, settings: Settings) -> None:
        if kernel.can_mount():
            for folder in folders.disks:
                kernel.mount_small(folder, size_bytes=folders.disk_bytes)
                (folder / "another's.safetensors").write_bytes(b"not ours")

    def strike(self, act: Act) -> None:
        if not kernel.can_mount():
            kernel.fail_calls(["write"], 28)
            return
        for folder in act.folders.disks:
            kernel.fill(folder, leave_bytes=act.settings["leave_bytes"])

    def lift(self, folders: Folders) -> None:
        for folder in folders.disks:
            (folder / kernel.BALLAST).unlink(missing_ok=True)

    def between(self, trial: Any) -> None:
        self.lift(trial.folders)

    def clear(self, folders: Folders) -> None:
        if kernel.can_mount():
            for folder in folders.disks:
                kernel.unmount(folder)

    def leaves_no_place(self, settings: Settings) -> bool:
        return not kernel.can_mount()


class InputOutputError(Kind):
    """EIO: a failing disk. The kernel refuses some kinds of calls from a moment on."""

    name = "EIO"
    own_thread = True

    def available(self) -> bool:
        return kernel.can_filter()

    def draw(self, rng: random.Random, counts: Mapping[str, int]) -> Settings:
        calls = sorted(rng.sample(sorted(kernel.SYSCALLS), rng.randint(1, 3)))
        return {**super().draw(rng, counts), "calls": calls}

    def strike(self, act: Act) -> None:
        kernel.fail_calls(act.settings["calls"], 5)

    def leaves_no_place(self, settings: Settings) -> bool:
        return True

    def leaves_litter(self, settings: Settings) -> bool:
        return "remove" in settings["calls"]


class NoPermission(_Disk):
    """A folder becomes read-only, for root, too."""

    name = "permission taken away"
    own_thread = True

    def draw(self, rng: random.Random, counts: Mapping[str, int]) -> Settings:
        folders = rng.sample(["loras", "log", "states", "cache", "temporary"], rng.randint(1, 3))
        return {**super().draw(rng, counts), "folders": sorted(folders), "mode": rng.choice([0o555, 0o000])}

    def plant(self, act: Act) -> None:
        super().plant(act)
        kernel.obey_permissions()

    def strike(self, act: Act) -> None:
        for folder in self._places(act.folders, act.settings):
            folder.chmod(act.settings["mode"])

    def lift(self, folders: Folders) -> None:
        for folder in (folders.log, folders.loras, folders.cache, folders.temporary, folders.states):
            if folder.is_dir():
                folder.chmod(0o755)
                for inner in folder.iterdir():
                    if inner.is_dir():
                        inner.chmod(0o755)

    def between(self, trial: Any) -> None:
        self.lift(trial.folders)

    def clear(self, folders: Folders) -> None:
        self.lift(folders)

    def leaves_no_place(self, settings: Settings) -> bool:
        return {"log", "temporary"} <= set(settings["folders"])

    def leaves_litter(self, settings: Settings) -> bool:
        return "temporary" in settings["folders"]

    @staticmethod
    def _places(folders: Folders, settings: Settings) -> list[Path]:
        named = {"states": folders.states / "run-0001"}
        found = [named.get(name) or getattr(folders, name) for name in settings["folders"]]
        return [folder for folder in found if folder.is_dir()]


# ---- damaged files ----


class _Damage(Kind):
    """A run is stopped (or killed) after some steps; then a file of it is damaged."""

    may_kill = True

    def draw(self, rng: random.Random, counts: Mapping[str, int]) -> Settings:
        return {
            "stop_after": rng.randint(1, STEPS - 1),
            "way": rng.choice(["cut", "flip", "empty", "zeros"]),
            "at": rng.random(),
            "killed": rng.random() < 0.5,
        }

    def plant(self, act: Act) -> None:
        if act.settings["killed"]:
            act.after_step(act.settings["stop_after"], lambda: os.kill(os.getpid(), signal.SIGKILL))
        else:
            act.after_step(act.settings["stop_after"], act.commands.stop)


def damage(path: Path, way: str, at: float, *, first: int = 0) -> None:
    """Cut a file off, flip a bit, empty it, or put a sector of zeros into it, at a place from `first` on."""
    content = bytearray(path.read_bytes())
    place = first + int(at * (len(content) - first))
    if way == "cut":
        del content[place:]
    elif way == "flip":
        content[place] ^= 1 << int(at * 8191) % 8
    elif way == "empty":
        content.clear()
    else:
        content[place : place + 512] = bytes(len(content[place : place + 512]))
    path.write_bytes(content)


class DamagedState(_Damage):
    """The newest state is damaged: the one before it is gone on from, or where there is none, it is refused."""

    name = "state cut or flipped"

    def between(self, trial: Any) -> None:
        states = trial.states()
        if not states:
            return
        damage(states[0].path, trial.settings["way"], trial.settings["at"])
        trial.loses(states[0])


class DamagedBundle(_Damage):
    """A bundle of the run is damaged: it is told from a good one, and the run goes on from its state all the same."""

    name = "bundle cut or flipped"

    def between(self, trial: Any) -> None:
        bundles = sorted({*trial.folders.loras.glob(f"{NAME}*"), *trial.folders.log.glob(f"{NAME}*.safetensors")})
        if bundles:
            chosen = bundles[int(trial.settings["at"] * len(bundles))]
            start = 8 + int.from_bytes(chosen.read_bytes()[:8], "little")
            before = trial.tensors(chosen)
            damage(chosen, trial.settings["way"], trial.settings["at"], first=start)
            trial.demand_that_damage_is_told(chosen, before)
            trial.let_overwrite()


# ---- numbers ----


class NotFiniteLoss(Kind):
    """The loss of some steps in a row is not a number."""

    name = "NaN or inf in the loss"

    def draw(self, rng: random.Random, counts: Mapping[str, int]) -> Settings:
        first = rng.randrange(STEPS)
        return {"first": first, "steps": rng.randint(1, 3), "value": rng.choice(["nan", "inf", "-inf"])}

    def plant(self, act: Act) -> None:
        original, steps = MicroStep.losses, range(act.settings["first"], act.settings["first"] + act.settings["steps"])

        def losses(self: MicroStep, batch: Any, *arguments: Any, seeds: tuple[int, int], **rest: Any) -> torch.Tensor:
            found = original(self, batch, *arguments, seeds=seeds, **rest)
            return found * float(act.settings["value"]) if seeds[1] in steps else found

        MicroStep.losses = losses

    def changes_result(self, note: Mapping[str, Any], settings: Settings) -> bool:
        return True


class NotFiniteWeights(Kind):
    """A trained number becomes NaN or infinite."""

    name = "NaN or inf in what is trained"
    places = (*COMPUTING[1:], "step", "copy", "bundle", "state")

    def draw(self, rng: random.Random, counts: Mapping[str, int]) -> Settings:
        return {**super().draw(rng, counts), "which": rng.random(), "value": rng.choice(["nan", "inf", "-inf"])}

    def plant(self, act: Act) -> None:
        original, found = Trainable.__init__, list[Trainable]()

        def keep(self: Trainable, *arguments: Any, **rest: Any) -> None:
            original(self, *arguments, **rest)
            found.append(self)

        def strike() -> None:
            if found:
                parameters = found[0].parameters
                with torch.no_grad():
                    parameters[int(act.settings["which"] * len(parameters))].view(-1)[0] = float(act.settings["value"])

        Trainable.__init__ = keep
        act.at(act.settings["moment"], strike)

    def changes_result(self, note: Mapping[str, Any], settings: Settings) -> bool:
        return True


# ---- memory ----


class NoMemory(Kind):
    """The allocator's own refusal: once, twice, or from then on always."""

    def __init__(self, what: str, *places: str) -> None:
        self.name = f"out of memory: {what}"
        self.places = places

    def draw(self, rng: random.Random, counts: Mapping[str, int]) -> Settings:
        how = rng.choice(["torch", "cuda", "python"])
        return {**super().draw(rng, counts), "times": rng.choice([1, 1, 2, 10**9]), "how": how, "torn": rng.random()}

    def plant(self, act: Act) -> None:
        def strike() -> None:
            self.refuse(act)

        act.at(act.settings["moment"], strike, times=act.settings["times"])

    def refuse(self, act: Act) -> None:
        """At the place."""
        ask_for_too_much(act.settings["how"])

    def changes_result(self, note: Mapping[str, Any], settings: Settings) -> bool:
        """In smaller parts, sums are rounded otherwise."""
        split = any("micro-batches are split" in told for told in note.get("told", ()))
        return split or "encode" in self.places


class NoMemoryInBackward(NoMemory):
    """In the midst of the backward pass, where some gradients are there already."""

    def refuse(self, act: Act) -> None:
        prediction = act.passing.last_prediction
        if prediction is not None:
            prediction.register_hook(lambda gradient: ask_for_too_much(act.settings["how"]))


class NoMemoryInOptimiser(NoMemory):
    """In the midst of the optimiser's step: some groups have moved, others not."""

    def plant(self, act: Act) -> None:
        moment, times, torn = (act.settings[key] for key in ("moment", "times", "torn"))
        count, kept = [0], list[Any]()

        def before(optimiser: Any, *_: Any) -> None:
            count[0] += 1
            if 0 <= count[0] - moment.number < times:
                kept[:] = [optimiser.param_groups]
                optimiser.param_groups = kept[0][: int(torn * len(kept[0]))]

        def after(optimiser: Any, *_: Any) -> None:
            if kept:
                optimiser.param_groups = kept.pop()
                ask_for_too_much(act.settings["how"])

        register_optimizer_step_pre_hook(before)
        register_optimizer_step_post_hook(after)


def ask_for_too_much(how: str) -> None:
    """Raise what lack of memory raises; on the CPU it is torch's allocator that does."""
    if how == "torch":
        torch.empty(2**50, dtype=torch.uint8)
    if how == "cuda":
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    raise MemoryError


# ---- clocks, pictures, other programs ----


class ClockSetBack(Kind):
    """The clock goes back by years while the run goes on, and the files' times are any."""

    name = "clock set back"

    def draw(self, rng: random.Random, counts: Mapping[str, int]) -> Settings:
        return {**super().draw(rng, counts), "stop_after": rng.randint(1, STEPS - 1), "times": rng.randrange(2**32)}

    def plant(self, act: Act) -> None:
        super().plant(act)
        act.after_step(act.settings["stop_after"], act.commands.stop)

    def strike(self, act: Act) -> None:
        honest = time.time
        time.time = lambda: honest() - TEN_YEARS_S

    def between(self, trial: Any) -> None:
        rng = random.Random(trial.settings["times"])
        for path in sorted(trial.folders.log.rglob("*")):
            os.utime(path, (when := rng.uniform(0, 4e9), when))


class PictureChanged(Kind):
    """A picture or caption is deleted or changed once it is being trained on.

    The run goes on with what it has. Going on later is refused as long as it is not as it was.
    """

    name = "picture deleted or changed"
    may_kill = True
    places = ("unet", "backward", "optimiser", "step")

    def draw(self, rng: random.Random, counts: Mapping[str, int]) -> Settings:
        way = rng.choice(["delete", "cut", "other picture", "same size", "caption", "caption deleted"])
        return {
            **super().draw(rng, counts),
            "way": way,
            "which": rng.random(),
            "stop_after": rng.randint(1, STEPS - 1),
            "killed": rng.random() < 0.3,
        }

    def plant(self, act: Act) -> None:
        super().plant(act)
        DamagedState().plant(act)

    def strike(self, act: Act) -> None:
        path = self._file(act.folders, act.settings)
        way = act.settings["way"]
        if way in ("delete", "caption deleted"):
            path.unlink()
        elif way == "cut":
            path.write_bytes(path.read_bytes()[:50])
        elif way == "caption":
            path.write_text(path.read_text() + ", a hat")
        elif way == "other picture":
            Image.new("RGB", (64, 64), (1, 2, 3)).save(path)
        else:
            same_size(path)

    def between(self, trial: Any) -> None:
        path = self._file(trial.folders, trial.settings)
        whole = trial.original(path)
        if path.exists() and path.read_bytes() == whole:
            return  # the run ended before the moment
        if trial.states():
            trial.demand_refusal("pictures or captions differ")
        path.write_bytes(whole)

    @staticmethod
    def _file(folders: Folders, settings: Settings) -> Path:
        ending = ".txt" if settings["way"].startswith("caption") else ".png"
        return folders.pictures / f"{sorted(CAPTIONS)[int(settings['which'] * len(CAPTIONS))]}{ending}"


class LoraOverwritten(Kind):
    """Another program writes over a file of the run that is in models/Lora, in place or by a new one."""

    name = "LoRA overwritten while in use"
    places = ("unet", "sample", "bundle", "state", "step", "file")

    def draw(self, rng: random.Random, counts: Mapping[str, int]) -> Settings:
        return {
            **super().draw(rng, counts),
            "way": rng.choice(["in place", "cut", "replaced", "deleted", "folder"]),
            "which": rng.random(),
            "stop_after": rng.choice([None, 3, 4, 5]),
        }

    def plant(self, act: Act) -> None:
        moment = act.settings["moment"]
        act.at(moment, lambda: self.strike(act), times=10**9)
        if act.settings["stop_after"] is not None:
            act.after_step(act.settings["stop_after"], act.commands.stop)

    def strike(self, act: Act) -> None:
        files = sorted(act.folders.loras.glob(f"{NAME}*.safetensors"))
        if not files or act.settings.get("done"):
            return
        act.settings["done"] = True
        path, way = files[int(act.settings["which"] * len(files))], act.settings["way"]
        if way == "in place":
            path.write_bytes(b"\xff" * path.stat().st_size)
        elif way == "cut":
            path.write_bytes(b"")
        elif way == "replaced":
            path.with_suffix(".new").write_bytes(b"another file")
            path.with_suffix(".new").replace(path)
        else:
            path.unlink()
            if way == "folder":
                path.mkdir()

    def between(self, trial: Any) -> None:
        for path in trial.folders.loras.glob(f"{NAME}*.safetensors"):
            if path.is_dir():
                path.rmdir()
        trial.let_overwrite()


def _later(seconds: float, strike: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, strike)
    timer.daemon = True
    timer.start()


KINDS: tuple[Kind, ...] = (
    Killed(),
    Terminated(),
    InterruptedTwice(),
    TwoAtOnce(),
    FileLimit(),
    FullFileSystem(),
    InputOutputError(),
    NoPermission(),
    DamagedState(),
    DamagedBundle(),
    NotFiniteLoss(),
    NotFiniteWeights(),
    NoMemory("encode", "encode"),
    NoMemory("forward", "text", "unet"),
    NoMemoryInBackward("backward", "backward"),
    NoMemoryInOptimiser("optimiser", "optimiser"),
    NoMemory("sample", "sample"),
    NoMemory("save", "bundle", "state", "copy"),
    ClockSetBack(),
    PictureChanged(),
    LoraOverwritten(),
)
"""Every kind of fault that a run without the web UI can meet."""
