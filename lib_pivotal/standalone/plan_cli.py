"""`python -m lib_pivotal plan|captions`: what a run will do with a folder, and its captions; no model is loaded."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from lib_pivotal.commands.terms import both
from lib_pivotal.data.lint_warnings import grouped
from lib_pivotal.errors import ConfigError, Fault
from lib_pivotal.files import typed_path

if TYPE_CHECKING:
    from lib_pivotal.config import DataConfig, Run
    from lib_pivotal.data.lint_warnings import LintWarning
    from lib_pivotal.runs.host_defaults import HostDefaults
    from lib_pivotal.runs.plan import RunPlan

SIGNS = {"error": "error", "warning": "warn ", "info": "info "}
SHOWN_SIZES = 12
LEAST_PX, MOST_PX = 64, 4096
FAMILIES: Mapping[str, tuple[Literal["sd1", "sd2", "sdxl"], bool]] = MappingProxyType(
    {"sd1": ("sd1", False), "sd2": ("sd2", False), "sd2v": ("sd2", True), "sdxl": ("sdxl", False)}
)
"""Names of the command line: the family, and whether it predicts v."""
HOME = ".pivotal"
"""Hidden, so that a scan does not look into it."""


def add_plan_commands(commands: Any) -> None:
    """Add the verbs to a parser's commands."""
    plan = commands.add_parser(
        "plan", help="samples, sizes, captions and warnings of a folder and a run", description=run_plan.__doc__
    )
    plan.add_argument("dataset", type=dataset_folder)
    plan.add_argument(
        "run_file", type=typed_path, nargs="?", metavar="RUN.json", help="settings (default: fitted to the folder)"
    )
    plan.add_argument("--json", action="store_true", help="print JSON, with every picture")
    plan.add_argument("--save", type=typed_path, metavar="RUN.json", help="write the run that was planned")
    plan.add_argument("-f", "--overwrite", action="store_true", help="let --save replace a file that is there")
    plan.add_argument(
        "--fix",
        "--mend",
        dest="mend",
        action="store_true",
        help="apply the first fix of each warning and error before planning",
    )
    kind = plan.add_mutually_exclusive_group()
    kind.add_argument("--checkpoint", type=typed_path, help="what it is planned for; only the file's header is read")
    kind.add_argument("--family", choices=tuple(FAMILIES), help="the same without a file (default: sd1)")
    plan.add_argument(
        "--size", type=int, metavar="PX", help="largest training size that is proposed (default: the checkpoint's own)"
    )
    plan.set_defaults(run=run_plan)

    captions = commands.add_parser("captions", help="captions as they are trained: show, write into the files, undo")
    captions.add_argument("dataset", type=dataset_folder)
    captions.add_argument(
        "run_file", type=typed_path, nargs="?", metavar="RUN.json", help="settings (default: fitted to the folder)"
    )
    doing = captions.add_mutually_exclusive_group()
    doing.add_argument("--write", action="store_true", help="change the files (default: only show what would change)")
    doing.add_argument("--take-back", action="store_true", help="undo the last write")
    captions.add_argument(
        "--home", type=typed_path, help=f"folder of the undo records (default: {HOME} in the dataset)"
    )
    captions.add_argument("--json", action="store_true", help="print JSON")
    for verb in (plan, captions):
        verb.add_argument(
            "--keep-separator",
            metavar="MARK",
            help="what divides kept from free tags in captions, where no RUN.json says it (default: |||)",
        )
    captions.set_defaults(run=run_captions)


def dataset_folder(text: str) -> Path:
    """A folder of pictures as it is typed; an empty one would be the folder that the process runs in."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty. Give the folder that holds the pictures.")
    return typed_path(text)


def run_plan(parsed: argparse.Namespace) -> int:
    """Print the plan; 1 if it has an error, which training would refuse."""
    from lib_pivotal.commands.datasets import FolderRequest, plan
    from lib_pivotal.config import run_from_dict, run_to_dict, write_run
    from lib_pivotal.file_names import refuse_output

    if parsed.save is not None:
        # as with bundles: a file that is named as the input, too, is meant to be written over
        same = parsed.run_file is not None and parsed.save.resolve() == parsed.run_file.resolve()
        refuse_output(parsed.save, overwrite=parsed.overwrite or same)
    asked = FolderRequest(
        parsed.dataset, _settings(parsed.run_file), reading=_reading(parsed), circumstances=_circumstances(parsed)
    )
    done = plan(asked, fix=parsed.mend)
    if parsed.save is not None:
        write_run(parsed.save, run_from_dict(run_to_dict(done.run)))  # refused where it could not be trained
    if parsed.json:
        _print_json(done.as_dict())
    else:
        sys.stdout.writelines(f"fixed: {label}\n" for label in done.fixed)
        sys.stdout.write(plan_text(done.plan))
    return 1 if done.plan.at_least("error") else 0


def run_captions(parsed: argparse.Namespace) -> int:
    """Show, write or take back; 1 if a file was left because something else has changed it."""
    from lib_pivotal.commands import captions
    from lib_pivotal.commands.datasets import FolderRequest

    home = parsed.home or parsed.dataset / HOME
    if parsed.take_back:
        done = captions.take_back(parsed.dataset, home=home).as_dict()
    else:
        found = captions.preview(FolderRequest(parsed.dataset, _settings(parsed.run_file), reading=_reading(parsed)))
        if parsed.write:
            done = captions.write(found, parsed.dataset, home=home).as_dict()
        else:
            done = captions.preview_as_dict(found)
    if parsed.json:
        _print_json(done)
    else:
        sys.stdout.write(captions_text(done))
    return 1 if done.get("left") else 0


def captions_text(done: dict[str, Any]) -> str:
    """A preview, or what was done, as people read it."""
    if "changes" not in done:
        lines = [f"{done['written']} caption files written"]
        lines += [f"left: {reason}" for reason in done["left"]]
        lines += [f"undo record: {done['record']}"] if "record" in done else []
        return "\n".join(lines) + "\n"
    lines = []
    for change in done["changes"]:
        before = "(no file)" if change["before"] is None else change["before"]
        lines += [change["file"], f"  - {before}", f"  + {change['after']}"]
    lines += [f"{key}: has several captions, its file is left alone" for key in done["several"]]
    lines.append(f"{len(done['changes'])} caption files would change; --write does it")
    return "\n".join(lines) + "\n"


def _circumstances(parsed: argparse.Namespace) -> HostDefaults:
    """The checkpoint that is planned for, as far as it was named."""
    from lib_pivotal.ports import ModelInfo
    from lib_pivotal.runs.checkpoint_advice import native_px
    from lib_pivotal.runs.host_defaults import HostDefaults
    from lib_pivotal.standalone.tokenizer import clip_reading

    if parsed.size is not None and not LEAST_PX <= parsed.size <= MOST_PX:
        raise ConfigError([Fault("--size", parsed.size, f"must be from {LEAST_PX} to {MOST_PX} px")])
    if parsed.checkpoint is not None:
        from lib_pivotal.standalone.families import checkpoint_info

        model = checkpoint_info(parsed.checkpoint)
    else:
        family, predicts_v = FAMILIES[parsed.family or "sd1"]
        model = ModelInfo(parsed.family or "sd1", family, v_prediction=predicts_v)
    return HostDefaults(parsed.size or native_px(model), clip_reading())


def _reading(parsed: argparse.Namespace) -> DataConfig:
    """How captions are read where no run says it."""
    from lib_pivotal.config import DataConfig

    if parsed.keep_separator is None:
        return DataConfig()
    if parsed.run_file is not None:
        remedy = "Write it into the file: data.keep_separator."
        raise ConfigError([Fault("--keep-separator", parsed.keep_separator, "a RUN.json says it", remedy)])
    return DataConfig(keep_separator=parsed.keep_separator)


def _settings(file: Path | None) -> Run | None:
    """The run of a file that need not have embeddings; None where none is given."""
    from lib_pivotal.runs.presets import read_run_settings

    return None if file is None else read_run_settings(file)


def _print_json(plain: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(both(plain), indent=2, ensure_ascii=False) + "\n")


def plan_text(plan: RunPlan) -> str:
    """A plan as people read it in a terminal."""
    lines = [
        f"{len(plan.pictures)} pictures in {plan.folder}",
        f"{plan.steps} steps of {plan.batch_size}"
        + (f" x {plan.accumulation}" if plan.accumulation > 1 else "")
        + f" pictures: {plan.samples} samples, {plan.epochs:.1f} epochs of {plan.steps_per_epoch:.0f} steps",
        "",
    ]
    rows = [
        (
            embedding.name,
            str(embedding.pictures),
            f"{embedding.samples:.0f}",
            f"{embedding.share:.1%}",
            str(embedding.vectors),
            "style" if embedding.style else f"form of {embedding.form_of}" if embedding.form_of else "",
            ", ".join(embedding.absorbed) or "-",
        )
        for embedding in plan.embeddings
    ]
    lines += _table(("embedding", "pictures", "samples", "share", "vectors", "", "pruned"), rows)
    lines.append("")
    sizes = [
        (
            f"{bucket.width_px}x{bucket.height_px}",
            str(bucket.pictures),
            f"{bucket.samples:.0f}",
            f"{bucket.mean_cropped:.1%}",
            f"{bucket.most_cropped:.1%}",
        )
        for bucket in plan.buckets[:SHOWN_SIZES]
    ]
    lines += _table(("size", "pictures", "samples", "cut off", "at most"), sizes)
    if len(plan.buckets) > SHOWN_SIZES:
        lines.append(f"... and {len(plan.buckets) - SHOWN_SIZES} more sizes")
    how = "" if plan.tokens_counted else " (estimated)"
    lines += ["", f"longest caption: {plan.tokens_most} of 75 tokens{how}", ""]
    lines += warnings_text(plan.warnings) or ["no warnings"]
    return "\n".join(lines) + "\n"


def warnings_text(warnings: Sequence[LintWarning]) -> list[str]:
    """Lines of warnings, those of one kind below a line of their own; fixes that all of them share only there."""
    lines = []
    for group in grouped(warnings):
        lines.append(f"{SIGNS[group.severity]} {group.text}")
        lines += [f"      -> {fix.label}" for fix in group.fixes]
        for _, warning in group.warnings if len(group.warnings) > 1 else ():
            lines.append(f"      - {warning.text}")
            lines += [f"          -> {fix.label}" for fix in warning.fixes if fix not in group.fixes]
    return lines


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width, the first to the left, numbers to the right, the last as long as it is."""
    widths = [max(len(row[place]) for row in [heads, *rows]) for place in range(len(heads))]
    lines = []
    for row in [heads, *rows]:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1], strict=True)]
        lines.append("  ".join([*cells, row[-1]]).rstrip())
    return lines
