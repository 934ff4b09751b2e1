"""Work on LoRA files from inside the web UI: the workshop's verbs on files that it lists, and what its own loader says.

Files are named as in tags; a new one lies beside the old, and takes no other's place unless `overwrite` says so.
Whatever is written was read back before it took its place, and the web UI forgets its copies of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from modules import call_queue, paths

from lib_pivotal.bundle import workshop
from lib_pivotal.bundle.embedding_files import EmbeddingFormat, read_embedding
from lib_pivotal.bundle.format import Problem, family_of_widths
from lib_pivotal.bundle.layer_names import UnetShape
from lib_pivotal.bundle.verify import verify as verify_file
from lib_pivotal.errors import BundleError
from lib_pivotal.file_names import checked_name
from lib_pivotal.webui import bundles, catalog, compat, freshness
from lib_pivotal.webui.state import resolver

EXPORTS = "pivotal_exports"
"""Folder below the web UI's data folder for what `split` and `convert` write: no LoRA of it is listed."""

T = TypeVar("T")


def path_of(name: str) -> Path:
    """The file of a LoRA by its name or alias. BundleError where there is none."""
    entry = catalog.find_on_disk(name)
    if entry is None:
        raise BundleError(f"no LoRA file named {name!r}; its name is that in <lora:name:1>, without .safetensors")
    return Path(entry.filename)


def beside(path: Path, new_name: str | None) -> Path:
    """The file itself, or a new one of that name beside it. FileNameError for a name that no file may have."""
    if new_name is None:
        return path
    name = checked_name(new_name.removesuffix(".safetensors"), "the new file")
    return path.with_name(f"{name}.safetensors")


def _out(path: Path, new_name: str | None, *, overwrite: bool) -> dict[str, Any]:
    """`out` and `overwrite` of the workshop's verbs: without a new name the file itself is changed."""
    return {"out": None if new_name is None else beside(path, new_name), "overwrite": overwrite}


def rename(name: str, renames: Mapping[str, str], *, new_name: str | None = None, overwrite: bool = False) -> Path:
    """Give words other names."""
    path = path_of(name)
    return _written(workshop.rename_words(path, renames, **_out(path, new_name, overwrite=overwrite)))


def delete(name: str, words: Sequence[str], *, new_name: str | None = None, overwrite: bool = False) -> Path:
    """Take words away."""
    path = path_of(name)
    return _written(workshop.delete_words(path, words, **_out(path, new_name, overwrite=overwrite)))


def add(name: str, embeddings: Sequence[str], *, new_name: str | None = None, overwrite: bool = False) -> Path:
    """Add words from files of the embeddings folder, each under its file's name."""
    from modules import shared

    folder = Path(shared.cmd_opts.embeddings_dir)
    read = [read_embedding(_inside(folder, embedding)) for embedding in embeddings]
    path = path_of(name)
    words = {embedding.name.lower(): embedding.vectors for embedding in read}
    return _written(workshop.add_words(path, words, **_out(path, new_name, overwrite=overwrite)))


def join(names: Sequence[str], new_name: str, *, overwrite: bool = False) -> Path:
    """Several files into one, words and networks."""
    files = [path_of(name) for name in names]
    if not files:
        raise BundleError("join: name at least two files")
    return _written(workshop.join(files, beside(files[0], new_name), overwrite=overwrite))


def strip(name: str, parts: Sequence[Any], *, new_name: str | None = None, overwrite: bool = False) -> Path:
    """Take U-Net, text encoder, words or metadata away."""
    path = path_of(name)
    return _written(workshop.strip(path, parts, **_out(path, new_name, overwrite=overwrite)))


def split(name: str, layout: EmbeddingFormat = "a1111", *, overwrite: bool = False) -> list[Path]:
    """A LoRA without words and one embedding file a word, in the folder of exports."""
    path = path_of(name)
    return workshop.split(path, _exports(path), layout=layout, overwrite=overwrite)


def convert(name: str, layout: Any, *, overwrite: bool = False) -> Path:
    """Another layout, in the folder of exports."""
    path = path_of(name)
    if layout not in workshop.LAYOUTS:  # it becomes a part of the file's name
        raise BundleError(f"there is no layout {layout!r}; choose from {', '.join(workshop.LAYOUTS)}")
    folder = _exports(path)
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / f"{path.stem}-{layout}{'' if layout == 'peft' else '.safetensors'}"
    return workshop.convert(path, out, layout=layout, shape=unet_shape(path), overwrite=overwrite)


def unet_shape(path: Path) -> UnetShape | None:
    """The blocks of the loaded checkpoint's U-Net, if the file is for its family; else None."""
    model = compat.loaded_model()
    seen = catalog.catalog.look(path)
    widths = bundles.model_widths() if model is not None else ()
    if not widths or isinstance(seen, str) or seen.family not in ("unknown", family_of_widths(widths)):
        return None
    return UnetShape.from_compvis_paths(f"{name}." for name, _ in model.model.diffusion_model.named_modules())


def verify(name: str) -> list[Problem]:
    """Every problem of a file, and what the web UI's own loader makes of it with this checkpoint."""
    return [*verify_file(path_of(name)), *stock_loader_says(name)]


def stock_loader_says(name: str) -> list[Problem]:
    """Read the file with `networks.load_network` as v1.10.1 has it: what it refuses, which names it would know."""
    entry = catalog.find_on_disk(name)
    original = next((patch.original for patch in resolver.patches.applied if patch.name == "load_network"), None)
    if entry is None or original is None:
        return []
    described = catalog.describe(entry)
    ours = {word["name"] for word in described["words"]}
    with call_queue.queue_lock:
        try:
            net = original(entry.name, entry)
        except Exception as error:
            what = f"a web UI without this extension refuses the whole file: {error or type(error).__name__}"
            dotted = ", ".join(sorted(name for name in ours if "." in name))
            mend = f"rename {dotted} without a dot" if dotted else "fix it"
            return [Problem("warning", what, f"With it, the file works; for others {mend}.")]
    odd = sorted(ours ^ set(net.bundle_embeddings))
    problems = []
    if odd:
        what = (
            f"a web UI without this extension knows other names: {', '.join(sorted(net.bundle_embeddings)) or 'none'}"
        )
        problems.append(Problem("warning", what, f"Rename {', '.join(sorted(ours & set(odd)))}."))
    if described["parts"] and not net.modules:
        problems.append(Problem("warning", "no layer of its network fits the checkpoint that is loaded"))
    return problems


def _exports(path: Path) -> Path:
    return Path(paths.data_path) / EXPORTS / path.stem


def _inside(folder: Path, name: str) -> Path:
    found = next((path for path in sorted(folder.rglob("*")) if name in (path.name, path.stem)), None)
    if found is None:
        raise BundleError(f"no embedding named {name!r} in {folder.name}/")
    return found


def _written(path: Path) -> Path:
    freshness.forget_lora_file(path)
    return path


VERBS: Mapping[str, Callable[..., Any]] = {
    "rename": rename,
    "delete": delete,
    "add": add,
    "join": join,
    "strip": strip,
    "split": split,
    "convert": convert,
}
"""What writes, by the name of its route; the arguments are the fields of the request."""
