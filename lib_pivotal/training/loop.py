"""The order of things in a run: step after step, with events out and commands in.

Knows neither files' formats nor a user interface: it is handed a source of batches, a `MicroStep`, a `Trainable`, and
callbacks that write files and make pictures.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from lib_pivotal.errors import TrainingError
from lib_pivotal.ports import OWN_LOSS, TrainingBatch
from lib_pivotal.training.aside import Aside, Interlude
from lib_pivotal.training.distributed import World
from lib_pivotal.training.events import (
    Commands,
    Event,
    FileSaved,
    Listener,
    Notice,
    Reason,
    RunEnded,
    RunStarted,
    StepDone,
)
from lib_pivotal.training.gradient_watch import GradientWatch
from lib_pivotal.training.phases import Phase, PhasePlan
from lib_pivotal.training.recovery import Guard, is_out_of_memory, release_memory
from lib_pivotal.training.seeds import derive_seed
from lib_pivotal.training.state import load_latest_state, save_state
from lib_pivotal.training.step import MicroStep, sample_count, split_batch
from lib_pivotal.training.trainable import Trainable, Update

logger = logging.getLogger(__name__)


class Source(Protocol):
    """Batches by position: the same position always gives the same batch."""

    def batch(self, step: int, micro: int) -> TrainingBatch: ...


@dataclass(frozen=True)
class LoopSettings:
    """Numbers of the loop; 0 turns a periodic thing off."""

    name: str
    seed: int
    max_steps: int
    accumulation: int = 1
    save_every_steps: int = 0
    state_every_steps: int = 0
    keep_states: int = 2
    sample_every_steps: int = 0
    separation_every_steps: int = 0
    state_folder: Path | None = None
    fingerprint: str = ""


class Outputs(Protocol):
    """What the loop calls to write and to look; each runs with the weights as a file would hold them."""

    def save_bundle(self, step: int, final: bool) -> list[Event]: ...
    def make_pictures(self, step: int) -> list[Event]: ...
    def measure_separation(self, step: int) -> list[Event]: ...
    def write_copy(self, path: Path) -> Path: ...


class Trainer:
    """One run. `run()` returns its last event; files are saved whatever ends it."""

    def __init__(
        self,
        settings: LoopSettings,
        *,
        trainable: Trainable,
        micro_step: MicroStep,
        source: Source,
        plan: PhasePlan,
        rate_factor: Callable[[int], float],
        outputs: Outputs,
        listener: Listener,
        commands: Commands | None = None,
        world: World | None = None,
        aside: Aside | None = None,
        rebind: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._trainable = trainable
        self._micro_step = micro_step
        self._source = source
        self._plan = plan
        self._rate_factor = rate_factor
        self._outputs = outputs
        self._listener = listener
        self._commands = commands or Commands()
        self._world = world or World()
        self._aside = aside
        self._rebind = rebind
        self.step = 0
        self.images_seen: Counter[str] = Counter()
        self.splits = 1
        self._guard: Guard | None = None
        self._watch = GradientWatch()
        self._step_seconds: list[float] = []

    def run(self, *, resume: bool = False) -> RunEnded:
        """Train to the end, or until stopped; the network must be attached and the session open.

        A failure is reported as a `RunEnded` with reason `failed` after saving what was good; only KeyboardInterrupt
        counts as a stop.
        """
        started = time.perf_counter()
        reason: Reason = "finished"
        message = ""
        with torch.random.fork_rng(devices=_cuda_devices()):
            try:
                if resume:
                    self._resume()
                self._guard = Guard(self._trainable)
                self._emit(self._run_started())
                while self.step < self._settings.max_steps and not self._commands.stopping:
                    self._one_step()
                    self._after_step()
                if self.step < self._settings.max_steps:
                    reason, message = "stopped", f"stopped after {self.step} of {self._settings.max_steps} steps"
            except KeyboardInterrupt:
                reason, message = "stopped", f"interrupted after {self.step} of {self._settings.max_steps} steps"
            except Exception as error:  # the trained words and network must be saved whatever happened
                logger.exception("the run failed at step %d", self.step + 1)
                reason, message = "failed", f"{type(error).__name__}: {error}"
                self._repair()
            bundle = self._final_save(reason)
        ended = RunEnded(reason, self.step, time.perf_counter() - started, bundle, message)
        self._emit(ended)
        return ended

    # ---- one step ----

    def _one_step(self) -> None:
        started = time.perf_counter()
        phase = self._plan.at(self.step)
        batches = [self._source.batch(self.step, micro) for micro in range(self._settings.accumulation)]
        losses = self._forward_backward(batches, phase)
        finite = not self._world.any(not all(math.isfinite(loss) for loss in losses.values()))
        update = self._trainable.update(phase, rate_factor=self._rate_factor(self.step)) if finite else None
        assert self._guard is not None
        if update is None or not update.applied:
            if update is None:
                self._trainable.scaler.update(overflowed=True)
            self._notice("warning", f"step {self.step + 1}: {self._guard.bad_step()}")
        else:
            self._guard.good_step()
            trained = self._trainable.trained_words(phase)
            for message in self._watch.after_step(batches, update.gradient_norms, trained=trained):
                self._notice("error", f"step {self.step + 1}: {message}")
        for batch in batches:
            for names in batch.words:
                self.images_seen.update(names)
        self.step += 1
        for name in self._trainable.words.advance(self.step, max_steps=self._settings.max_steps):
            self._notice("info", f"step {self.step}: the word {name!r} is frozen from here on")
        self._emit(self._step_done(phase, losses, update, time.perf_counter() - started))

    def _forward_backward(self, batches: list[TrainingBatch], phase: Phase) -> dict[str, float]:
        """Gradients of the effective batch's losses, which are returned by name; halves micro-batches when memory
        ends."""
        while True:
            try:
                self._trainable.prepare(phase)
                return self._accumulate(batches, network_moves=phase.unet > 0 or phase.te > 0)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                largest = max(batch.latents.shape[0] for batch in batches)
                self._trainable.prepare(phase)
                if self.splits >= largest:
                    raise TrainingError(
                        "memory does not suffice even for one picture at a time. Turn on gradient checkpointing, "
                        "lower data.resolution_px or the network's rank, or close other programs"
                    ) from error
                self.splits *= 2
                release_memory()
                self._notice(
                    "warning",
                    f"out of memory: micro-batches are split in {min(self.splits, largest)} from now on; "
                    "the effective batch stays the same",
                )

    def _accumulate(self, batches: list[TrainingBatch], *, network_moves: bool) -> dict[str, float]:
        words = self._trainable.words.as_mapping()
        count = sample_count(batches) * self._world.size
        totals: dict[str, float] = dict.fromkeys((batch.name for batch in batches), 0.0)
        before, starts = 0, list[int]()
        for micro, batch in enumerate(batches):
            share = batch.latents.shape[0]
            index = before + self._world.rank * share  # the process's slice of the global micro-batch
            before += share * self._world.size
            starts.append(index)
            if batch.again is not None:
                index = starts[batch.again]
            if batch.name != OWN_LOSS and not network_moves and not any(batch.words):
                continue  # nothing that it could move is trained now
            for piece_number, piece in enumerate(split_batch(batch, self.splits)):
                # dropout and the like draw from the global generator: make them depend on the position alone
                torch.manual_seed(
                    derive_seed("step", self._settings.seed, self.step, micro, piece_number, self._world.rank)
                )
                losses = self._micro_step.losses(
                    piece, words, seeds=(self._settings.seed, self.step), first_sample=index
                )
                loss = losses.sum() / count
                if loss.requires_grad:
                    self._trainable.scaler.scaled(loss).backward()
                totals[batch.name] += float(loss.detach())
                index += piece.latents.shape[0]
        return {name: self._world.total(total) for name, total in totals.items()}

    # ---- around the step ----

    def _after_step(self) -> None:
        settings = self._settings
        if self._commands.take_save() or _due(self.step, settings.save_every_steps, settings.max_steps):
            self._save_bundle(final=False)
            self._save_state()
        elif _due(self.step, settings.state_every_steps, settings.max_steps):
            self._save_state()
        if self._commands.take_sample() or _due(self.step, settings.sample_every_steps, settings.max_steps + 1):
            self._look(self._outputs.make_pictures)
        if _due(self.step, settings.separation_every_steps, settings.max_steps + 1):
            self._look(self._outputs.measure_separation)
        self.step_aside()

    def step_aside(self) -> None:
        """Let others have the model if they wait for it, and as long as the run is paused."""
        if self._aside is None:
            self._commands.wait_while_paused()
            return
        if not (self._commands.paused or self._aside.wanted()):
            return
        network = self._trainable.network
        with nullcontext() if network is None else network.with_multipliers(unet=0.0, te=0.0):
            self._aside.serve(
                Interlude(
                    write_bundle=self._write_copy,
                    wait=self._commands.wait_while_paused,
                    stopping=lambda: self._commands.stopping,
                    say=lambda message: self._notice("info", message),
                )
            )
            if not self._commands.stopping:
                self._rebind()

    def _write_copy(self, path: Path) -> Path:
        with torch.no_grad(), self._trainable.evaluated():
            return self._outputs.write_copy(path)

    def _look(self, make: Callable[[int], list[Event]]) -> None:
        """Pictures and scores must never end a run."""
        if not self._world.writes:
            return
        try:
            with torch.no_grad(), self._trainable.evaluated():
                events = make(self.step)
        except Exception as error:
            logger.exception("looking at step %d failed", self.step)
            self._notice("error", f"pictures or scores of step {self.step} failed: {error}")
            return
        for event in events:
            self._emit(event)

    def _save_bundle(self, *, final: bool) -> Path | None:
        if not self._world.writes:
            return None
        with torch.no_grad(), self._trainable.evaluated():
            events = self._outputs.save_bundle(self.step, final)
        for event in events:
            self._emit(event)
        return next((event.path for event in events if isinstance(event, FileSaved) and event.kind == "bundle"), None)

    def _final_save(self, reason: Reason) -> Path | None:
        """The bundle first, then the state; a run that failed before its first step writes nothing."""
        if self.step == 0 and reason != "finished":
            return None
        try:
            path = self._save_bundle(final=True)
        except Exception as error:  # reported: the state below may still be saved
            logger.exception("the bundle could not be saved")
            self._notice("error", f"the bundle could not be saved: {error}")
            path = None
        if reason != "finished":
            self._save_state()
        return path

    def _repair(self) -> None:
        """After a failure: if what was trained is not finite, return to the last good snapshot."""
        finite = all(bool(torch.isfinite(parameter).all()) for parameter in self._trainable.parameters)
        if not finite and self._guard is not None:
            self._guard.restore()

    # ---- state ----

    def _save_state(self) -> None:
        folder = self._settings.state_folder
        if folder is None or not self._world.writes:
            return
        content: dict[str, Any] = {
            "trainable": self._trainable.state_dict(),
            "images_seen": dict(self.images_seen),
            "splits": self.splits,
            "fingerprint": self._settings.fingerprint,
        }
        path = save_state(folder, self.step, content, keep=self._settings.keep_states)
        self._emit(FileSaved(self.step, "state", path))

    def _resume(self) -> None:
        folder = self._settings.state_folder
        content = None if folder is None else load_latest_state(folder)
        if content is None:
            self._notice("info", "no saved state was found: the run starts from the beginning")
            return
        if content["fingerprint"] != self._settings.fingerprint:
            raise TrainingError(
                f"the state in {folder} belongs to a run with other settings, pictures or checkpoint. Restore these, "
                "or choose another folder to start anew"
            )
        self._trainable.load_state_dict(content["trainable"])
        self.images_seen = Counter(content["images_seen"])
        self.splits = content["splits"]
        self.step = content["step"]

    # ---- events ----

    def _run_started(self) -> RunStarted:
        return RunStarted(
            name=self._settings.name,
            first_step=self.step,
            max_steps=self._settings.max_steps,
            words=tuple(self._trainable.words.names()),
            trained_parameters=sum(parameter.numel() for parameter in self._trainable.parameters),
            optimizer_bytes=self._trainable.optimizer_bytes,
        )

    def _step_done(self, phase: Phase, losses: dict[str, float], update: Update | None, seconds: float) -> StepDone:
        self._step_seconds = [*self._step_seconds[-49:], seconds]
        typical = sorted(self._step_seconds)[len(self._step_seconds) // 2]
        return StepDone(
            step=self.step,
            max_steps=self._settings.max_steps,
            phase=phase.name,
            losses=losses,
            rates={} if update is None else update.rates,
            gradient_norms={} if update is None else update.gradient_norms,
            word_norms=self._trainable.words.mean_norms(),
            images_seen=dict(self.images_seen),
            seconds=seconds,
            eta_seconds=typical * (self._settings.max_steps - self.step),
        )

    def _notice(self, level: str, message: str) -> None:
        self._emit(Notice(level, self.step, message))  # type: ignore[arg-type]

    def _emit(self, event: Event) -> None:
        if self._world.writes:
            self._listener(event)


def _due(step: int, every: int, before: int) -> bool:
    return every > 0 and step % every == 0 and step < before


def _cuda_devices() -> list[int]:
    return [torch.cuda.current_device()] if torch.cuda.is_available() else []
