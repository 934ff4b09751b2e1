"""Work on bundle files: list, show, verify, rename, delete, add, adjust, join, strip, split, convert, cut; extract,
resize, to_lora.

A front says which file is meant, by a path, a name or a choice from a list. The rules are here: `out` is a new file
with a legal name, another file is only replaced with `overwrite`, a request that names nothing to do is refused, and
the host forgets its copies of a file that was changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from lib_pivotal.bundle import edits, svd
from lib_pivotal.bundle.card import card_of
from lib_pivotal.bundle.edits import LAYOUTS, Layout
from lib_pivotal.bundle.embedding_files import EmbeddingFormat, read_embedding
from lib_pivotal.bundle.first_ranks import cut_to_first_ranks
from lib_pivotal.bundle.format import EmbeddingTensors, Problem
from lib_pivotal.bundle.layer_names import UnetShape
from lib_pivotal.bundle.listing import BundleSummary, list_bundle, list_folder
from lib_pivotal.bundle.low_rank import RankCut
from lib_pivotal.bundle.metadata import embedding_facts, separation_shares
from lib_pivotal.bundle.reader import read_bundle, require
from lib_pivotal.bundle.verify import verify as verify_file
from lib_pivotal.embedding_names import check_embedding_name
from lib_pivotal.embeddings.adjustment import EmbeddingAdjustment
from lib_pivotal.embeddings.initial import direction_rows, is_directed
from lib_pivotal.embeddings.name_matching import folded
from lib_pivotal.embeddings.slerp import adjusted_rows
from lib_pivotal.errors import BundleError
from lib_pivotal.file_names import checked_name
from lib_pivotal.ports import TokenTables
from lib_pivotal.runs.balance import said_of_parts

SUFFIX = ".safetensors"


class BundleHost(Protocol):
    """What the process knows of bundle files beyond their content; a `runs.backend.TrainerBackend` is one."""

    def unet_shape(self, path: Path) -> UnetShape | None:
        """The blocks of the U-Net that a file was made for; None: not known."""
        ...

    def token_tables(self) -> TokenTables | None:
        """The loaded checkpoint's vocabulary; None where none is loaded."""
        ...

    def loader_problems(self, path: Path) -> Sequence[Problem]:
        """What the process's own loader of LoRA files makes of a file."""
        ...

    def bundle_saved(self, path: Path) -> None:
        """A file was written: forget older copies of it, and list it."""
        ...


@dataclass(frozen=True)
class NoHost:
    """A process that keeps nothing of bundles, such as a command line; what it has is of a named checkpoint."""

    shape: UnetShape | None = None
    tables: TokenTables | None = None

    def unet_shape(self, path: Path) -> UnetShape | None:
        """Of the checkpoint that was named."""
        return self.shape

    def token_tables(self) -> TokenTables | None:
        """Of the checkpoint that was named."""
        return self.tables

    def loader_problems(self, path: Path) -> Sequence[Problem]:
        """There is no loader but ours."""
        return ()

    def bundle_saved(self, path: Path) -> None:
        """Nothing is kept."""


@dataclass(frozen=True)
class Rename:
    """Embeddings' new names by their old ones; `out` is another file to write, None: the file itself is changed."""

    file: Path
    renames: Mapping[str, str]
    _: KW_ONLY
    out: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Delete:
    """Embeddings to take out."""

    file: Path
    embeddings: Sequence[str]
    _: KW_ONLY
    out: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Add:
    """Embedding files to put in, each under its own name in lower case."""

    file: Path
    embeddings: Sequence[Path]
    _: KW_ONLY
    out: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Adjust:
    """Embeddings to change as a tag does at use: norm and direction (`embeddings.slerp`), by name."""

    file: Path
    adjustments: Mapping[str, EmbeddingAdjustment]
    _: KW_ONLY
    out: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Strip:
    """Parts to take away: those of `edits.STRIPPABLE`."""

    file: Path
    parts: Sequence[str]
    _: KW_ONLY
    out: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Join:
    """Files to put together into `out`; `weights` one a file, None: 1."""

    files: Sequence[Path]
    out: Path
    _: KW_ONLY
    weights: Sequence[float] | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Split:
    """A file to take apart in `folder`, its embeddings written as `layout` says."""

    file: Path
    folder: Path
    _: KW_ONLY
    layout: str = "a1111"
    overwrite: bool = False


@dataclass(frozen=True)
class Convert:
    """A file whose network is written in another layout, to `out`."""

    file: Path
    out: Path
    _: KW_ONLY
    layout: str
    overwrite: bool = False


@dataclass(frozen=True)
class Extract:
    """A fine-tuned checkpoint minus its base as a LoRA, written to `out` in `dtype` (fp16, bf16, fp32)."""

    tuned: Path
    base: Path
    out: Path
    _: KW_ONLY
    cut: RankCut
    dtype: str = "fp16"
    overwrite: bool = False


@dataclass(frozen=True)
class Resize:
    """A LoRA to write at a lower rank to `out`."""

    file: Path
    out: Path
    _: KW_ONLY
    cut: RankCut
    overwrite: bool = False


@dataclass(frozen=True)
class CutRanks:
    """A DyLoRA to write with its first ranks alone to `out`."""

    file: Path
    out: Path
    _: KW_ONLY
    rank: int
    overwrite: bool = False


@dataclass(frozen=True)
class ToLora:
    """A network of any kind to write as a LoRA to `out`; `base` is its checkpoint, where the kind needs that."""

    file: Path
    out: Path
    _: KW_ONLY
    cut: RankCut
    base: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Written:
    """What was written, and what to say of it."""

    files: tuple[Path, ...]
    said: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"written": [str(path) for path in self.files]}


@dataclass(frozen=True)
class Reduced(Written):
    """The same of a file made by singular values, with what every layer has lost."""

    report: svd.SvdReport

    def as_dict(self) -> dict[str, Any]:
        """For JSON: `lost` is the share of the change that is not in the file, in all and by layer."""
        layers = {layer.name: {"rank": layer.rank, "lost": layer.lost} for layer in self.report.layers}
        notes = list(self.report.notes)
        return {**super().as_dict(), "said": self.said, "lost": self.report.lost, "layers": layers, "notes": notes}


@dataclass(frozen=True)
class Verdict:
    """Every problem of a file; it is sound where none is an error."""

    file: Path
    problems: tuple[Problem, ...]

    @property
    def sound(self) -> bool:
        """Whether it can be used."""
        return not any(problem.severity == "error" for problem in self.problems)

    @property
    def said(self) -> str:
        """As a sentence or more."""
        if not self.problems:
            return "Every tensor was read and every hash compared: no problems."
        return " ".join(map(str, self.problems))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"sound": self.sound, "problems": [str(problem) for problem in self.problems]}


@dataclass(frozen=True)
class Shown:
    """Everything that a file's header tells."""

    summary: BundleSummary

    def as_dict(self) -> dict[str, Any]:
        """For JSON, with the metadata."""
        return {
            **self.summary.as_dict(),
            "separation": separation_shares(self.summary.metadata),
            "said": self.said,
            "card": card_of(self.summary).as_dict(),
            "metadata": dict(self.summary.metadata),
        }

    @property
    def said(self) -> list[str]:
        """How much of what was learnt is in each embedding, in a sentence; nothing where it was not measured."""
        return said_of_parts(separation_shares(self.summary.metadata))


# ---- looking ----


def listed(paths: Iterable[Path]) -> list[BundleSummary]:
    """Files, and those of folders by path; hidden files of a folder are left out.

    Raises:
        BundleError: a file that was named itself cannot be read.
    """
    found: list[BundleSummary] = []
    for path in paths:
        if path.is_dir():
            found += [summary for summary in list_folder(path) if not summary.path.name.startswith(".")]
        else:
            found.append(list_bundle(path))
    return found


def show(file: Path) -> Shown:
    """Everything that a file's header tells."""
    return Shown(list_bundle(file))


def verify(file: Path, host: BundleHost | None = None) -> Verdict:
    """Every problem of a file, read in full, and read by the process's own loader where it has one."""
    told = (host or NoHost()).loader_problems(file)
    return Verdict(file, (*verify_file(file), *told))


# ---- changing a file, or writing another one from it ----


def rename(request: Rename, host: BundleHost | None = None) -> Written:
    """Give embeddings other names.

    Raises:
        BundleError: a name that cannot be, that is taken, or that is not in the file.
    """
    _demand(request.renames, "choose an embedding")
    for new in request.renames.values():
        if reasons := check_embedding_name(new):
            raise BundleError(f"{new!r} {'; '.join(reasons)}")
    where = _where(request.file, request.out, overwrite=request.overwrite)
    path = edits.rename_embeddings(request.file, request.renames, **where)
    return _changed(host, path, " ".join(f"{old} is now called {new}." for old, new in request.renames.items()))


def delete(request: Delete, host: BundleHost | None = None) -> Written:
    """Take embeddings out."""
    _demand(request.embeddings, "choose an embedding")
    where = _where(request.file, request.out, overwrite=request.overwrite)
    path = edits.delete_embeddings(request.file, request.embeddings, **where)
    return _changed(host, path, f"{_names(request.embeddings)} removed.")


def add(request: Add, host: BundleHost | None = None) -> Written:
    """Put embeddings in.

    Raises:
        BundleError: a file holds no embedding, or two would have one name.
    """
    _demand(request.embeddings, "choose an embedding")
    where = _where(request.file, request.out, overwrite=request.overwrite)
    embeddings: dict[str, EmbeddingTensors] = {}
    for file in request.embeddings:
        found = read_embedding(file)
        name = found.name.lower()  # as prompts are compared; files of other programs often begin with a capital
        if name in embeddings:
            raise BundleError(f"two embeddings would have the same name: {name}. Choose another.")
        embeddings[name] = found.vectors
    path = edits.add_embeddings(request.file, embeddings, **where)
    return _changed(host, path, f"{_names(list(embeddings))} added.")


def adjust(request: Adjust, host: BundleHost | None = None) -> Written:
    """Write embeddings as they are adjusted, so that a picture needs neither the tag's field nor this extension.

    They become fp32: the numbers that the tag gives, bit for bit. The metadata keeps the init text, and says in
    `adjusted` what was done, one entry a time.

    Raises:
        BundleError: an embedding is not in the file, nothing would change, the file keeps no init text to turn to, or
            no checkpoint of its family is there to read the text with.
    """
    wanted = {name: one for name, one in request.adjustments.items() if not one.changes_nothing}
    _demand(wanted, "choose an embedding, and a norm other than 1 or a share of the init text other than 0")
    where = _where(request.file, request.out, overwrite=request.overwrite)
    bundle = require(read_bundle(request.file))
    known, by_name = embedding_facts(bundle.metadata), {folded(name): name for name in bundle.embeddings}
    made: dict[str, EmbeddingTensors] = {}
    facts: dict[str, dict[str, Any]] = {}
    for written, one in wanted.items():
        name = written if written in bundle.embeddings else by_name.get(folded(written))
        if name is None:
            there = ", ".join(bundle.embeddings) or "none"
            raise BundleError(f"{request.file}: has no embedding {written!r}; its embeddings: {there}")
        vectors = bundle.embeddings[name]
        told = known.get(name, {"vectors": int(vectors[0].shape[0])})
        targets = _direction(name, told, vectors, host) if one.init_share else (None,) * len(vectors)
        made[name] = tuple(
            adjusted_rows(tower, target, norm=one.norm, init_share=one.init_share)
            for tower, target in zip(vectors, targets, strict=True)
        )
        before = told.get("adjusted")
        done = {"norm": float(one.norm), "init_share": float(one.init_share)}
        facts[name] = {**told, "adjusted": [*(before if isinstance(before, list) else ()), done]}
    path = edits.add_embeddings(request.file, made, facts=facts, replace=True, **where)
    left = f" in {path.name}; the old file stays as it was" if path != request.file else ""
    return _changed(host, path, f"{_names(list(made))} adjusted{left}.")


def _direction(
    name: str, facts: Mapping[str, Any], vectors: EmbeddingTensors, host: BundleHost | None
) -> tuple[Tensor, ...]:
    """The init text's rows on the host's checkpoint, one tensor for each of the embedding's."""
    text = facts.get("init_text")
    if not isinstance(text, str) or not is_directed(text):
        raise BundleError(f"{name}: its file keeps no init text to turn to; leave the share of the init text out")
    tables = (host or NoHost()).token_tables()
    if tables is None:
        raise BundleError(f"{name}: its init text is read with a checkpoint, and none is there; load or name one")
    widths = tuple(int(tower.shape[1]) for tower in vectors)
    if widths != tuple(tables.widths):
        need, there = ("+".join(map(str, each)) for each in (widths, tables.widths))
        raise BundleError(f"{name}: is {need} wide, the checkpoint's vectors are {there}; take one of its family")
    rows = direction_rows(text, tables=tables)
    if rows is None:
        raise BundleError(f"{name}: its init text {text!r} has no tokens; leave the share of the init text out")
    return rows


def strip(request: Strip, host: BundleHost | None = None) -> Written:
    """Take parts away: the network of the U-Net or a text encoder, the embeddings, or the metadata."""
    _demand(request.parts, "choose what to remove")
    where = _where(request.file, request.out, overwrite=request.overwrite)
    path = edits.strip(request.file, request.parts, **where)  # type: ignore[arg-type]
    left = " The old file stays as it was." if path != request.file else ""
    return _changed(host, path, f"Written: {path.name}.{left}")


def join(request: Join, host: BundleHost | None = None) -> Written:
    """Several files into one, embeddings and networks.

    Raises:
        BundleError: fewer than two files, one that is named twice, or what does not go together.
    """
    files = list(request.files)
    if twice := next((file for file in files if files.count(file) > 1), None):
        raise BundleError(f"{twice}: is named twice. Name each file once; a weight says how much of it.")
    out = _legal(request.out)
    path = edits.join(files, out, weights=request.weights, overwrite=request.overwrite)
    return _changed(host, path, f"Written: {path.name}, of {len(files)} files.")


def split(request: Split) -> Written:
    """A LoRA without embeddings, and one file for each embedding: files for others, which the host does not list."""
    layout: EmbeddingFormat = request.layout  # type: ignore[assignment]  # the workshop refuses others
    written = edits.split(request.file, request.folder, layout=layout, overwrite=request.overwrite)
    embeddings = "are for HCP-Diffusion" if layout == "hcp" else "go into the embeddings folder"
    return Written(tuple(written), f"{len(written)} files are in {request.folder}: embedding files {embeddings}.")


def convert(request: Convert, host: BundleHost | None = None) -> Written:
    """The network without its embeddings in another program's layout."""
    layout = checked_layout(request.layout)
    shape = (host or NoHost()).unet_shape(request.file)
    out = request.out if layout == "peft" else _legal(request.out)  # peft's is a folder, which no prompt names
    path = edits.convert(request.file, out, layout=layout, shape=shape, overwrite=request.overwrite)
    return Written((path,), f"Written: {path}. It holds the network; Split writes its embeddings.")


def cut(request: CutRanks, host: BundleHost | None = None) -> Written:
    """A DyLoRA's first ranks, its embeddings unchanged; nothing of them is lost.

    Raises:
        BundleError: it is no DyLoRA, or cannot be cut there.
    """
    path = cut_to_first_ranks(request.file, _legal(request.out), rank=request.rank, overwrite=request.overwrite)
    return _changed(host, path, f"Written: {path.name}, the first {request.rank} ranks.")


def extract(request: Extract, host: BundleHost | None = None, progress: svd.Progress | None = None) -> Reduced:
    """A checkpoint minus its base as a LoRA.

    Raises:
        BundleError: the two do not go together, or nothing differs.
    """
    report = svd.extract(
        request.tuned,
        request.base,
        _legal(request.out),
        cut=request.cut,
        dtype=request.dtype,
        overwrite=request.overwrite,
        progress=progress,
    )
    return _reduced(host, report)


def resize(request: Resize, host: BundleHost | None = None, progress: svd.Progress | None = None) -> Reduced:
    """A LoRA at a lower rank, its embeddings unchanged.

    Raises:
        BundleError: the file holds another kind of network, or none.
    """
    out = _legal(request.out)
    report = svd.resize(request.file, out, cut=request.cut, overwrite=request.overwrite, progress=progress)
    return _reduced(host, report)


def to_lora(request: ToLora, host: BundleHost | None = None, progress: svd.Progress | None = None) -> Reduced:
    """A network of any kind as a LoRA, its embeddings unchanged.

    Raises:
        BundleError: it is a LoRA already, or needs the checkpoint that it is for.
    """
    report = svd.to_lora(
        request.file,
        _legal(request.out),
        cut=request.cut,
        base=request.base,
        overwrite=request.overwrite,
        progress=progress,
    )
    return _reduced(host, report)


# ---- names and places of new files ----


def beside(file: Path, name: str) -> Path:
    """The new file of that name beside `file`.

    Raises:
        FileNameError: no file may be called so.
    """
    return file.with_name(f"{checked_name(name.removesuffix(SUFFIX), 'the new file')}{SUFFIX}")


def copy_without(file: Path, parts: Iterable[str]) -> Path:
    """A free name for a copy without parts, beside `file`."""
    return free(file.with_name(f"{file.stem}-without-{'-'.join(sorted(parts))}{SUFFIX}"))


def copy_of_rank(file: Path, rank: int) -> Path:
    """A free name for a copy of a lower rank, beside `file`."""
    return free(file.with_name(f"{file.stem}-r{rank}{SUFFIX}"))


def converted(file: Path, layout: str, *, folder: Path) -> Path:
    """Where `convert` writes into a folder, which is made.

    Raises:
        BundleError: there is no such layout.
    """
    ending = "" if checked_layout(layout) == "peft" else SUFFIX
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{file.stem}-{layout}{ending}"


def checked_layout(layout: str) -> Layout:
    """The layout of a network by its name, which becomes a part of a file's.

    Raises:
        BundleError: there is none of that name.
    """
    found = next((known for known in LAYOUTS if known == layout), None)
    if found is None:
        raise BundleError(f"there is no layout {layout!r}; choose from {', '.join(LAYOUTS)}")
    return found


def free(path: Path) -> Path:
    """The path itself, or with a number behind its name, whichever is not there yet."""
    number, found = 1, path
    while found.exists():
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found


def _where(file: Path, out: Path | None, *, overwrite: bool) -> dict[str, Any]:
    """`out` and `overwrite` of the workshop's verbs."""
    return {"out": None if out is None or out == file else _legal(out), "overwrite": overwrite}


def _legal(out: Path) -> Path:
    checked_name(out.name.removesuffix(SUFFIX), "the new file")
    return out


def _demand(chosen: Iterable[str | Path], told: str) -> None:
    names = list(chosen)
    if not names or "" in names:
        raise BundleError(told)


def _names(embeddings: Sequence[str]) -> str:
    return f"{', '.join(embeddings)} {'was' if len(embeddings) == 1 else 'were'}"


def _changed(host: BundleHost | None, path: Path, said: str) -> Written:
    (host or NoHost()).bundle_saved(path)
    return Written((path,), said)


def _reduced(host: BundleHost | None, report: svd.SvdReport) -> Reduced:
    (host or NoHost()).bundle_saved(report.path)
    return Reduced((report.path,), f"Written: {report.path.name}: {report}", report)
