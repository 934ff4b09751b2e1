"""`python -m lib_pivotal bundle list|show|rename|join|split|strip|convert|verify FILE ... [--json] [-f]`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from lib_pivotal.errors import PivotalError
from lib_pivotal.files import typed_path


def add_bundle_commands(commands: Any) -> None:
    """Add the verb `bundle` with its own verbs to an argument parser's sub-commands."""
    bundle = commands.add_parser("bundle", help="inspect and edit bundles")
    verbs = bundle.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, help_text: str, run: Any) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = verbs.add_parser(name, help=help_text)
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.set_defaults(run=run)
        return parser

    def writing(name: str, help_text: str, run: Any) -> argparse.ArgumentParser:
        parser = verb(name, help_text, run)
        parser.add_argument("-f", "--overwrite", action="store_true", help="replace existing files")
        return parser

    listing = verb("list", "embeddings and parts of every file in folders", run_list)
    listing.add_argument("paths", nargs="+", type=typed_path)
    verb("show", "everything about one file", run_show).add_argument("file", type=typed_path)
    verb("verify", "check files; exit status 1 if one has errors", run_verify).add_argument(
        "files", nargs="+", type=typed_path
    )
    rename = writing("rename", "rename embeddings", run_rename)
    rename.add_argument("file", type=typed_path)
    rename.add_argument("renames", nargs="+", metavar="OLD=NEW")
    rename.add_argument("--out", type=typed_path, help="write here instead of over the file")
    join = writing("join", "several bundles into one: embeddings and networks", run_join)
    join.add_argument("files", nargs="+", type=typed_path)
    join.add_argument("--out", type=typed_path, required=True)
    split = writing("split", "a LoRA without embeddings, and one file per embedding", run_split)
    split.add_argument("file", type=typed_path)
    split.add_argument("--out", type=typed_path, required=True, metavar="FOLDER")
    split.add_argument("--format", default="a1111", help="a1111, a1111_pt, diffusers, kohya, hcp or onetrainer")
    strip = writing("strip", "remove parts", run_strip)
    strip.add_argument("file", type=typed_path)
    strip.add_argument(
        "parts", nargs="+", help="unet, te, te2 (SDXL's second text encoder), words (the embeddings), metadata"
    )
    strip.add_argument("--out", type=typed_path)
    convert = writing("convert", "another layout for other programs", run_convert)
    convert.add_argument("file", type=typed_path)
    convert.add_argument("--layout", required=True, help="kohya, diffusers or peft")
    convert.add_argument("--out", type=typed_path, required=True)
    convert.add_argument(
        "--checkpoint",
        type=typed_path,
        help="a checkpoint that the bundle is for (.safetensors, or a folder of diffusers): tells the blocks of its "
        "U-Net, where they are other than those of SD1, SD2 and SDXL",
    )


def run_list(parsed: argparse.Namespace) -> int:
    """Words and parts of every file."""
    from lib_pivotal.bundle.listing import list_bundle, list_folder

    found = [
        summary for path in parsed.paths for summary in (list_folder(path) if path.is_dir() else [list_bundle(path)])
    ]
    if parsed.json:
        return _json([summary.as_dict() for summary in found])
    for summary in found:
        words = ", ".join(f"{word.name} ({word.vectors})" for word in summary.words) or "no embeddings"
        parts = ", ".join(summary.parts) or "no network"
        _print(f"{summary.path.name}: {words} · {parts} · {summary.family} · {summary.file_bytes / 1e6:.1f} MB")
        for problem in summary.problems:
            _print(f"  {problem}")
    return 0


def run_show(parsed: argparse.Namespace) -> int:
    """Everything that a file's header tells."""
    from lib_pivotal.bundle.listing import list_bundle

    summary = list_bundle(parsed.file)
    plain = {**summary.as_dict(), "metadata": dict(summary.metadata)}
    if parsed.json:
        return _json(plain)
    for key, value in plain.items():
        if isinstance(value, dict):
            _print(f"{key}:")
            for inner, item in value.items():
                text = str(item)
                _print(f"  {inner}: {text if len(text) <= 200 else text[:200] + ' …'}")
        else:
            _print(f"{key}: {value}")
    return 0


def run_verify(parsed: argparse.Namespace) -> int:
    """Every problem of every file; 1 where one is an error."""
    from lib_pivotal.bundle.verify import verify

    found = {str(path): verify(path) for path in parsed.files}
    failed = any(problem.severity == "error" for problems in found.values() for problem in problems)
    if parsed.json:
        _json({path: [str(problem) for problem in problems] for path, problems in found.items()})
        return int(failed)
    for path, problems in found.items():
        _print(f"{path}: {'sound' if not problems else ''}")
        for problem in problems:
            _print(f"  {problem}")
    return int(failed)


def run_rename(parsed: argparse.Namespace) -> int:
    """Other names for words."""
    from lib_pivotal.bundle.workshop import rename_words

    renames = dict(_pair(text) for text in parsed.renames)
    return _done(parsed, [rename_words(parsed.file, renames, out=parsed.out, overwrite=parsed.overwrite)])


def run_join(parsed: argparse.Namespace) -> int:
    """Several bundles into one."""
    from lib_pivotal.bundle.workshop import join

    return _done(parsed, [join(parsed.files, parsed.out, overwrite=parsed.overwrite)])


def run_split(parsed: argparse.Namespace) -> int:
    """A LoRA and embedding files."""
    from lib_pivotal.bundle.workshop import split

    return _done(parsed, split(parsed.file, parsed.out, layout=parsed.format, overwrite=parsed.overwrite))


def run_strip(parsed: argparse.Namespace) -> int:
    """Parts taken away."""
    from lib_pivotal.bundle.workshop import strip

    return _done(parsed, [strip(parsed.file, parsed.parts, out=parsed.out, overwrite=parsed.overwrite)])


def run_convert(parsed: argparse.Namespace) -> int:
    """Another layout."""
    from lib_pivotal.bundle.layer_names import checkpoint_shape
    from lib_pivotal.bundle.workshop import convert

    shape = None if parsed.checkpoint is None else checkpoint_shape(parsed.checkpoint)
    done = convert(parsed.file, parsed.out, layout=parsed.layout, shape=shape, overwrite=parsed.overwrite)
    return _done(parsed, [done])


def _pair(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not equals or not old or not new:
        raise PivotalError(f"{text!r}: write OLD=NEW, for example aoi=aoi-new")
    return old, new


def _done(parsed: argparse.Namespace, paths: list[Path]) -> int:
    if parsed.json:
        return _json({"written": [str(path) for path in paths]})
    for path in paths:
        _print(f"wrote {path}")
    return 0


def _json(value: Any) -> int:
    _print(json.dumps(value, indent=2, ensure_ascii=False))
    return 0


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
