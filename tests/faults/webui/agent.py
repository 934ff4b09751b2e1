"""Inside the web UI's process: puts a fault into the next run, and takes everything back when that run has ended.

A few routes (`/faults/...`) take orders. What must be known also after a `kill -9` stands in a file in shared memory
(`Board`), which outlives the process.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.optim import optimizer as optimisers

from lib_pivotal.runs.view import RunView
from lib_pivotal.training import keeping, outputs, trainable
from lib_pivotal.training.events import Event, FileSaved, RunStarted, StepDone
from lib_pivotal.training.step import MicroStep
from lib_pivotal.webui.identities import MARK
from lib_pivotal.webui.jobs import run_manager
from tests.faults import kernel
from tests.faults.kinds import Act, Kind
from tests.faults.moments import Passing
from tests.faults.webui.board import BOARD, DATA, Board, readable
from tests.faults.webui.folders import WebUIFolders

LONGEST_CALL_S = 90.0
"""A run that has called waits no longer than this for whoever should come."""

Owner = tuple[Any, str]
CHANGED: tuple[Owner, ...] = (
    (MicroStep, "losses"),
    (trainable.Trainable, "__init__"),
    (trainable, "_to_cpu"),
    (outputs, "write_bundle"),
    (keeping, "save_state"),
    (torch.Tensor, "backward"),
    (time, "time"),
)
"""What kinds and moments replace."""


class WebUIPassing(Passing):
    """Moments of the thread that trains: pictures that others make meanwhile, and files that they write, are none."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._thread = threading.get_ident()

    def by(self, place: str) -> None:
        if threading.get_ident() == self._thread:
            super().by(place)

    @contextmanager
    def at_work(self, host: Any) -> Iterator[None]:
        """Wrap the places of a web UI's host."""
        self.install_places(host)
        self._wrap(host.text, "encode", "text")
        hooks = self.watch_unet(host.borrowing.model.model.diffusion_model)
        try:
            yield
        finally:
            self.then.clear()
            for hook in hooks:
                hook.remove()


class Agent:
    """One a process; it outlives "Reload UI", as its module stays imported."""

    def __init__(self) -> None:
        self.board = Board(Path(os.environ[BOARD]))
        self._order: tuple[Kind, dict[str, Any], bool] | None = None
        self._act: Act | None = None
        self.counts: dict[str, int] = {}
        self.first_facts: dict[str, str] = {}
        manager = run_manager()
        self._exclusive = manager.backend.exclusive
        manager.backend.exclusive = self.exclusive
        listen = RunView.listen

        def heard(view: RunView, event: Event) -> None:
            listen(view, event)
            self._hear(event)

        RunView.listen = heard
        sys.addaudithook(self._audit)

    def order(self, kind: Kind, settings: dict[str, Any], *, again: bool) -> None:
        """Put this fault into the next run; with `again`, the second one of a kind that strikes twice."""
        self._order = (kind, settings, again)

    @contextmanager
    def exclusive(self, run: Any) -> Iterator[Any]:
        """The backend's, with the fault inside."""
        with self._exclusive(run) as host:
            order, self._order = self._order, None
            if order is None:
                yield host
                return
            with _changes_taken_back(), self._planted(host, *order):
                yield host

    @contextmanager
    def _planted(self, host: Any, kind: Kind, settings: dict[str, Any], again: bool) -> Iterator[None]:
        manager = run_manager()
        passing = WebUIPassing(Path(os.environ[DATA]))
        folders = WebUIFolders(Path(os.environ[DATA]))
        folders.run = manager.current.folder
        act = Act(folders, settings, manager._commands, host, passing, call=self._call)
        with passing.at_work(host):
            if again:
                act.at(settings["again"], lambda: kind.strike(act))
            else:
                kind.plant(act)
            self._act = act
            try:
                yield
            finally:
                self._act = None
                self.counts = dict(passing.counts)

    def _hear(self, event: Event) -> None:
        if isinstance(event, StepDone):
            self.board["steps"] = event.step
        if isinstance(event, FileSaved) and event.kind == "state":
            self.board["saved"] = event.step
        if isinstance(event, RunStarted):
            self.board["first_step"] = event.first_step
        act = self._act
        if act is not None:
            act.passing.listener(event)
            for heard in act.on_event:
                heard(event)

    def _call(self) -> None:
        """Tell the one outside that the moment has come, and wait until he has begun."""
        self.board["calls"] += 1
        deadline = time.monotonic() + LONGEST_CALL_S
        while self.board["released"] < self.board["calls"] and time.monotonic() < deadline:
            time.sleep(0.005)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        act = self._act
        if act is not None:
            act.passing.audit(event, arguments)


@contextmanager
def _changes_taken_back() -> Iterator[None]:
    """What a trial's process may change for good, this one may not: it goes on."""
    before = [(owner, name, vars(owner).get(name)) for owner, name in CHANGED]
    hooks = [optimisers._global_optimizer_pre_hooks, optimisers._global_optimizer_post_hooks]
    kept = [dict(one) for one in hooks]
    try:
        yield
    finally:
        kernel.limit_files(None)
        for owner, name, value in before:
            if value is None:
                if name in vars(owner):
                    delattr(owner, name)
            else:
                setattr(owner, name, value)
        for one, old in zip(hooks, kept, strict=True):
            one.clear()
            one.update(old)


@functools.lru_cache(maxsize=1)
def agent() -> Agent:
    """Always the same."""
    return Agent()


def facts_of_model() -> dict[str, str]:
    """Every parameter and buffer of the loaded checkpoint, and what a run may leave behind on its modules."""
    from modules import shared

    found = {}
    for name, tensor in (*shared.sd_model.named_parameters(), *shared.sd_model.named_buffers()):
        digest = hashlib.blake2b(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        found[name] = f"{tensor.dtype} {tuple(tensor.shape)} {tensor.grad is None} {digest.hexdigest()}"
    for name, module in shared.sd_model.named_modules():
        left = [key for key in vars(module) if "pivotal" in key and key != MARK]
        found[f"module {name}"] = f"{type(module).__name__} {left} {len(module._forward_pre_hooks)}"
    return found


def add_routes(demo: Any, app: Any) -> None:
    """For `on_app_started`, which also comes after "Reload UI"."""
    from modules import call_queue, shared

    from tests.faults.webui.kinds import kind_called

    def plant(order: dict) -> str:  # type: ignore[type-arg]  # fastapi reads it
        agent().order(kind_called(order["kind"]), readable(order["settings"]), again=order["again"])
        return str(order["kind"])

    def look() -> dict[str, Any]:
        with call_queue.queue_lock:
            found = facts_of_model()
        first = agent().first_facts
        if not first:
            first.update(found)
        odd = [name for name in {**first, **found} if first.get(name) != found.get(name)]
        digest = hashlib.blake2b(repr(found).encode()).hexdigest()
        return {"weights": digest, "changed": odd[:8], "counts": agent().counts}

    def reload() -> str:
        shared.state.request_restart()
        return "restart"

    agent()
    app.add_api_route("/faults/plant", plant, methods=["POST"])
    app.add_api_route("/faults/look", look, methods=["GET"])
    app.add_api_route("/faults/reload", reload, methods=["POST"])
