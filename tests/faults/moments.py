"""Moments of a run at which something can happen: the n-th time that it comes by a place.

Places are wrapped in a trial's own process, which ends with the trial: nothing is put back.
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from lib_pivotal.training import keeping, outputs, trainable
from lib_pivotal.training.events import Event, StepDone

if TYPE_CHECKING:
    from lib_pivotal.standalone.model import StandaloneHost

FILE_EVENTS = ("os.rename", "os.remove", "os.mkdir", "os.link", "os.rmdir", "os.truncate", "shutil.copyfile")
COMPUTING = ("encode", "text", "unet", "backward", "optimiser")
WRITING = ("file", "bundle", "state", "copy")
PLACES = (*COMPUTING, "sample", *WRITING, "step")


@dataclass(frozen=True)
class Moment:
    """The `number`-th time (from 1) that a run comes by `place`."""

    place: str
    number: int

    @classmethod
    def drawn(cls, rng: random.Random, counts: Mapping[str, int], places: tuple[str, ...] = PLACES) -> Moment:
        """A moment that an undisturbed run has."""
        place = rng.choice([place for place in places if counts.get(place)])
        return cls(place, rng.randint(1, counts[place]))


class Passing:
    """Counts how often a run comes by each place and calls all of `then` with (place, number), before it goes on."""

    def __init__(self, root: Path) -> None:
        self.counts: Counter[str] = Counter()
        self.then: list[Callable[[str, int], None]] = []
        self.last_prediction: torch.Tensor | None = None
        self._root, self._inside = str(root), False

    def install(self, host: StandaloneHost) -> None:
        """Wrap the places of `host` and of the modules that train and write."""
        self.install_places(host)
        host.text.models[0].register_forward_pre_hook(lambda *_: self.by("text"))
        self.watch_unet(host.denoiser.unet)
        sys.addaudithook(self.audit)

    def install_places(self, host: Any) -> None:
        """Those that every host has."""
        self._wrap(host.codec, "encode", "encode")
        self._wrap(host, "sample", "sample")
        self._wrap(torch.Tensor, "backward", "backward")
        self._wrap(outputs, "write_bundle", "bundle")
        self._wrap(keeping, "save_state", "state")
        self._wrap(trainable, "_to_cpu", "copy", nested=False)
        register_optimizer_step_pre_hook(lambda *_: self.by("optimiser"))

    def watch_unet(self, unet: nn.Module) -> list[Any]:
        """A place, and whose last prediction is kept. Returns the hooks."""
        before = unet.register_forward_pre_hook(lambda *_: self.by("unet"))
        return [before, unet.register_forward_hook(self._keep_prediction)]

    def listener(self, event: Event) -> None:
        """Steps are moments, too."""
        if isinstance(event, StepDone):
            self.by("step")

    def by(self, place: str) -> None:
        """The run comes by."""
        if self._inside:  # what happens at a moment is no moment itself
            return
        self._inside = True
        try:
            self.counts[place] += 1
            for one in self.then:
                one(place, self.counts[place])
        finally:
            self._inside = False

    def _wrap(self, owner: Any, name: str, place: str, *, nested: bool = True) -> None:
        original, depth = getattr(owner, name), [0]

        def passing(*arguments: Any, **rest: Any) -> Any:
            if nested or not depth[0]:
                self.by(place)
            depth[0] += 1
            try:
                return original(*arguments, **rest)
            finally:
                depth[0] -= 1

        setattr(owner, name, passing)

    def _keep_prediction(self, module: Any, arguments: Any, output: Any) -> None:
        prediction = output if isinstance(output, torch.Tensor) else output[0]
        self.last_prediction = prediction if prediction.requires_grad else None

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """For `sys.addaudithook`: files below the root that are written, moved or removed are moments."""
        writes = event in FILE_EVENTS or (event == "open" and _for_writing(arguments))
        if writes and any(isinstance(one, str) and one.startswith(self._root) for one in map(_text, arguments)):
            self.by("file")


def _for_writing(arguments: tuple[Any, ...]) -> bool:
    mode, flags = arguments[1], arguments[2]
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))


def _text(argument: Any) -> Any:
    return os.fsdecode(argument) if isinstance(argument, str | bytes | Path) else None
