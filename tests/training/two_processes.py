"""One of two processes that train a run, with a fault in it: `RUN.json OUT FAULT RANK [resume]`.

How it ended is left in `ended-<rank>.json`, for the test to read.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from lib_pivotal.commands.runs import train
from lib_pivotal.config import read_run
from lib_pivotal.standalone.model import StandaloneHost
from lib_pivotal.standalone.signals import stopping_on_signals
from lib_pivotal.training.distributed import ProcessGroup
from lib_pivotal.training.events import Commands, Notice, StepDone
from lib_pivotal.training.step import MicroStep
from tests.conftest import make_tiny_models


def main(arguments):
    run_file, out, fault, rank_at_fault, *resume = arguments
    out = Path(out)
    world = ProcessGroup.from_environment()
    commands = Commands()
    if world.rank == int(rank_at_fault):
        put_fault(fault, commands)
    host = StandaloneHost(**make_tiny_models(), scale_factor=1.0, name="tiny")
    events = []
    out.mkdir(exist_ok=True, parents=True)
    with stopping_on_signals(commands):  # as the command line does: torchrun ends the others with SIGTERM
        ended = train(
            read_run(Path(run_file)),
            host,
            output_folder=out,
            listener=events.append,
            commands=commands,
            world=world,
            resume=resume == ["resume"],
        )
    note = {
        "reason": ended.reason,
        "step": ended.step,
        "message": ended.message,
        "at": time.time(),
        "told": [event.message for event in events if isinstance(event, Notice)],
        "steps": sum(isinstance(event, StepDone) for event in events),
    }
    (out / f"ended-{world.rank}.json").write_text(json.dumps(note))
    world.close()


def put_fault(fault, commands):
    """From step 3 on this process meets it."""
    original = MicroStep.losses
    seen = []

    def losses(self, batch, *arguments, seeds, **rest):
        step = seeds[1]
        if step == 3:
            if fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if fault == "stop":
                commands.stop()
            if fault == "pause" and not seen:
                seen.append(1)
                commands.pause()
                threading.Timer(1.0, commands.resume).start()
            if fault == "raise":
                raise ValueError("a fault for the test")
        if fault == "memory" and step >= 3 and batch.latents.shape[0] > 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if fault == "no memory at all" and step >= 3:
            raise MemoryError
        result = original(self, batch, *arguments, seeds=seeds, **rest)
        return result * float("nan") if fault == "nan" and step in (3, 4, 5) else result

    MicroStep.losses = losses


def command_line(arguments):
    """`python -m lib_pivotal ...`, whatever checkpoint it names being the tiny one."""
    from lib_pivotal.standalone import cli

    cli._load_host = lambda checkpoint, device: StandaloneHost(**make_tiny_models(), scale_factor=1.0, name="tiny")
    return cli.main(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
