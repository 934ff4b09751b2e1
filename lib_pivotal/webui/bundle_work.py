"""`commands.bundles` on files that the web UI lists: which file a name means, and what its own loader says of it.

Files are named as in tags; a new one lies beside the old. Whatever was written, the web UI forgets its copies of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from modules import paths

from lib_pivotal.bundle.low_rank import RankCut
from lib_pivotal.commands import bundles as work
from lib_pivotal.commands import cards
from lib_pivotal.commands.bundles import Shown, Verdict, Written
from lib_pivotal.embeddings.adjustment import EmbeddingAdjustment
from lib_pivotal.errors import BundleError
from lib_pivotal.webui import catalog
from lib_pivotal.webui.jobs import run_manager

EXPORTS = "pivotal_exports"
"""Folder below the web UI's data folder for what `split` and `convert` write: no LoRA of it is listed."""


def path_of(name: str) -> Path:
    """The file of a LoRA by its name or alias. BundleError where there is none."""
    entry = catalog.find_on_disk(name)
    if entry is None:
        raise BundleError(f"no LoRA file named {name!r}; its name is that in <lora:name:1>, without .safetensors")
    return Path(entry.filename)


def rename(name: str, renames: Mapping[str, str], *, new_name: str | None = None, overwrite: bool = False) -> Written:
    """Give embeddings other names."""
    path = path_of(name)
    return work.rename(work.Rename(path, renames, out=_out(path, new_name), overwrite=overwrite), _host())


def delete(name: str, embeddings: Sequence[str], *, new_name: str | None = None, overwrite: bool = False) -> Written:
    """Take embeddings out."""
    path = path_of(name)
    return work.delete(work.Delete(path, embeddings, out=_out(path, new_name), overwrite=overwrite), _host())


def add(name: str, embeddings: Sequence[str], *, new_name: str | None = None, overwrite: bool = False) -> Written:
    """Put files of the embeddings folder in."""
    from modules import shared

    folder = Path(shared.cmd_opts.embeddings_dir)
    files = [_inside(folder, embedding) for embedding in embeddings]
    path = path_of(name)
    return work.add(work.Add(path, files, out=_out(path, new_name), overwrite=overwrite), _host())


def adjust(
    name: str,
    adjustments: Mapping[str, Mapping[str, float]],
    *,
    new_name: str | None = None,
    overwrite: bool = False,
) -> Written:
    """Write embeddings with another norm and direction: `{"hana": {"norm": 0.5, "init_share": 0.2}}`."""
    path, found = path_of(name), {one: EmbeddingAdjustment(**numbers) for one, numbers in adjustments.items()}
    return work.adjust(work.Adjust(path, found, out=_out(path, new_name), overwrite=overwrite), _host())


def join(
    names: Sequence[str], new_name: str, *, weights: Sequence[float] | None = None, overwrite: bool = False
) -> Written:
    """Several files into one beside the first; `weights` one a file."""
    files = [path_of(name) for name in names]
    if not files:
        raise BundleError("join: name at least two files")
    return work.join(work.Join(files, work.beside(files[0], new_name), weights=weights, overwrite=overwrite), _host())


def strip(name: str, parts: Sequence[str], *, new_name: str | None = None, overwrite: bool = False) -> Written:
    """Take U-Net, text encoder, embeddings or metadata away."""
    path = path_of(name)
    return work.strip(work.Strip(path, parts, out=_out(path, new_name), overwrite=overwrite), _host())


def split(name: str, layout: str = "a1111", *, overwrite: bool = False) -> Written:
    """A LoRA without embeddings and one file for each embedding, in the folder of exports."""
    path = path_of(name)
    return work.split(work.Split(path, _exports(path), layout=layout, overwrite=overwrite))


def convert(name: str, layout: str, *, overwrite: bool = False) -> Written:
    """The network in another layout, in the folder of exports."""
    path = path_of(name)
    out = work.converted(path, layout, folder=_exports(path))
    return work.convert(work.Convert(path, out, layout=layout, overwrite=overwrite), _host())


def extract(
    checkpoint: str,
    base: str,
    new_name: str,
    *,
    rank: int = 0,
    conv_rank: int = 0,
    rule: str = "rank",
    value: float = 0.0,
    dtype: str = "fp16",
    overwrite: bool = False,
) -> Written:
    """A checkpoint minus its base as a LoRA in the LoRA folder; both are named as in the web UI's list."""
    out = work.beside(run_manager().backend.lora_folder() / "any", new_name or "")
    cut = RankCut(rank, rule, value, conv_rank)
    tuned, before = _checkpoint(checkpoint), _checkpoint(base)
    return work.extract(work.Extract(tuned, before, out, cut=cut, dtype=dtype, overwrite=overwrite), _host())


def cut(name: str, new_name: str, *, rank: int, overwrite: bool = False) -> Written:
    """A DyLoRA's first ranks, beside the whole one."""
    path = path_of(name)
    return work.cut(work.CutRanks(path, work.beside(path, new_name or ""), rank=rank, overwrite=overwrite), _host())


def resize(
    name: str,
    new_name: str,
    *,
    rank: int = 0,
    conv_rank: int = 0,
    rule: str = "rank",
    value: float = 0.0,
    overwrite: bool = False,
) -> Written:
    """A LoRA at a lower rank, beside the old one."""
    path = path_of(name)
    cut = RankCut(rank, rule, value, conv_rank)
    return work.resize(work.Resize(path, work.beside(path, new_name or ""), cut=cut, overwrite=overwrite), _host())


def to_lora(
    name: str,
    new_name: str,
    *,
    base: str | None = None,
    rank: int = 0,
    conv_rank: int = 0,
    rule: str = "rank",
    value: float = 0.0,
    overwrite: bool = False,
) -> Written:
    """A network of any kind as a LoRA, beside the old file; `base` is its checkpoint in the web UI's list."""
    path = path_of(name)
    cut = RankCut(rank, rule, value, conv_rank)
    checkpoint = None if base is None else _checkpoint(base)
    request = work.ToLora(path, work.beside(path, new_name or ""), cut=cut, base=checkpoint, overwrite=overwrite)
    return work.to_lora(request, _host())


def show(name: str) -> Shown:
    """Everything that a file's header tells."""
    return work.show(path_of(name))


def verify(name: str) -> Verdict:
    """Every problem of a file, and what the web UI's own loader makes of it with this checkpoint."""
    return work.verify(path_of(name), _host())


def describe(
    name: str,
    *,
    description: str | None = None,
    licence: str | None = None,
    unet: float | None = None,
    te: float | None = None,
    cfg: float | None = None,
) -> Written:
    """Write the result card into a file, and what its card in the web UI shows."""
    request = cards.Describe(path_of(name), description=description, licence=licence, unet=unet, te=te, cfg=cfg)
    return cards.describe(request, _host(), runs_folder=run_manager().backend.runs_folder())


def export(name: str, *, overwrite: bool = False) -> Written:
    """A model page with its pictures, in the folder of exports."""
    path = path_of(name)
    request = cards.Export(path, _exports(path), overwrite=overwrite)
    return cards.export(request, runs_folder=run_manager().backend.runs_folder())


def _host() -> work.BundleHost:
    return run_manager().backend


def _checkpoint(name: str) -> Path:
    from modules import sd_models

    found = sd_models.get_closet_checkpoint_match(name)
    if found is None:
        raise BundleError(f"{name}: the web UI lists no such checkpoint; name it as in its list")
    return Path(found.filename)


def _out(path: Path, new_name: str | None) -> Path | None:
    return None if new_name is None else work.beside(path, new_name)


def _exports(path: Path) -> Path:
    return Path(paths.data_path) / EXPORTS / path.stem


def _inside(folder: Path, name: str) -> Path:
    found = next((path for path in sorted(folder.rglob("*")) if name in (path.name, path.stem)), None)
    if found is None:
        raise BundleError(f"no embedding named {name!r} in {folder.name}/")
    return found


VERBS: Mapping[str, Callable[..., Written | Verdict | Shown]] = MappingProxyType(
    {
        "rename": rename,
        "delete": delete,
        "add": add,
        "adjust": adjust,
        "join": join,
        "strip": strip,
        "split": split,
        "convert": convert,
        "cut": cut,
        "extract": extract,
        "resize": resize,
        "to_lora": to_lora,
        "describe": describe,
        "export": export,
        "show": show,
        "verify": verify,
    }
)
"""By the name of the route; the arguments are the fields of the request."""
