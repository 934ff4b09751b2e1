"""`python -m lib_pivotal train|preflight|class-pictures|scan|plan|import|queue|bundle|grid|steps|report`: API's verbs.

Exit status: 0 done, 1 a run that failed or a file with errors, 2 wrong use or unusable input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_pivotal.commands.terms import both
from lib_pivotal.errors import PivotalError
from lib_pivotal.files import typed_path
from lib_pivotal.standalone.bundle_cli import add_bundle_commands
from lib_pivotal.standalone.exits import exit_status
from lib_pivotal.standalone.import_cli import add_import_command
from lib_pivotal.standalone.plan_cli import add_plan_commands, dataset_folder
from lib_pivotal.standalone.queue_cli import add_queue_commands

if TYPE_CHECKING:
    from lib_pivotal.runs.preflight import Preflight

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, run, and turn errors into one readable text."""
    parser = make_parser()
    parsed = parser.parse_args(arguments)
    logging.basicConfig(level=logging.DEBUG if parsed.verbose else logging.WARNING, format="%(levelname)s %(message)s")
    return exit_status(parsed)


def make_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="python -m lib_pivotal", description="Pivotal tuning without the web UI: train, inspect and edit bundles."
    )
    parser.add_argument("--verbose", action="store_true", help="show details and tracebacks")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a run.json")
    train.add_argument("run_file", type=typed_path, metavar="RUN.json")
    train.add_argument("--checkpoint", type=typed_path, required=True, help="a .safetensors file or a diffusers folder")
    train.add_argument(
        "--out", type=typed_path, help="folder for the files (default: saving.folder, else beside RUN.json)"
    )
    train.add_argument("--resume", action="store_true", help="continue from the newest saved state")
    train.add_argument("-f", "--overwrite", action="store_true", help="replace existing files of its name")
    train.add_argument("--device", default="", help="cpu, cuda, cuda:1 ... (default: a GPU if there is one)")
    train.set_defaults(run=run_train)

    preflight = commands.add_parser("preflight", help="time and memory of a run.json, from a few real steps")
    preflight.add_argument("run_file", type=typed_path, metavar="RUN.json")
    preflight.add_argument("--checkpoint", type=typed_path, required=True)
    preflight.add_argument("--device", default="")
    preflight.add_argument("--json", action="store_true", help="print JSON")
    preflight.set_defaults(run=run_preflight)

    kept = commands.add_parser("class-pictures", help="make the class pictures that a run.json asks for")
    kept.add_argument("run_file", type=typed_path, metavar="RUN.json")
    kept.add_argument("--checkpoint", type=typed_path, required=True)
    kept.add_argument("--device", default="")
    kept.set_defaults(run=run_class_pictures)

    scan = commands.add_parser("scan", help="what is in a folder of pictures")
    scan.add_argument("dataset", type=dataset_folder)
    scan.add_argument("--layout", default="auto", help="layout of the folder, if it is not detected correctly")
    scan.add_argument("--duplicates", default="keep", help="keep, skip (equal files), skip_near (those alike)")
    scan.add_argument("--captions-from", default="auto", help="auto, files, metadata or name")
    scan.add_argument("--keep-separator", metavar="MARK", help="what divides kept from free tags (default: |||)")
    scan.add_argument("--json", action="store_true", help="print JSON")
    scan.set_defaults(run=run_scan)

    add_plan_commands(commands)
    add_import_command(commands)
    add_queue_commands(commands)
    add_bundle_commands(commands)

    grid = commands.add_parser("grid", help="generate the parts grid of a bundle")
    grid.add_argument("file", type=typed_path)
    grid.add_argument("--checkpoint", type=typed_path, required=True)
    grid.add_argument(
        "--embeddings", "--words", default="", help="comma-separated names of embeddings (default: all of the file)"
    )
    grid.add_argument(
        "--prompt", action="append", default=[], help="may be given several times; {word} = the embedding"
    )
    grid.add_argument("--weights", default="", metavar="1,W,...", help="rows of the whole bundle at further weights")
    grid.add_argument("--negative", default="")
    grid.add_argument("--size", type=int, default=512, metavar="PX")
    grid.add_argument("--steps", type=int, default=20)
    grid.add_argument("--cfg", type=float, default=7.0)
    grid.add_argument("--seed", type=int, default=0)
    grid.add_argument("--device", default="")
    grid.add_argument("--out", type=typed_path, required=True, metavar="PNG")
    grid.add_argument("-f", "--overwrite", action="store_true", help="replace a file that is there already")
    grid.set_defaults(run=run_grid)

    steps = commands.add_parser("steps", help="rank the kept steps of a run, and use one")
    steps.add_argument("folder", type=typed_path, help="of the run")
    steps.add_argument("--by", action="append", default=[], metavar="SCORER", help="a picture scorer; may be repeated")
    steps.add_argument("--measure", action="store_true", help="drift, obedience and diversity first, on --checkpoint")
    steps.add_argument("--checkpoint", type=typed_path, help="for --measure")
    steps.add_argument("--device", default="")
    steps.add_argument("--use", metavar="STEP", help="a step, or best: copy its file into --out")
    steps.add_argument("--out", type=typed_path, metavar="FOLDER", help="for --use (default: here)")
    steps.add_argument("-f", "--overwrite", action="store_true", help="replace a file that is there already")
    steps.add_argument("--json", action="store_true", help="print JSON")
    steps.set_defaults(run=run_steps)

    report = commands.add_parser("report", help="a zip to attach to a problem report, without names and paths")
    report.add_argument("folder", type=typed_path, help="of a run, or of runs (then: on the newest)")
    report.add_argument("--out", type=typed_path, metavar="ZIP", help="default: pivotal-report-TIME.zip, here")
    report.add_argument("-f", "--overwrite", action="store_true", help="replace a file that is there already")
    report.set_defaults(run=run_report)
    return parser


def run_train(parsed: argparse.Namespace) -> int:
    """Train; Ctrl-C and SIGTERM save what there is. Whatever happens, the last event in the logs is a `RunEnded`."""
    from lib_pivotal.commands.runs import TrainRequest, train, training_of
    from lib_pivotal.evaluation.in_run import RunEvaluation
    from lib_pivotal.runs.result_card import card_at_end
    from lib_pivotal.standalone.console import ConsoleListener
    from lib_pivotal.standalone.signals import stopping_on_signals
    from lib_pivotal.training.distributed import ProcessGroup
    from lib_pivotal.training.events import Commands, RunEnded
    from lib_pivotal.training.logs import after_start, default_logs, fan_out

    run, folder = training_of(
        TrainRequest(parsed.run_file, out=parsed.out, resume=parsed.resume, overwrite=parsed.overwrite)
    )
    commands = Commands()
    with stopping_on_signals(commands):
        world = ProcessGroup.from_environment()
        host = _load_host(parsed.checkpoint, _device(parsed.device))
        logs = default_logs(folder, run.name) if world.writes else []
        if parsed.resume:  # a run that is refused leaves its folder as it is
            logs = [after_start(log) for log in logs]
        listener = fan_out([ConsoleListener(), *logs])
        status = {"finished": 0, "stopped": 130, "failed": 1}
        try:
            ended: RunEnded = train(
                run,
                host,
                output_folder=folder,
                listener=listener,
                commands=commands,
                resume=parsed.resume,
                overwrite=parsed.overwrite,
                world=world,
                evaluation=RunEvaluation(),
            )
        except PivotalError as error:
            world.leave(str(error))
            listener(RunEnded("failed", 0, 0.0, None, str(error)))
            return 2
        except BaseException as error:  # the logs say how it ended, whatever it was
            interrupted = isinstance(error, KeyboardInterrupt)
            message = "interrupted" if interrupted else f"{type(error).__name__}: {error}"
            world.leave(message)
            listener(RunEnded("stopped" if interrupted else "failed", 0, 0.0, None, message))
            raise
        world.close()
        if world.writes:
            card_at_end(run, ended, folder, ConsoleListener())
    return status[ended.reason]


def run_preflight(parsed: argparse.Namespace) -> int:
    """Say what a run will cost; nothing is kept."""
    from lib_pivotal.commands.runs import estimate, run_of
    from lib_pivotal.standalone.console import clock

    found = estimate(run_of(parsed.run_file), _load_host(parsed.checkpoint, _device(parsed.device)))
    if parsed.json:
        _print(json.dumps(both(asdict(found)), indent=2, ensure_ascii=False))
        return 0
    if found.step_s:
        _print(f"one step takes {found.step_s:.2f} s, the run takes {clock(found.total_s)}")
    if found.memory_bytes is not None:
        _print(f"needs {found.memory_bytes / 2**30:.1f} GB of memory{_fits(found)}")
    for remark in found.remarks:
        _print(remark)
    return 0


def run_class_pictures(parsed: argparse.Namespace) -> int:
    """Make what is missing; Ctrl-C may end it, and a second call goes on."""
    from lib_pivotal.config import read_run
    from lib_pivotal.ports import SessionRequest
    from lib_pivotal.training.class_pictures import class_requests, make_class_pictures

    run = read_run(parsed.run_file)
    requests = class_requests(run)
    host = _load_host(parsed.checkpoint, _device(parsed.device))
    with host.session(SessionRequest(clip_skip=run.clip_skip)):
        made = make_class_pictures(
            host,
            requests,
            Path(run.regularisation.folder),
            progress=lambda done, total: logger.info("class picture %d of %d", done, total),
        )
    _print(f"{made} class pictures are in {run.regularisation.folder}")
    return 0


def run_scan(parsed: argparse.Namespace) -> int:
    """Say what is in a folder."""
    from lib_pivotal.commands.datasets import ScanRequest, scan
    from lib_pivotal.data.lint_warnings import LintWarning
    from lib_pivotal.standalone.plan_cli import warnings_text

    settings = {"layout": parsed.layout, "duplicates": parsed.duplicates, "captions_from": parsed.captions_from}
    if parsed.keep_separator is not None:
        settings["keep_separator"] = parsed.keep_separator
    summary = scan(ScanRequest(parsed.dataset, settings))
    if parsed.json:
        _print(json.dumps(both(summary), indent=2, ensure_ascii=False))
        return 0
    _print(f"{summary['pictures']} pictures in {summary['folder']}, {summary['samples_per_epoch']} samples per epoch")
    _print(f"read as {summary['read_as']}")
    for name, facts in summary["concepts"].items():
        _print(f"  {name}: {facts['pictures']} pictures, {facts['samples_per_epoch']} samples")
    _print("tags: " + ", ".join(f"{tag} {share:.0%}" for tag, share in list(summary["tags"].items())[:20]))
    problems = [
        LintWarning(one["code"], one["level"], one["message"], tuple(one["keys"])) for one in summary["problems"]
    ]
    for line in warnings_text(problems):
        _print(line)
    return 0


def run_grid(parsed: argparse.Namespace) -> int:
    """Full, U-Net only, text encoder only, embeddings only; the whole at further weights."""
    from lib_pivotal.commands.grid import comparison, grid

    wanted = comparison(
        parsed.file,
        embeddings=[name.strip() for name in parsed.embeddings.split(",") if name.strip()],
        prompts=parsed.prompt,
        weights=parsed.weights,
        negative=parsed.negative,
        size=parsed.size,
        steps=parsed.steps,
        cfg=parsed.cfg,
        seed=parsed.seed,
    )
    path = grid(
        wanted,
        parsed.out,
        lend=lambda: contextlib.nullcontext(_load_host(parsed.checkpoint, _device(parsed.device))),
        overwrite=parsed.overwrite,
    )
    _print(str(path))
    return 0


def run_steps(parsed: argparse.Namespace) -> int:
    """The steps, best first; with --use a copy of one."""
    from lib_pivotal.commands.steps import measure, rank_steps, use

    if parsed.measure:
        if parsed.checkpoint is None:
            raise PivotalError("--measure needs --checkpoint FILE")
        measure(parsed.folder, _load_host(parsed.checkpoint, _device(parsed.device)))
    found = rank_steps(parsed.folder, by=parsed.by)
    if parsed.use:
        best = found.steps[0].record.step
        if parsed.use != "best" and not parsed.use.isdigit():
            raise PivotalError(f"--use {parsed.use}: name a step, or best")
        step = best if parsed.use == "best" else int(parsed.use)
        _print(str(use(parsed.folder, parsed.out or Path(), step=step, overwrite=parsed.overwrite).file))
    elif parsed.json:
        _print(json.dumps(found.as_dict(), indent=2, ensure_ascii=False))
    else:
        _print(found.said)
        for one in found.as_dict()["steps"]:
            score = "" if one["score"] is None else f"  score {one['score']:.2f}"
            figures = "".join(f"  {title} {value:.3g}" for title, value in one["figures"].items())
            _print(f"step {one['step']:>6}{score}{figures}")
    return 0


def run_report(parsed: argparse.Namespace) -> int:
    """Write the report and say where it is."""
    from lib_pivotal.commands.report import report_on
    from lib_pivotal.runs.problem_report import report_name

    _print(str(report_on(parsed.folder, parsed.out or Path(report_name()), overwrite=parsed.overwrite)))
    return 0


def _fits(found: Preflight) -> str:
    if found.memory_free_bytes is None or found.memory_fits is None:
        return ""
    return f", {'fits' if found.memory_fits else 'does not fit'}: {found.memory_free_bytes / 2**30:.1f} GB available"


def _load_host(checkpoint: Path, device: str) -> Any:
    from lib_pivotal.standalone.model import StandaloneHost

    return StandaloneHost.load(checkpoint, device=device)


def _device(wanted: str) -> str:
    import torch

    return wanted or ("cuda" if torch.cuda.is_available() else "cpu")


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
