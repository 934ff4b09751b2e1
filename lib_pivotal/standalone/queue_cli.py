"""`python -m lib_pivotal queue VERB FOLDER ...`: runs that wait, one after another, on one checkpoint.

FOLDER is the one that `python dev.py page --out FOLDER` uses, too: bundles go to FOLDER/lora, the queue and a folder
for each run are in FOLDER/runs. It may be filled and put in order from one terminal while another one serves it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_pivotal.files import typed_path

if TYPE_CHECKING:
    from lib_pivotal.commands.queue import Listing, QueuePlace
    from lib_pivotal.runs.manager import RunManager
    from lib_pivotal.runs.queue import RunQueue

POLL_S = 0.2


def add_queue_commands(commands: Any) -> None:
    """Add the verb `queue` with its own verbs to an argument parser's sub-commands."""
    queue = commands.add_parser("queue", help="runs that wait for their turn", description=__doc__)
    verbs = queue.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, help_text: str, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = verbs.add_parser(name, help=help_text)
        parser.add_argument("folder", type=typed_path, metavar="FOLDER", help="holds lora/ and runs/ with the queue")
        parser.set_defaults(run=run)
        return parser

    add = verb("add", "put a run, or a sweep, at the end", run_add)
    add.add_argument("run_file", type=typed_path, metavar="RUN.json")
    add.add_argument(
        "--sweep",
        action="append",
        default=[],
        metavar="SETTING=V1,V2",
        help="a run for each value, such as network.unet_lr=1e-4,3e-4; may be given twice",
    )
    add.add_argument("-f", "--overwrite", action="store_true", help="replace existing files of its name")
    listing = verb("list", "what waits, and what became of the others", run_list)
    listing.add_argument("--json", action="store_true", help="print JSON")
    move = verb("move", "make a waiting run the N-th that begins", run_change)
    move.add_argument("number", type=int, help="the run's number in the list")
    move.add_argument("to", type=int, metavar="N")
    remove = verb("remove", "take a run out; its files stay", run_change)
    remove.add_argument("number", type=int, help="the run's number in the list")
    skip = verb("skip", "leave a run out that waits or was cut off; its line stays", run_change)
    skip.add_argument("number", type=int, help="the run's number in the list")
    move.set_defaults(change="move")
    skip.set_defaults(change="skip")
    remove.set_defaults(change="remove")
    verb("clear", "take out every finished, failed or skipped run; their files stay", run_change).set_defaults(
        change="clear"
    )
    verb("pause", "begin no further run", run_change).set_defaults(change="pause")
    verb("resume", "take a pause back; `run` begins what waits", run_change).set_defaults(change="resume")
    serve = verb("run", "train what waits, one after another, and end", run_queue)
    serve.add_argument("--checkpoint", type=typed_path, required=True)
    serve.add_argument("--device", default="", help="cpu, cuda, cuda:1 ... (default: a GPU if there is one)")


def run_add(parsed: argparse.Namespace) -> int:
    """Add, and say under which numbers."""
    from lib_pivotal.commands.queue import AddRequest, add
    from lib_pivotal.commands.runs import run_of
    from lib_pivotal.runs.sweep import read_axis

    sweep = tuple(read_axis(text) for text in parsed.sweep)
    request = AddRequest(run_of(parsed.run_file), sweep=sweep, overwrite=parsed.overwrite)
    for entry in add(_place(parsed), request):
        _print(f"{entry.id}  {entry.name}")
    return 0


def run_list(parsed: argparse.Namespace) -> int:
    """The queue as a table, or as JSON."""
    from lib_pivotal.commands.queue import listing

    found = listing(_place(parsed))
    if parsed.json:
        _print(json.dumps(found.as_dict(), indent=2, ensure_ascii=False))
    else:
        _print(listing_text(found))
    return 0


def run_change(parsed: argparse.Namespace) -> int:
    """Move, remove, skip, clear, pause or resume, and show what became of it."""
    from lib_pivotal.commands import queue as commands

    changes: dict[str, Callable[[QueuePlace], RunQueue]] = {
        "move": lambda place: commands.move(place, parsed.number, to=parsed.to),
        "remove": lambda place: commands.remove(place, parsed.number),
        "skip": lambda place: commands.skip(place, parsed.number),
        "clear": commands.clear,
        "pause": commands.pause,
        "resume": commands.resume,
    }
    _print(listing_text(commands.Listing(changes[parsed.change](_place(parsed)))))
    return 0


def run_queue(parsed: argparse.Namespace) -> int:
    """Train what waits; 1 where a run failed, 2 where the queue is paused, 130 after Ctrl-C, which saves the run."""
    from lib_pivotal.commands.queue import QueuePlace
    from lib_pivotal.commands.runs import make_manager
    from lib_pivotal.standalone.page import StandaloneBackend
    from lib_pivotal.standalone.signals import stopping_on_signals

    queue = _place(parsed).look()  # with what a killed process has left: then nothing begins by itself
    if queue.paused:
        _print(queue.notice or "The queue is paused.", stream=sys.stderr)
        _print(f"python -m lib_pivotal queue resume {parsed.folder}  takes the pause back", stream=sys.stderr)
        return 2
    before = {entry.id for entry in queue.runs if entry.ended}
    manager = make_manager(StandaloneBackend(parsed.checkpoint, parsed.folder, device=_device(parsed.device)))
    stop = _StopRun(manager)
    with stopping_on_signals(stop):
        manager.queue.take_over(pause_waiting=False)  # that it begins is asked for here
        manager.queue.refuse_elsewhere()
        served = QueuePlace.of_manager(manager)
        manager.queue.nudge()
        _follow(manager, served)
    queue = served.file.look()
    if stop.stopping:
        return 130
    failed = any(entry.state == "failed" for entry in queue.runs if entry.id not in before)
    return 1 if failed else 0


def listing_text(found: Listing) -> str:
    """A queue as people read it in a terminal."""
    plain = found.as_dict()
    lines = [f"paused: {plain['notice']}".rstrip(": ")] if plain["paused"] else []
    for entry in plain["runs"]:
        steps = f"{entry['step']} of {entry['max_steps']} steps"
        reason = f"  {entry['reason']}" if entry["reason"] else ""
        lines.append(f"{entry['id']:>3}  {entry['state']:<11}  {entry['name']}  {steps}{reason}")
    lines += [f"sweep {sweep['name']}: {sweep['grid']}" for sweep in plain["sweeps"] if sweep["grid"]]
    return "\n".join(lines or ["the queue is empty"])


class _StopRun:
    """A wish to stop, for the run that goes on: it is saved, and holds the queue."""

    def __init__(self, manager: RunManager) -> None:
        self._manager = manager
        self.stopping = False

    def stop(self) -> None:
        self.stopping = True
        self._manager.queue.begin_no_more()
        self._manager.stop()


def _follow(manager: RunManager, place: QueuePlace) -> None:
    """Say each change of a state, until nothing is left to begin."""
    said = {entry.id: entry.state for entry in place.file.look().runs}
    ended = False
    while not ended:
        ended = manager.queue.join(POLL_S)
        for entry in place.file.look().runs:
            if said.get(entry.id) != entry.state:
                said[entry.id] = entry.state
                _print(f"{time.strftime('%H:%M:%S')}  {entry.name}: {entry.state} {entry.reason}".rstrip())
    manager.join()
    manager.queue.close()


def _place(parsed: argparse.Namespace) -> QueuePlace:
    from lib_pivotal.commands.queue import QueuePlace

    folder: Path = parsed.folder
    return QueuePlace.of_folder(folder / "runs", folder / "lora")


def _device(wanted: str) -> str:
    import torch

    return wanted or ("cuda" if torch.cuda.is_available() else "cpu")


def _print(text: str, *, stream: Any = None) -> None:
    (stream or sys.stdout).write(text + "\n")
    (stream or sys.stdout).flush()
