"""`python -m examples.bench_loop`: what a step costs beside the model, measured inside a real run on the avatars.

Text encoder, U-Net, backward pass and optimiser are timed from outside; what is left of a step is the loop's own:
batches and captions, noise and loss, events, logs on disk. It hardly depends on the model, so that its milliseconds
can be set against a step of SD1.5.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from examples import experiment
from examples.avatars.characters import CHARACTERS
from lib_pivotal.commands.runs import train
from lib_pivotal.data.batches import BatchSource
from lib_pivotal.standalone.console import ConsoleListener
from lib_pivotal.standalone.model import StandaloneHost
from lib_pivotal.training.events import Event, StepDone
from lib_pivotal.training.logs import default_logs, fan_out
from lib_pivotal.training.trainable import Trainable

WARM_UP = 20
PARTS = ("text encoder", "U-Net", "backward", "optimiser")
"""The model's; everything else is the loop's own."""


class Clock:
    """CPU seconds by part; a part within a part counts for the inner one only."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner = [0.0]

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def call(*args: Any, **kwargs: Any) -> Any:
            started = time.process_time()
            self._inner.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                seconds = time.process_time() - started
                self.seconds[part] += seconds - self._inner.pop()
                self._inner[-1] += seconds

        return call

    def take(self) -> dict[str, float]:
        """The seconds since the last time."""
        taken = dict(self.seconds)
        self.seconds.clear()
        return taken


@contextmanager
def watched(clock: Clock, host: StandaloneHost) -> Iterator[None]:
    """Time the parts of a step while the context lasts."""
    places: list[tuple[Any, str, str]] = [
        (type(host.text), "encode", "text encoder"),
        (type(host.denoiser), "__call__", "U-Net"),
        (torch.Tensor, "backward", "backward"),
        (Trainable, "update", "optimiser"),
        (BatchSource, "batch", "batches and captions"),
    ]
    before = [getattr(owner, name) for owner, name, _ in places]
    for (owner, name, part), function in zip(places, before, strict=True):
        setattr(owner, name, clock.timed(part, function))
    try:
        yield
    finally:
        for (owner, name, _), function in zip(places, before, strict=True):
            setattr(owner, name, function)


def measure(host: StandaloneHost, setup: experiment.Setup) -> dict[str, float]:
    """Medians over the steps of CPU milliseconds by part, and of the whole `step`."""
    clock, steps = Clock(), []
    last = time.process_time()

    def note(event: Event) -> None:
        nonlocal last
        if isinstance(event, StepDone):
            now = time.process_time()
            steps.append({**clock.take(), "step": now - last})
            last = now

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = experiment.write_dataset(setup, folder / "pictures")
        logs = fan_out([ConsoleListener(), *default_logs(folder, "bench")])
        listener = fan_out([clock.timed("events and logs", logs), note])
        with watched(clock, host):
            train(experiment.make_run(setup, dataset, "bench"), host, output_folder=folder, listener=listener)
    kept = steps[WARM_UP:]
    names = {part for step in kept for part in step}
    found = {part: 1000 * statistics.median(step.get(part, 0.0) for step in kept) for part in names}
    rest = [step["step"] - sum(seconds for part, seconds in step.items() if part != "step") for step in kept]
    return {**found, "noise, loss and the rest": 1000 * statistics.median(rest)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.bench_loop", description=__doc__)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--sd15-step", type=float, default=7.9, help="CPU seconds of a step of SD1.5, for comparison")
    parsed = parser.parse_args()
    torch.set_num_threads(1)
    host = StandaloneHost.load(experiment.CHECKPOINT)
    base = experiment.Setup(tuple(CHARACTERS)[:5], steps=parsed.steps + WARM_UP, embeddings_only_share=0.0)
    columns = {f"batch {size}": measure(host, replace(base, batch_size=size)) for size in (1, 8)}
    print("\n| CPU ms a step | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    own = [part for part in next(iter(columns.values())) if part not in (*PARTS, "step")]
    for part in (*PARTS, *sorted(own), "step"):
        print(f"| {part} | " + " | ".join(f"{column.get(part, 0.0):.2f}" for column in columns.values()) + " |")
    for name, column in columns.items():
        mine = sum(column[part] for part in own)
        print(
            f"{name}: the loop's own {mine:.2f} ms, {mine / column['step']:.2%} of the avatars' step, "
            f"{mine / 1000 / parsed.sd15_step:.3%} of a step of {parsed.sd15_step} s"
        )


if __name__ == "__main__":
    main()
