"""`python -m lib_pivotal bundle VERB FILE ... [--json] [-f]`: list, show, verify, rename, delete, add, adjust, join,
split, strip, convert, cut, extract, resize, to_lora, describe, export."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from lib_pivotal.commands.terms import both
from lib_pivotal.errors import PivotalError
from lib_pivotal.files import typed_path

_Work = Callable[[Any, argparse.Namespace], Any]
"""`commands.bundles`, which is imported when it is needed, and the arguments."""


def add_bundle_commands(commands: Any) -> None:
    """Add the verb `bundle` with its own verbs to an argument parser's sub-commands."""
    bundle = commands.add_parser("bundle", help="inspect and edit bundles")
    verbs = bundle.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, help_text: str, run: Any) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = verbs.add_parser(name, help=help_text)
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.set_defaults(run=run)
        return parser

    def writing(name: str, help_text: str, work: _Work, *, out: str | None = None) -> argparse.ArgumentParser:
        """`work` makes the request of the arguments and does it; `out` None: `--out` may be left out."""
        parser = verb(name, help_text, run_work)
        parser.set_defaults(work=work)
        parser.add_argument("-f", "--overwrite", action="store_true", help="replace existing files")
        needed, told = out is not None, "write here instead of over the file"
        parser.add_argument("--out", type=typed_path, required=needed, metavar=out, help=None if needed else told)
        return parser

    listing = verb("list", "embeddings and parts of every file in folders", run_list)
    listing.add_argument("paths", nargs="+", type=typed_path)
    verb("show", "everything about one file", run_show).add_argument("file", type=typed_path)
    verb("verify", "check files; exit status 1 if one has errors", run_verify).add_argument(
        "files", nargs="+", type=typed_path
    )
    rename = writing(
        "rename",
        "rename embeddings",
        lambda do, given: do.rename(
            do.Rename(given.file, dict(map(_pair, given.renames)), out=given.out, overwrite=given.overwrite)
        ),
    )
    rename.add_argument("file", type=typed_path)
    rename.add_argument("renames", nargs="+", metavar="OLD=NEW")
    delete = writing(
        "delete",
        "remove embeddings",
        lambda do, given: do.delete(do.Delete(given.file, given.names, out=given.out, overwrite=given.overwrite)),
    )
    delete.add_argument("file", type=typed_path)
    delete.add_argument("names", nargs="+", metavar="NAME")
    add = writing(
        "add",
        "put embedding files in, each under its file's name",
        lambda do, given: do.add(do.Add(given.file, given.embeddings, out=given.out, overwrite=given.overwrite)),
    )
    add.add_argument("file", type=typed_path)
    add.add_argument("embeddings", nargs="+", type=typed_path, metavar="EMBEDDING")
    adjust = writing("adjust", "write embeddings with another norm, turned to their init text", _adjust)
    adjust.add_argument("file", type=typed_path)
    adjust.add_argument(
        "adjustments", nargs="+", metavar="'NAME*NORM~SHARE'", help="as in a prompt's tag, for example 'hana*0.5~0.2'"
    )
    adjust.add_argument(
        "--checkpoint", type=typed_path, help="a checkpoint of the bundle's family, with which init texts are read"
    )
    join = writing(
        "join",
        "several bundles into one: embeddings and networks",
        lambda do, given: do.join(do.Join(given.files, given.out, weights=given.weights, overwrite=given.overwrite)),
        out="OUT",
    )
    join.add_argument("files", nargs="+", type=typed_path)
    join.add_argument("--weights", nargs="+", type=float, metavar="W", help="how much of each file (default: 1)")
    split = writing(
        "split",
        "a LoRA without embeddings, and one file per embedding",
        lambda do, given: do.split(do.Split(given.file, given.out, layout=given.format, overwrite=given.overwrite)),
        out="FOLDER",
    )
    split.add_argument("file", type=typed_path)
    split.add_argument("--format", default="a1111", help="a1111, a1111_pt, diffusers, kohya, hcp or onetrainer")
    strip = writing(
        "strip",
        "remove parts",
        lambda do, given: do.strip(do.Strip(given.file, given.parts, out=given.out, overwrite=given.overwrite)),
    )
    strip.add_argument("file", type=typed_path)
    strip.add_argument(
        "parts", nargs="+", help="unet, te, te2 (SDXL's second text encoder), words (the embeddings), metadata"
    )
    convert = writing("convert", "another layout for other programs", _convert, out="OUT")
    convert.add_argument("file", type=typed_path)
    convert.add_argument("--layout", required=True, help="kohya, diffusers or peft")
    convert.add_argument(
        "--checkpoint",
        type=typed_path,
        help="a checkpoint that the bundle is for (.safetensors, or a folder of diffusers): tells the blocks of its "
        "U-Net, where they are other than those of SD1, SD2 and SDXL",
    )
    cut = writing(
        "cut",
        "a DyLoRA's first ranks, as they were trained",
        lambda do, given: do.cut(do.CutRanks(given.file, given.out, rank=given.rank, overwrite=given.overwrite)),
        out="OUT",
    )
    cut.add_argument("file", type=typed_path)
    cut.add_argument("--rank", type=int, required=True, help="how many of its ranks")
    _add_svd(writing)
    _add_card(verb)


def _add_card(verb: Callable[..., argparse.ArgumentParser]) -> None:
    """The result card: into the file, or as a model page."""
    describe = verb("describe", "write the result card, a preview, and what the web UI's card shows", run_work)
    describe.set_defaults(work=_describe)
    describe.add_argument("--description", help="text; '' takes it out")
    describe.add_argument("--licence", help="a name or a link; '' takes it out")
    describe.add_argument("--unet", type=float, metavar="W", help="recommended weight of the U-Net")
    describe.add_argument("--te", type=float, metavar="W", help="recommended weight of the text encoder")
    describe.add_argument("--cfg", type=float, help="recommended CFG")
    export = verb("export", "the card as a model page (Markdown) with its pictures", run_work)
    export.set_defaults(work=_export)
    export.add_argument("--out", type=typed_path, required=True, metavar="FOLDER")
    export.add_argument("-f", "--overwrite", action="store_true", help="replace existing files")
    for parser in (describe, export):
        parser.add_argument("file", type=typed_path)
        parser.add_argument("--samples", type=typed_path, metavar="RUN", help="folder of its run, with its samples")


def _describe(_: Any, given: argparse.Namespace) -> Any:
    from lib_pivotal.commands import cards

    names = ("description", "licence", "unet", "te", "cfg", "samples")
    request = cards.Describe(given.file, **{name: getattr(given, name) for name in names})
    return cards.describe(request, runs_folder=given.file.parent)


def _export(_: Any, given: argparse.Namespace) -> Any:
    from lib_pivotal.commands import cards

    request = cards.Export(given.file, given.out, samples=given.samples, overwrite=given.overwrite)
    return cards.export(request, runs_folder=given.file.parent)


def _add_svd(writing: Callable[..., argparse.ArgumentParser]) -> None:
    """The verbs that work by singular values."""
    extract = writing("extract", "a checkpoint minus its base, as a LoRA", _extract, out="OUT")
    extract.add_argument("tuned", type=typed_path, help="the fine-tuned checkpoint, .safetensors or .ckpt")
    extract.add_argument("base", type=typed_path, help="the checkpoint that it was made from")
    extract.add_argument("--dtype", default="fp16", help="fp16, bf16 or fp32")
    resize = writing("resize", "a LoRA at a lower rank", _resize, out="OUT")
    resize.add_argument("file", type=typed_path)
    to_lora = writing("to_lora", "LoHa, LoKr, OFT and other kinds as a LoRA", _to_lora, out="OUT")
    to_lora.add_argument("file", type=typed_path)
    to_lora.add_argument("--base", type=typed_path, help="its checkpoint: DoRA, (IA)^3, GLoRA and OFT need it")
    for parser in (extract, resize, to_lora):
        parser.set_defaults(run=run_svd)
        parser.add_argument("--rank", type=int, default=0, help="rank of a layer, at most")
        parser.add_argument(
            "--conv-rank", type=int, default=0, help="of convolutions larger than 1x1 (default: --rank)"
        )
        parser.add_argument(
            "--rule",
            default="rank",
            help="how the rank of each layer is found: rank (as given), share (of the sum of singular values, Custom "
            "Diffusion's), sv_ratio or sv_fro (kohya's)",
        )
        parser.add_argument(
            "--value", type=float, default=0.0, help="of the rule, for example --rule sv_fro --value 0.9"
        )


def run_list(parsed: argparse.Namespace) -> int:
    """Embeddings and parts of every file."""
    from lib_pivotal.commands import bundles

    found = bundles.listed(parsed.paths)
    if parsed.json:
        return _json([summary.as_dict() for summary in found])
    for summary in found:
        embeddings = (
            ", ".join(f"{embedding.name} ({embedding.vectors})" for embedding in summary.embeddings) or "no embeddings"
        )
        parts = ", ".join(summary.parts) or "no network"
        _print(f"{summary.path.name}: {embeddings} · {parts} · {summary.family} · {summary.file_bytes / 1e6:.1f} MB")
        for problem in summary.problems:
            _print(f"  {problem}")
    return 0


def run_show(parsed: argparse.Namespace) -> int:
    """Everything that a file's header tells."""
    from lib_pivotal.commands import bundles

    plain = bundles.show(parsed.file).as_dict()
    if parsed.json:
        return _json(plain)
    for key, value in plain.items():
        if isinstance(value, dict):
            _print(f"{key}:")
            for inner, item in value.items():
                text = str(item)
                _print(f"  {inner}: {text if len(text) <= 200 else text[:200] + ' …'}")
        elif key == "said":
            for text in value:
                _print(text)
        else:
            _print(f"{key}: {value}")
    return 0


def run_verify(parsed: argparse.Namespace) -> int:
    """Every problem of every file; 1 where one is an error."""
    from lib_pivotal.commands import bundles

    found = [bundles.verify(path) for path in parsed.files]
    if parsed.json:
        _json({str(verdict.file): verdict.as_dict()["problems"] for verdict in found})
    else:
        for verdict in found:
            _print(f"{verdict.file}: {'sound' if verdict.sound else ''}")
            for problem in verdict.problems:
                _print(f"  {problem}")
    return int(not all(verdict.sound for verdict in found))


def run_work(parsed: argparse.Namespace) -> int:
    """What a sub-command writes, and where it is."""
    from lib_pivotal.commands import bundles

    done: bundles.Written = parsed.work(bundles, parsed)
    if parsed.json:
        return _json(done.as_dict())
    for path in done.files:
        _print(f"wrote {path}")
    return 0


def run_svd(parsed: argparse.Namespace) -> int:
    """What was written and what it has lost; layers are counted on stderr while it goes on."""
    from lib_pivotal.commands import bundles

    done: bundles.Reduced = parsed.work(bundles, parsed)
    if parsed.json:
        return _json(done.as_dict())
    _print(f"wrote {done.files[0]}: {done.report}")
    return 0


def _extract(do: Any, given: argparse.Namespace) -> Any:
    request = do.Extract(
        given.tuned, given.base, given.out, cut=_cut(given), dtype=given.dtype, overwrite=given.overwrite
    )
    return do.extract(request, progress=_count)


def _resize(do: Any, given: argparse.Namespace) -> Any:
    request = do.Resize(given.file, given.out, cut=_cut(given), overwrite=given.overwrite)
    return do.resize(request, progress=_count)


def _to_lora(do: Any, given: argparse.Namespace) -> Any:
    request = do.ToLora(given.file, given.out, cut=_cut(given), base=given.base, overwrite=given.overwrite)
    return do.to_lora(request, progress=_count)


def _cut(given: argparse.Namespace) -> Any:
    from lib_pivotal.bundle.low_rank import RankCut

    return RankCut(given.rank, given.rule, given.value, given.conv_rank)


def _count(done: int, total: int, name: str) -> None:
    """One line on a terminal, nothing in a log but each hundredth layer."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{done}/{total} layers" + ("\n" if done == total else ""))
    elif done % 100 == 0:
        sys.stderr.write(f"{done}/{total} layers\n")


def _convert(do: Any, given: argparse.Namespace) -> Any:
    from lib_pivotal.bundle.layer_names import checkpoint_shape

    host = do.NoHost(None if given.checkpoint is None else checkpoint_shape(given.checkpoint))
    return do.convert(do.Convert(given.file, given.out, layout=given.layout, overwrite=given.overwrite), host)


def _adjust(do: Any, given: argparse.Namespace) -> Any:
    from lib_pivotal.embeddings.adjustment import read_adjustments
    from lib_pivotal.standalone.token_tables import checkpoint_tables

    host = do.NoHost(tables=None if given.checkpoint is None else checkpoint_tables(given.checkpoint))
    found = read_adjustments(" ".join(given.adjustments))
    return do.adjust(do.Adjust(given.file, found, out=given.out, overwrite=given.overwrite), host)


def _pair(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not equals or not old or not new:
        raise PivotalError(f"{text!r}: write OLD=NEW, for example aoi=aoi-new")
    return old, new


def _json(value: Any) -> int:
    _print(json.dumps(both(value), indent=2, ensure_ascii=False))
    return 0


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
