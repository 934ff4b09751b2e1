"""The order of things in a run: step after step, with events out and commands in.

Knows neither files' formats nor a user interface: it is handed a source of batches, a `MicroStep`, a `Trainable`, and
callbacks that write files and make pictures.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from lib_pivotal.embeddings.terms import EmbeddingTerms, sample_shares
from lib_pivotal.errors import TrainingError
from lib_pivotal.oom import is_out_of_memory, release_memory
from lib_pivotal.ports import OWN_LOSS, TrainingBatch
from lib_pivotal.training.distributed import ProcessGroup
from lib_pivotal.training.embeddings_only import EmbeddingsOnly
from lib_pivotal.training.events import (
    Commands,
    Event,
    Listener,
    Notice,
    Reason,
    RunEnded,
    RunStarted,
    StepDone,
    Validated,
)
from lib_pivotal.training.first_phase import FirstPhase, FirstPhaseEnd
from lib_pivotal.training.gradient_watch import GradientWatch
from lib_pivotal.training.keeping import Keeper, Outputs, log_details, reason_of
from lib_pivotal.training.model_yield import ModelYield, YieldTerms
from lib_pivotal.training.progress import Progress
from lib_pivotal.training.rates import Phase, PhasePlan
from lib_pivotal.training.recovery import RollbackGuard
from lib_pivotal.training.seeds import derive_seed, derived_generator
from lib_pivotal.training.state import SavedState
from lib_pivotal.training.step import MicroStep, sample_count, select, split_places
from lib_pivotal.training.trainable import Trainable, Update
from lib_pivotal.training.trained_parts import said_of_trained, trained_parts
from lib_pivotal.training.turns import Turn, turns_of, weighed, with_gradient_times
from lib_pivotal.training.validation import ValidationPlan, ValidationProgress

logger = logging.getLogger(__name__)
PAUSED_LOOK_S = 0.2
ALL_TIMESTEPS = (0, 1000)
_NOT_MEASURED = (
    "no picture could be held out to measure by (an embedding of more than 4 pictures gives one in ten). It lasts as "
    "many steps as are set"
)
_NOT_VALIDATED = "there is no held-out picture to validate on (an embedding of more than 4 pictures gives some of them)"


class BatchProvider(Protocol):
    """Batches by position: the same position always gives the same batch."""

    def batch(self, step: int, micro: int) -> TrainingBatch: ...


@dataclass(frozen=True)
class LoopSettings:
    """Numbers of the loop; 0 turns a periodic thing off."""

    name: str
    seed: int
    max_steps: int
    accumulation: int = 1
    network_timesteps: tuple[int, int] = ALL_TIMESTEPS
    """The network takes part at timesteps from the first up to below the second; else only embeddings learn."""
    module_dropout: float = 0.0
    """Chance of each layer's change to be left out of a micro-batch."""
    save_every_steps: int = 0
    state_every_steps: int = 0
    keep_states: int = 2
    sample_every_steps: int = 0
    separation_every_steps: int = 0
    state_folder: Path | None = None
    basis: Mapping[str, Any] = field(default_factory=dict)
    """What a state depends on, kept with it (`training.continuation`)."""


class Trainer:
    """One run. `run()` returns its last event; files are saved whatever ends it."""

    def __init__(
        self,
        settings: LoopSettings,
        *,
        trainable: Trainable,
        micro_step: MicroStep,
        source: BatchProvider,
        plan: PhasePlan,
        rate_factor: Callable[[int], float],
        outputs: Outputs,
        progress: Progress,
        listener: Listener,
        embeddings_only: EmbeddingsOnly | None = None,
        first_phase_end: FirstPhaseEnd | None = None,
        validation: ValidationPlan | None = None,
        commands: Commands | None = None,
        world: ProcessGroup | None = None,
        model_yield: ModelYield | None = None,
        terms: EmbeddingTerms | None = None,
        rebind: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._trainable = trainable
        self._micro_step = micro_step
        self._source = source
        self._plan = plan
        self._rate_factor = rate_factor
        self._listener = listener
        self._embeddings_only = embeddings_only or EmbeddingsOnly()
        self._first_phase_end = first_phase_end or FirstPhaseEnd()
        self._validation = validation or ValidationPlan()
        self._commands = commands or Commands()
        self._world = world or ProcessGroup()
        self._model_yield = model_yield
        self._terms = terms or EmbeddingTerms()
        self._rebind = rebind
        self.progress = progress
        self._keeper = Keeper(
            outputs,
            trainable,
            progress,
            self._emit,
            state_folder=settings.state_folder,
            keep_states=settings.keep_states,
            basis=settings.basis,
            state_when_finished=settings.state_every_steps > 0,
            writes=self._world.writes,
        )
        self._guard: RollbackGuard | None = None
        self._watch = GradientWatch()
        self._torn = False
        """What is trained belongs to no step: one has begun to move it, and is not counted yet."""
        self._step_seconds: list[float] = []

    @property
    def step(self) -> int:
        """Steps done."""
        return self.progress.step

    @property
    def max_steps(self) -> int:
        """Steps of the run: as planned, less those that its first phase did not need."""
        return self._settings.max_steps - self.progress.first_phase.skipped

    @property
    def _planned_step(self) -> int:
        """Where the run is in its plan of phases and rates."""
        return self.step + self.progress.first_phase.skipped

    def run(self, *, resume_from: SavedState | None = None) -> RunEnded:
        """Train to the end, or until stopped; the network must be attached and the session open.

        Whatever happens, the last event is a `RunEnded`: a failure is one with reason `failed`, after what was good
        has been saved. A KeyboardInterrupt counts as a stop.
        """
        started = time.perf_counter()
        reason: Reason = "finished"
        message = ""
        with torch.random.fork_rng(devices=_cuda_devices()):
            try:
                if resume_from is not None:
                    self._take_over(resume_from)
                self._guard = self._guard or RollbackGuard(self._trainable, self.progress)
                self._emit(self._run_started())
                while self.step < self.max_steps and not self._has_ended_early() and not self._told_to_stop():
                    self._look_at_first_phase()
                    self._one_step()
                    self._after_step()
                if self.step < self.max_steps and self._has_ended_early():
                    message = self._early_end()
                elif self.step < self.max_steps:
                    reason, message = "stopped", f"stopped after {self.step} of {self.max_steps} steps"
            except KeyboardInterrupt:
                reason, message = "stopped", f"interrupted after {self.step} of {self.max_steps} steps"
                self._world.leave(message)
            except Exception as error:  # the trained embeddings and network must be saved whatever happened
                log_details(error, "the run failed at step %d", self.step + 1)
                reason, message = "failed", reason_of(error)
                self._world.leave(message)
            if reason == "failed":
                release_memory()  # here: the traceback, gone by now, held what the failed step had made
            broken = self._repair()
            if broken:
                reason = "failed" if reason == "finished" else reason
                message = f"{message}. {broken}" if message else broken
            step = self.step
            try:
                bundle, fault = self._keeper.save_at_end(reason, self._guard, torn=self._torn)
            except KeyboardInterrupt:  # whoever asks twice does not want to wait for the disk
                bundle, fault = None, ""
                reason, message = "stopped", f"interrupted while the result of step {step} was saved"
            if self._torn and step:
                message += f". That step was torn: the file holds it, the run is continued from step {self.step}"
        if fault:
            reason, message = "failed", f"{message}. {fault}" if message else fault
        ended = RunEnded(reason, step, time.perf_counter() - started, bundle, message)
        self._emit(ended)
        return ended

    def _told_to_stop(self) -> bool:
        """Asked once a step; all processes stop if one is told to."""
        return self._world.any(self._commands.stopping)

    def _look_at_first_phase(self) -> None:
        """Between two steps: let the first phase end where the embeddings' held-out gain has stopped rising."""
        if not self._first_phase_end.is_due(self.step, self.progress.first_phase):
            return
        gain = self._world.total(self._keeper.embeddings_gain() if self._world.writes else 0.0)
        if math.isnan(gain) and self.step == self._first_phase_end.every_steps:
            self._notice("warning", f"step {self.step}: the first phase cannot end by itself: {_NOT_MEASURED}")
        self.progress.first_phase = found = self._first_phase_end.after_look(self.step, gain, self.progress.first_phase)
        if found.skipped:
            text = (
                f"the embeddings explain {gain:.1%} of the held-out loss, and it has stopped rising: the network begins"
            )
            self._notice("info", f"step {self.step}: {text}; the run is {found.skipped} steps shorter")

    def _validate(self) -> None:
        """Measure held-out pictures; all processes come to the same conclusion."""
        losses = self._keeper.validation_losses()
        means = (losses.held_out_mean, losses.trained_mean) if self._world.writes else (0.0, 0.0)
        held_out, trained = self._world.totals(list(means))
        losses = replace(losses, held_out_mean=held_out, trained_mean=trained)
        if math.isnan(held_out):
            if self.step <= self._validation.every_steps:
                self._notice("warning", f"step {self.step}: {_NOT_VALIDATED}")
            return
        before = self.progress.validation
        self.progress.validation = found = self._validation.after(self.step, losses, before)
        if found.best_step == self.step and self._validation.keep_best:
            self._keeper.keep_best()
        if found.overfits and not before.overfits:
            self._notice("warning", f"step {self.step}: {found.said()}")
        self._emit(
            Validated(
                self.step,
                losses.held_out,
                losses.trained,
                held_out,
                trained,
                found.best_step,
                found.best_loss,
                found.overfits,
                found.said(),
            )
        )

    def _has_ended_early(self) -> bool:
        return self._validation.ends(self.progress.validation)

    def _early_end(self) -> str:
        found = self.progress.validation
        kept = f"; its file is steps/{self._settings.name}-best" if self._validation.keep_best else ""
        return (
            f"ended after {self.step} of {self.max_steps} steps: {found.waited} validations found no lower loss than "
            f"that of step {found.best_step} ({found.best_loss:.4f}){kept}. To train on, raise validation.patience"
        )

    # ---- one step ----

    def _one_step(self) -> None:
        started = time.perf_counter()
        phase = self._plan.at(self._planned_step)
        batches = [self._source.batch(self.step, micro) for micro in range(self._settings.accumulation)]
        plan = self._turns(batches, phase)
        losses, finite = self._forward_backward(batches, phase, plan)
        self._torn = finite
        update = self._trainable.update(phase, rate_factor=self._rate_factor(self._planned_step)) if finite else None
        assert self._guard is not None
        if update is None or not update.applied:
            self._torn = False
            if update is None:
                self._trainable.scaler.update(overflowed=True)
            self._notice("warning", f"step {self.step + 1}: {self._guard.bad_step()}")
        else:
            trained = self._trainable.trained_embeddings(phase)
            reached = [select(batches[turn.micro], turn.places) for turn in plan if turn.embedding_factor > 0]
            for message in self._watch.after_step(reached, update.gradient_norms, trained=trained):
                self._notice("error", f"step {self.step + 1}: {message}")
        for batch in batches:
            for names in batch.embeddings:
                self.progress.images_seen.update(names)
        self.progress.step += 1
        self._torn = False
        if update is not None and update.applied:
            self._guard.good_step()
        for name in self._trainable.embeddings.advance(self.step, max_steps=self.max_steps):
            self._notice("info", f"step {self.step}: the embedding {name!r} is frozen from here on")
        self._emit(self._step_done(phase, losses, update, time.perf_counter() - started))

    def _turns(self, batches: list[TrainingBatch], phase: Phase) -> list[Turn]:
        """Which samples of the step are computed with the network and which without, and how they count."""
        share, (low, high) = self._embeddings_only, self._settings.network_timesteps
        moves = phase.unet > 0 or phase.te > 0
        shared = moves and share.share > 0 and bool(self._trainable.trained_embeddings(phase))
        ranged = moves and (low, high) != ALL_TIMESTEPS
        found: list[Turn] = []
        for micro, (batch, first) in enumerate(zip(batches, self._first_samples(batches), strict=True)):
            off = [shared and share.is_off(self.step, micro)] * batch.latents.shape[0]
            if ranged and not all(off):
                samples = range(first, first + len(off))
                timesteps = self._micro_step.timesteps(samples, seeds=(self._settings.seed, self.step)).tolist()
                off = [not low <= timestep < high for timestep in timesteps]
            found += turns_of(micro, off)
        if not shared and not ranged:
            return found
        sizes = [(len(turn.places), len(turn.places) if turn.off else 0) for turn in found]
        total, without = self._world.totals([float(sum(column)) for column in zip(*sizes, strict=True)])
        factor = share.gradient_factor if shared else 1.0
        return weighed(found, total=total, without=without, gradient_factor=factor)

    def _first_samples(self, batches: list[TrainingBatch]) -> list[int]:
        """The index, in the step, of the first sample of each micro-batch of this process."""
        before, starts = 0, list[int]()
        for batch in batches:
            share = batch.latents.shape[0]
            index = before + self._world.rank * share  # the process's slice of the global micro-batch
            before += share * self._world.size
            starts.append(index if batch.again is None else starts[batch.again])
        return starts

    def _forward_backward(
        self, batches: list[TrainingBatch], phase: Phase, plan: list[Turn]
    ) -> tuple[dict[str, float], bool]:
        """Gradients of the effective batch's losses, which are returned by name, and whether all are finite; halves
        micro-batches when memory ends, in all processes if it ends in one."""
        while True:
            self._trainable.prepare(phase)
            losses = self._try_to_accumulate(batches, plan, network_moves=phase.unet > 0 or phase.te > 0)
            no_memory, not_finite = self._world.agree(
                losses is None, losses is not None and not all(map(math.isfinite, losses.values()))
            )
            if losses is not None and not no_memory:
                names = list(losses)
                totals = self._world.totals([losses[name] for name in names])
                return dict(zip(names, totals, strict=True)), not not_finite
            self._make_room(batches, phase)

    def _try_to_accumulate(
        self, batches: list[TrainingBatch], plan: list[Turn], *, network_moves: bool
    ) -> dict[str, float] | None:
        """This process's share of the losses, None where memory did not suffice.

        What the failed attempt had made is held by the exception's traceback until the handler is left: only after it
        can the memory be given back.
        """
        try:
            return self._accumulate(batches, plan, network_moves=network_moves)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        return None

    def _make_room(self, batches: list[TrainingBatch], phase: Phase) -> None:
        self._trainable.prepare(phase)
        release_memory()
        largest = max(batch.latents.shape[0] for batch in batches)
        if self.progress.splits >= largest:
            raise TrainingError(
                "memory does not suffice even for one picture at a time. Turn on gradient checkpointing, "
                "lower data.resolution_px or the network's rank, or close other programs"
            )
        self.progress.splits *= 2
        self._notice(
            "warning",
            f"out of memory: micro-batches are split in {min(self.progress.splits, largest)} from now on; "
            "the effective batch stays the same",
        )

    def _accumulate(self, batches: list[TrainingBatch], plan: list[Turn], *, network_moves: bool) -> dict[str, float]:
        count = sample_count(batches) * self._world.size
        totals: dict[str, float] = dict.fromkeys((batch.name for batch in batches), 0.0)
        starts = self._first_samples(batches)
        for turn in plan:
            batch, with_network = batches[turn.micro], network_moves and not turn.off
            if batch.name != OWN_LOSS and not with_network and not any(batch.embeddings):
                continue  # nothing that it could move is trained now
            with self._network_in(turn, moves=network_moves):  # backward too: checkpoints are computed anew in it
                totals[batch.name] += self._losses(
                    batch,
                    turn,
                    first_sample=starts[turn.micro],
                    count=count,
                    against_reference=with_network and batch.name == OWN_LOSS,
                )
        return totals | self._accumulate_terms(batches, count)

    def _accumulate_terms(self, batches: list[TrainingBatch], count: int) -> dict[str, float]:
        """Losses on the embeddings alone, as a part of the loss of each sample that names one that is trained now."""
        if not self._terms.names:
            return {}
        embeddings = self._trainable.embeddings.as_mapping()
        trained = {name for name, towers in embeddings.items() if towers[0].requires_grad}
        shares = {name: share for name, share in sample_shares(batches, count).items() if name in trained}
        totals = dict.fromkeys(self._terms.names, 0.0)
        with self._terms.frozen():  # also backward: with gradient checkpointing it runs the text encoder again
            for name, loss in self._terms.losses(embeddings, shares, seeds=(self._settings.seed, self.step)).items():
                self._trainable.scaler.scaled(loss).backward()
                totals[name] = float(loss.detach())
        return totals

    def _losses(
        self, batch: TrainingBatch, turn: Turn, *, first_sample: int, count: int, against_reference: bool
    ) -> float:
        """Forward and backward of a turn, in pieces; its part of the mean over `count` samples."""
        embeddings = with_gradient_times(self._trainable.embeddings.as_mapping(), turn.embedding_factor)
        total = 0.0
        for number, places in enumerate(split_places(turn.places, self.progress.splits)):
            # dropout and the like draw from the global generator: make them depend on the position alone
            torch.manual_seed(derive_seed("step", self._settings.seed, self.step, turn.micro, number, self._world.rank))
            losses = self._micro_step.losses(
                select(batch, places),
                embeddings,
                seeds=(self._settings.seed, self.step),
                samples=[first_sample + place for place in places],
                against_reference=against_reference,
            )
            loss = losses.sum() / count
            if loss.requires_grad:
                self._trainable.scaler.scaled(loss * turn.weight).backward()
            total += float(loss.detach())
        return total

    def _network_in(self, turn: Turn, *, moves: bool) -> AbstractContextManager[None]:
        """The network as the turn wants it: off, or without the layers that rest in this micro-batch."""
        network, rest = self._trainable.network, self._settings.module_dropout
        if network is None or turn.off:
            return self._network_off()
        if rest <= 0 or not moves:
            return nullcontext()
        generator = derived_generator("module dropout", self._settings.seed, self.step, turn.micro)
        drawn = torch.rand(len(network.layer_names), generator=generator).tolist()
        return network.without(name for name, chance in zip(network.layer_names, drawn, strict=True) if chance < rest)

    def _network_off(self) -> AbstractContextManager[None]:
        network = self._trainable.network
        return nullcontext() if network is None else network.with_multipliers(unet=0.0, te=0.0)

    # ---- around the step ----

    def _after_step(self) -> None:
        settings = self._settings
        assert self._guard is not None
        if self._validation.is_due(self.step, self.max_steps):  # before a state is saved: it holds what was found
            self._validate()
        asked = self._world.any(self._commands.take_save())
        if asked or _due(self.step, settings.save_every_steps, self.max_steps):
            self._keeper.save_bundle()
            self._keeper.save_state(self._guard)
        elif _due(self.step, settings.state_every_steps, self.max_steps):
            self._keeper.save_state(self._guard)
        if self._commands.take_sample() or _due(self.step, settings.sample_every_steps, self.max_steps + 1):
            self._keeper.make_pictures()
        every = settings.separation_every_steps
        if _due(self.step, every, self.max_steps) or (every and self.step == self.max_steps):  # the file tells its own
            self._keeper.measure_separation()
        self.step_aside()

    def step_aside(self) -> None:
        """Let others have the model if they wait for it, and as long as the run is paused."""
        if self._model_yield is None:
            self._wait_while_paused()
            return
        if not (self._commands.paused or self._model_yield.wanted()):
            return
        with self._network_off():
            self._model_yield.serve(
                YieldTerms(
                    write_bundle=self._keeper.write_copy,
                    wait=self._commands.wait_while_paused,
                    stopping=lambda: self._commands.stopping,
                    say=lambda message: self._notice("info", message),
                )
            )
            if not self._commands.stopping:
                self._rebind()

    def _wait_while_paused(self) -> None:
        """Where several processes train, all wait as long as one is paused and none is stopped."""
        if self._world.size == 1:
            self._commands.wait_while_paused()
            return
        paused, stopping = self._world.agree(self._commands.paused, self._commands.stopping)
        while paused and not stopping:
            time.sleep(PAUSED_LOOK_S)
            paused, stopping = self._world.agree(self._commands.paused, self._commands.stopping)

    def _repair(self) -> str:
        """Before the end: if what was trained is not finite, return to the last good snapshot. Says so."""
        if self._guard is None or self._trainable.is_finite():
            return ""
        after = self.step
        self._guard.go_back()
        self._torn = False
        return (
            f"what was trained is not finite after step {after}: what is saved is the last good state, that of step "
            f"{self.step}. Lower the learning rates if it happens again"
        )

    def _take_over(self, saved: SavedState) -> None:
        """Go on from a state that was found to belong to this run."""
        content = saved.content
        if self._world.total(float(saved.step)) != saved.step * self._world.size:
            raise TrainingError("the processes of this run found different states: give all the same folder")
        self._trainable.load_state_dict(content["trainable"])
        self.progress.images_seen = Counter(content["images_seen"])
        self.progress.splits = content["splits"]
        self.progress.step = content["step"]
        self.progress.first_phase = FirstPhase(**content.get("first_phase", {}))  # older states have none
        self.progress.shares = dict(content.get("shares", {}))
        self._take_over_validation(ValidationProgress(**content.get("validation", {})))
        self._guard = RollbackGuard(self._trainable, self.progress)
        if "guard" in content:  # older states have none
            self._guard.load_state_dict(content["guard"])

    def _take_over_validation(self, then: ValidationProgress) -> None:
        """What validations had found, where they measured the pictures of today."""
        now = self.progress.validation
        self.progress.validation = then if then.pictures == now.pictures else now

    # ---- events ----

    def _run_started(self) -> RunStarted:
        return RunStarted(
            name=self._settings.name,
            first_step=self.step,
            max_steps=self.max_steps,
            embeddings=tuple(self._trainable.embeddings.names()),
            trained_parameters=sum(parameter.numel() for parameter in self._trainable.parameters),
            optimizer_bytes=self._trainable.optimizer_bytes,
            said=said_of_trained(
                trained_parts(self._trainable.groups, frozen=self._trainable.embeddings.frozen),
            ),
        )

    def _step_done(self, phase: Phase, losses: dict[str, float], update: Update | None, seconds: float) -> StepDone:
        self._step_seconds = [*self._step_seconds[-49:], seconds]
        typical = sorted(self._step_seconds)[len(self._step_seconds) // 2]
        return StepDone(
            step=self.step,
            max_steps=self.max_steps,
            phase=phase.name,
            losses=losses,
            rates={} if update is None else update.rates,
            gradient_norms={} if update is None else update.gradient_norms,
            embedding_norms=self._trainable.embeddings.mean_norms(),
            images_seen=dict(self.progress.images_seen),
            seconds=seconds,
            eta_seconds=typical * (self.max_steps - self.step),
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
