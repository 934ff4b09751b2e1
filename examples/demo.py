"""`python dev.py demo`: words and a network trained on the avatars, and the picture that shows where they sit.

Writes bundle.safetensors, rows.png, report.json and report.html. Ctrl-C saves what there is and says so.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from examples import experiment
from examples.avatars import make
from examples.avatars.scores import load_scorer
from examples.report import write_html
from lib_pivotal.bundle.reader import read_bundle, require
from lib_pivotal.commands.runs import train
from lib_pivotal.errors import PivotalError
from lib_pivotal.evaluation.in_run import RunEvaluation
from lib_pivotal.evaluation.loading import load_on_host
from lib_pivotal.evaluation.parts_grid import draw_grid
from lib_pivotal.standalone.console import ConsoleListener, clock
from lib_pivotal.standalone.model import StandaloneHost
from lib_pivotal.training.events import Commands, Event, RunEnded, StepDone
from lib_pivotal.training.logs import default_logs, fan_out

EMBEDDINGS = 5
SHARE_FOR_PICTURES = 0.12
SHOWN_EACH = 2
SECONDS_FOR_THE_REST = 25


class Deadline:
    """Stops a run when its time is over: a slow machine gets fewer steps, never a broken promise of minutes."""

    def __init__(self, commands: Commands, *, seconds: float) -> None:
        self._commands = commands
        self._end = time.monotonic() + seconds

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone) and time.monotonic() > self._end:
            self._commands.stop()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python dev.py demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for the files (default: out/demo)")
    parser.add_argument("--minutes", type=float, default=10.0, help="time for everything (default: 10)")
    parser.add_argument("--steps", type=int, default=0, help="fixed number of steps instead of as many as fit")
    parser.add_argument("--seed", type=int, default=0)
    parsed = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        return run_demo(parsed.out, minutes=parsed.minutes, steps=parsed.steps, seed=parsed.seed)
    except PivotalError as error:
        print(error, file=sys.stderr)
        return 2


def run_demo(out: Path, *, minutes: float, steps: int, seed: int) -> int:
    """Train, save, look, report."""
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    characters, styles = make.choose_embeddings(EMBEDDINGS)
    setup = experiment.Setup(tuple(characters), tuple(styles), seed=seed)
    host = StandaloneHost.load(experiment.CHECKPOINT)
    scorer = load_scorer()
    dataset = experiment.write_dataset(setup, out / "pictures")
    print(f"{len(list(dataset.glob('*.png')))} pictures of {', '.join(setup.names)} in {dataset}", flush=True)
    setup = replace(setup, steps=steps or fitting_steps(host, setup, minutes=minutes))
    commands = Commands()
    budget = minutes * 60 * (1 - SHARE_FOR_PICTURES) - (time.monotonic() - started)
    ended = train_setup(setup, host, dataset, out, commands=commands, seconds=budget if not steps else 1e9)
    if ended.bundle is None:
        print("nothing was trained, so nothing was saved")
        return 130 if ended.reason == "stopped" else 1
    bundle_path = out / "bundle.safetensors"
    if ended.bundle != bundle_path:
        ended.bundle.replace(bundle_path)
    print(f"saved {bundle_path}; now the pictures", flush=True)
    report = look(host, scorer, setup, bundle_path, out)
    report.update(steps=ended.step, seconds=round(time.monotonic() - started, 1), embeddings=list(setup.names))
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    write_html(out / "report.html", "Pivotal tuning on the avatars", report, pictures=["rows.png"])
    scores = report["identity"]["pivotal"]
    print(
        f"identity: full {scores['whole']:.2f}, U-Net only {scores['unet']:.2f}, text encoder only "
        f"{scores['te']:.2f}, embeddings only {scores['words']:.2f}, without all {report['identity']['base']:.2f}"
    )
    print(f"look at {out / 'rows.png'} and {out / 'report.html'} ({clock(report['seconds'])})")
    return 130 if ended.reason == "stopped" and commands.stopping is False else 0


def train_setup(
    setup: experiment.Setup, host: StandaloneHost, dataset: Path, out: Path, *, commands: Commands, seconds: float
) -> RunEnded:
    """The run itself, on the terminal and in logs."""
    run = experiment.make_run(setup, dataset, "bundle")
    listeners = [ConsoleListener(), Deadline(commands, seconds=seconds), *default_logs(out, "bundle")]
    return train(
        run, host, output_folder=out, listener=fan_out(listeners), commands=commands, evaluation=RunEvaluation()
    )


def fitting_steps(host: StandaloneHost, setup: experiment.Setup, *, minutes: float) -> int:
    """How many steps fit, measured by a few: rates fall to zero at the end, so the end must be known before.

    Also chooses the number of threads: for layers as small as these, one can be faster than two.
    """
    typical = {}
    for threads in sorted({1, min(2, os.cpu_count() or 1)}):
        torch.set_num_threads(threads)
        typical[threads] = typical_step_seconds(host, setup)
    best = min(typical, key=lambda threads: typical[threads])
    torch.set_num_threads(best)
    room = minutes * 60 * (1 - SHARE_FOR_PICTURES) - SECONDS_FOR_THE_REST
    fitting = int(room / typical[best] * 0.95 * (1 - setup.embeddings_only_share))
    return max(100, min(setup.steps, fitting))


def typical_step_seconds(host: StandaloneHost, setup: experiment.Setup) -> float:
    """The median of a few steps of a run like this one."""
    trial = replace(setup, steps=12, pictures=2)
    seconds: list[float] = []

    def note(event: Event) -> None:
        if isinstance(event, StepDone):
            seconds.append(event.seconds)

    with tempfile.TemporaryDirectory() as folder:
        dataset = experiment.write_dataset(trial, Path(folder) / "pictures")
        run = experiment.make_run(trial, dataset, "trial")
        train(run, host, output_folder=Path(folder), listener=note)
    return sorted(seconds[2:])[len(seconds[2:]) // 2]


def look(host: StandaloneHost, scorer: object, setup: experiment.Setup, bundle_path: Path, out: Path) -> dict:
    """Identity with parts on and off, and the sheet of rows, both through the saved file."""
    bundle = require(read_bundle(bundle_path))
    embeddings, network = load_on_host(host, bundle)
    per_embedding = 8
    with torch.no_grad():
        result = experiment.score(
            host, scorer, setup.names, embeddings=embeddings, network=network, pictures_per_embedding=per_embedding
        )
        base = experiment.score_base(host, scorer, setup.names, pictures_per_embedding=per_embedding)
    pick = {"each": SHOWN_EACH, "pictures_per_embedding": per_embedding}
    rows = {
        "whole": experiment.columns(result, "whole", setup.names, **pick),
        "U-Net only": experiment.columns(result, "unet", setup.names, **pick),
        "text encoder only": experiment.columns(result, "te", setup.names, **pick),
        "embeddings only": experiment.columns(result, "words", setup.names, **pick),
        "traits as prompt, no embedding": experiment.columns(base, "base", setup.names, **pick),
    }
    labels = [name if number == 0 else "" for name in setup.names for number in range(SHOWN_EACH)]
    draw_grid(rows, labels, title="the same prompts and seeds; parts switched on and off").save(out / "rows.png")
    rounded = {row: round(value, 4) for row, value in result.identity.items()}
    return {
        "identity": {"pivotal": rounded, "base": round(base.identity["base"], 4)},
        "by_word": {row: {n: round(v, 4) for n, v in scores.items()} for row, scores in result.by_embedding.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
