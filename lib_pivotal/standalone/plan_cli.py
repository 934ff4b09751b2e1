"""`python -m lib_pivotal plan`: what a run will do with a folder, and what is wrong, before any model is loaded."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lib_pivotal.runs.plan import Plan

SIGNS = {"error": "error", "warning": "warn ", "info": "info "}
SHOWN_SIZES = 12


def add_plan_command(commands: Any) -> None:
    """Add the verb to a parser's commands."""
    plan = commands.add_parser(
        "plan", help="draws, sizes, captions and what is wrong, of a folder and a run", description=__doc__
    )
    plan.add_argument("dataset", type=Path)
    plan.add_argument(
        "run_file", type=Path, nargs="?", metavar="RUN.json", help="settings (default: fitted to the folder)"
    )
    plan.add_argument("--json", action="store_true", help="print JSON, with every picture")
    plan.add_argument("--save", type=Path, metavar="RUN.json", help="write the run that was planned")
    plan.add_argument(
        "--mend", action="store_true", help="apply the first remedy of each warning and error before planning"
    )
    plan.set_defaults(run=run_plan)


def run_plan(parsed: argparse.Namespace) -> int:
    """Print the plan; 1 if it has an error, which training would refuse."""
    from lib_pivotal.config import Run, run_to_dict, write_run
    from lib_pivotal.runs.defaults import fitted_run
    from lib_pivotal.runs.plan import make_plan
    from lib_pivotal.runs.presets import read_run_settings
    from lib_pivotal.runs.remedies import mended
    from lib_pivotal.training.scanning import scan_pictures

    run = read_run_settings(parsed.run_file) if parsed.run_file is not None else Run()
    run = replace(run, data=replace(run.data, folder=str(parsed.dataset)))
    dataset = scan_pictures(run.data)
    if parsed.run_file is None:
        run = fitted_run(dataset, run).run
    applied: list[str] = []
    if parsed.mend:
        run, applied = mended(run, lambda one: make_plan(dataset, one).at_least("warning"))
    plan = make_plan(dataset, run)
    if parsed.save is not None:
        write_run(parsed.save, run)
    if parsed.json:
        whole = {**plan.as_dict(), "run": run_to_dict(run), "mended": applied}
        sys.stdout.write(json.dumps(whole, indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.writelines(f"mended: {label}\n" for label in applied)
        sys.stdout.write(plan_text(plan))
    return 1 if plan.at_least("error") else 0


def plan_text(plan: Plan) -> str:
    """A plan as people read it in a terminal."""
    lines = [
        f"{len(plan.pictures)} pictures in {plan.folder}",
        f"{plan.steps} steps of {plan.batch_size}"
        + (f" x {plan.accumulation}" if plan.accumulation > 1 else "")
        + f" pictures: {plan.draws} draws, {plan.epochs:.1f} epochs of {plan.steps_per_epoch:.0f} steps",
        "",
    ]
    rows = [
        (
            word.name,
            str(word.pictures),
            f"{word.draws:.0f}",
            f"{word.share:.1%}",
            str(word.vectors),
            "style" if word.style else f"form of {word.form_of}" if word.form_of else "",
            ", ".join(word.absorbed) or "-",
        )
        for word in plan.words
    ]
    lines += _table(("word", "pictures", "draws", "share", "vectors", "", "absorbs"), rows)
    lines.append("")
    sizes = [
        (
            f"{bucket.width_px}x{bucket.height_px}",
            str(bucket.pictures),
            f"{bucket.draws:.0f}",
            f"{bucket.mean_cropped:.1%}",
            f"{bucket.most_cropped:.1%}",
        )
        for bucket in plan.buckets[:SHOWN_SIZES]
    ]
    lines += _table(("size", "pictures", "draws", "cut off", "at most"), sizes)
    if len(plan.buckets) > SHOWN_SIZES:
        lines.append(f"... and {len(plan.buckets) - SHOWN_SIZES} more sizes")
    how = "" if plan.tokens_counted else " (estimated)"
    lines += ["", f"longest caption: {plan.tokens_most} of 75 places{how}", ""]
    for finding in plan.findings:
        lines.append(f"{SIGNS[finding.severity]} {finding.text}")
        lines += [f"      -> {remedy.label}" for remedy in finding.remedies]
    if not plan.findings:
        lines.append("nothing to look at")
    return "\n".join(lines) + "\n"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width, the first to the left, numbers to the right, the last as long as it is."""
    widths = [max(len(row[place]) for row in [heads, *rows]) for place in range(len(heads))]
    lines = []
    for row in [heads, *rows]:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1], strict=True)]
        lines.append("  ".join([*cells, row[-1]]).rstrip())
    return lines
