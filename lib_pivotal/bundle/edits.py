"""Work on bundle files: rename, join, split, strip, convert, add and delete embeddings.

Every function reads a file, makes a new content and writes it with `write_bundle`: tensors keep their dtype and bits,
metadata is kept, hashes are computed anew. `out=None` replaces the file itself, in one step; another file that is there
already is only replaced with `overwrite`. A file of which a part cannot be read is refused (the part would be lost)
unless `drop_broken` says that this is wanted.

A network as peft keeps it is a folder a model, with `adapter_model.safetensors` and `adapter_config.json`. The tensors
are the same, bit for bit; ranks and alphas go into the config, layer by layer where they differ. What the config has no
place for (which text encoder, the dtype of the alphas) is noted in the metadata, so that the way back gives the same
file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from lib_pivotal.bundle.adapter_config import CONFIG_FILE, config_for, without_parts
from lib_pivotal.bundle.dtypes import same_values
from lib_pivotal.bundle.embedding_files import SUFFIXES, EmbeddingFormat, file_name, write_embedding
from lib_pivotal.bundle.foreign import alpha_dtype, for_kohya, kohya_network, parts_by_key, standard_shape
from lib_pivotal.bundle.format import META_ALPHA_DTYPE, META_EMBEDDINGS, META_PART, EmbeddingTensors
from lib_pivotal.bundle.joining import join_conflicts, join_networks, weighted
from lib_pivotal.bundle.layer_names import UnetShape
from lib_pivotal.bundle.listing import rank_metadata
from lib_pivotal.bundle.metadata import embedding_facts, read_json, with_embedding_facts
from lib_pivotal.bundle.network_layouts import DIFFUSERS_PREFIXES, for_webui, is_kohya, to_diffusers, to_peft
from lib_pivotal.bundle.network_places import recognise
from lib_pivotal.bundle.reader import Bundle, read_bundle, require
from lib_pivotal.bundle.writer import write_bundle
from lib_pivotal.errors import BundleError
from lib_pivotal.file_names import refuse_taken
from lib_pivotal.files import replacing
from lib_pivotal.ports import PARTS

Strippable = Literal["unet", "te", "te2", "words", "metadata"]
STRIPPABLE: tuple[Strippable, ...] = ("unet", "te", "te2", "words", "metadata")
Layout = Literal["kohya", "diffusers", "peft"]
LAYOUTS: tuple[Layout, ...] = ("kohya", "diffusers", "peft")

_MINIMUM = ("ss_v2", "ss_base_model_version", "ss_network_module", "ss_network_dim", "ss_network_alpha")
"""What kohya keeps even without metadata: readers need it to tell the model's family."""


def rename_embeddings(
    path: str | Path,
    renames: Mapping[str, str],
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    drop_broken: bool = False,
) -> Path:
    """Give embeddings other names, all at once (so two can be swapped). Nothing else changes, bit for bit."""
    target = _target(path, out, overwrite=overwrite)
    bundle = _read(path, drop_broken=drop_broken)
    _demand(bundle, renames)
    names = [renames.get(name, name) for name in bundle.embeddings]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BundleError(f"{path}: two embeddings would have the same name: {', '.join(twice)}. Choose another.")
    embeddings = dict(zip(names, bundle.embeddings.values(), strict=True))
    facts = {renames.get(name, name): value for name, value in embedding_facts(bundle.metadata).items()}
    return _write(target, bundle, embeddings=embeddings, metadata=with_embedding_facts(bundle.metadata, facts))


def delete_embeddings(
    path: str | Path,
    names: Iterable[str],
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    drop_broken: bool = False,
) -> Path:
    """Take embeddings out of a bundle."""
    target = _target(path, out, overwrite=overwrite)
    bundle, gone = _read(path, drop_broken=drop_broken), set(names)
    _demand(bundle, gone)
    embeddings = {name: vectors for name, vectors in bundle.embeddings.items() if name not in gone}
    return _write(target, bundle, embeddings=embeddings, metadata=_facts_of(bundle.metadata, embeddings))


def add_embeddings(
    path: str | Path,
    embeddings: Mapping[str, EmbeddingTensors],
    *,
    facts: Mapping[str, Mapping[str, Any]] | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    replace: bool = False,
    drop_broken: bool = False,
) -> Path:
    """Put embeddings into a bundle (or a plain LoRA). `replace` allows names that are there already."""
    target = _target(path, out, overwrite=overwrite)
    bundle = _read(path, drop_broken=drop_broken)
    taken = sorted(set(embeddings) & set(bundle.embeddings))
    if taken and not replace:
        raise BundleError(f"{path}: already holds {', '.join(taken)}. Rename them, or replace them on purpose.")
    merged = {**bundle.embeddings, **embeddings}
    known = {**embedding_facts(bundle.metadata), **(facts or {})}
    told = {name: known.get(name, {"vectors": int(vectors[0].shape[0])}) for name, vectors in merged.items()}
    return _write(target, bundle, embeddings=merged, metadata=with_embedding_facts(bundle.metadata, told))


def strip(
    path: str | Path,
    parts: Iterable[Strippable],
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    drop_broken: bool = False,
) -> Path:
    """Take parts away: the U-Net's or a text encoder's network, the embeddings, or the metadata (but kohya's
    minimum)."""
    target = _target(path, out, overwrite=overwrite)
    gone = set(parts)
    if unknown := sorted(gone - set(STRIPPABLE)):
        raise BundleError(f"cannot strip {', '.join(unknown)}; choose from {', '.join(STRIPPABLE)}")
    bundle = _read(path, drop_broken=drop_broken)
    of = parts_by_key(bundle)
    if bundle.network and gone & set(PARTS) and not any(of.values()):
        raise BundleError(f"{path}: nothing can be stripped: {recognise(bundle.network).refusal}")
    network = {key: tensor for key, tensor in bundle.network.items() if of[key] not in gone}
    embeddings = {} if "words" in gone else bundle.embeddings
    models = frozenset(DIFFUSERS_PREFIXES[part] for part in PARTS if part in gone)
    metadata = without_parts(_facts_of(bundle.metadata, embeddings), models)
    if "metadata" in gone:
        metadata = {key: value for key, value in metadata.items() if key in _MINIMUM}
    return _write(target, bundle, network=network, embeddings=embeddings, metadata=metadata)


def split(
    path: str | Path,
    folder: str | Path,
    *,
    layout: EmbeddingFormat = "a1111",
    overwrite: bool = False,
    drop_broken: bool = False,
) -> list[Path]:
    """Take a bundle apart: `<stem>-lora.safetensors` without embeddings, and one embedding file an embedding."""
    _demand_layout(layout, tuple(SUFFIXES))
    bundle, folder = _read(path, drop_broken=drop_broken), Path(folder)
    names = {
        name: file_name(name, layout) for name in bundle.embeddings
    }  # every name is checked before anything is written
    network = [f"{Path(path).stem}-lora.safetensors"] if bundle.network else []
    lower = [name.lower() for name in (*network, *names.values())]
    if twice := sorted({name for name in lower if lower.count(name) > 1}):
        raise BundleError(f"{path}: two of its parts would be one file, {', '.join(twice)}. Rename an embedding first.")
    refuse_taken([folder / name for name in (*network, *names.values())], overwrite=overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in network:
        written.append(_write(folder / name, bundle, embeddings={}, metadata=_facts_of(bundle.metadata, {})))
    for name, vectors in bundle.embeddings.items():
        written.append(write_embedding(folder / names[name], vectors, name=name, layout=layout))
    return written


def join(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    weights: Sequence[float] | None = None,
    overwrite: bool = False,
    drop_broken: bool = False,
) -> Path:
    """One bundle with the embeddings of all and the sum of their networks (exact; ranks add up).

    BundleError lists every conflict: embeddings of the same name with other vectors, layers that cannot be summed,
    other model families. Rename embeddings first where they collide.
    """
    refuse_taken([Path(out)], overwrite=overwrite)
    if len(paths) < 2:
        raise BundleError(f"joining needs at least two files, got {len(paths)}")
    strengths = list(weights) if weights is not None else [1.0] * len(paths)
    if len(strengths) != len(paths):
        raise BundleError(f"{len(paths)} files but {len(strengths)} weights; give one weight a file")
    bundles = [_read(path, drop_broken=drop_broken) for path in paths]
    networks = [kohya_network(bundle) for bundle in bundles]
    conflicts: list[str] = []
    network, stuck = weighted(networks[0], strengths[0])
    conflicts += stuck
    embeddings = dict(bundles[0].embeddings)
    for bundle, own, strength in zip(bundles[1:], networks[1:], strengths[1:], strict=True):
        other, stuck = weighted(own, strength)
        found = [*stuck, *_embedding_conflicts(embeddings, bundle.embeddings), *join_conflicts(network, other)]
        conflicts += [f"{bundle.path}: {conflict}" for conflict in found]
        if not conflicts:
            network = join_networks(network, other)
            embeddings |= bundle.embeddings
    if conflicts:
        lines = "\n".join(f"  - {conflict}" for conflict in conflicts)
        raise BundleError(f"the bundles cannot be joined, {len(conflicts)} conflict(s):\n{lines}")
    metadata = _joined_metadata(bundles, network, name=Path(out).stem)
    return write_bundle(out, network=network, embeddings=embeddings, metadata=metadata, dtype=None)


def convert(
    path: str | Path,
    out: str | Path,
    *,
    layout: Layout,
    shape: UnetShape | None = None,
    overwrite: bool = False,
    drop_broken: bool = False,
) -> Path:
    """The network without embeddings in another layout, with the same effect.

    `kohya`: a LoRA as kohya's scripts write it, also from a diffusers file; with `shape`, under the names by which the
    web UI finds that U-Net's layers. `diffusers`: for `load_lora_weights`. `peft`: a folder with one adapter a model,
    for `PeftModel.from_pretrained`. Those two need to know the U-Net where layers are numbered as in compvis; SDXL's
    is taken where the file says SDXL.
    """
    _demand_layout(layout, LAYOUTS)
    files = [Path(out)] if layout != "peft" else _peft_files(Path(out))
    refuse_taken(files, overwrite=overwrite)
    bundle = _read(path, drop_broken=drop_broken)
    was_kohya = is_kohya(bundle.network)
    network = kohya_network(bundle, shape=shape)
    metadata = for_kohya(_facts_of(bundle.metadata, {}))
    if layout == "kohya":
        named = shape or (standard_shape(network, "sdxl") if bundle.family == "sdxl" else None)
        if was_kohya and named is not None:
            network = for_webui(network, named)
        return _write(out, bundle, network=network, embeddings={}, metadata=metadata)
    shape = shape or standard_shape(network, bundle.family)
    if layout == "diffusers":
        return _write(out, bundle, network=to_diffusers(network, shape=shape), embeddings={}, metadata=metadata)
    return write_peft(Path(out), network, shape=shape, metadata=metadata)


def _target(path: str | Path, out: str | Path | None, *, overwrite: bool) -> Path:
    """The file itself, or another one, which must not be there unless it may be replaced."""
    target = Path(out or path)
    if out is not None and target.resolve() != Path(path).resolve():
        refuse_taken([target], overwrite=overwrite)
    return target


def _demand_layout(layout: str, known: Sequence[str]) -> None:
    if layout not in known:
        raise BundleError(f"there is no layout {layout!r}; choose from {', '.join(known)}")


def _peft_files(folder: Path) -> list[Path]:
    names = ("adapter_model.safetensors", "adapter_config.json")
    return [folder / prefix / name for prefix in DIFFUSERS_PREFIXES.values() for name in names]


def _read(path: str | Path, *, drop_broken: bool) -> Bundle:
    bundle = read_bundle(path)
    return bundle if drop_broken else require(bundle)


def _write(
    out: str | Path,
    bundle: Bundle,
    *,
    embeddings: Mapping[str, EmbeddingTensors],
    metadata: Mapping[str, str],
    network: Mapping[str, Tensor] | None = None,
) -> Path:
    kept = bundle.network if network is None else network
    return write_bundle(out, network=kept, embeddings=embeddings, metadata=metadata, dtype=None)


def _demand(bundle: Bundle, names: Iterable[str]) -> None:
    missing = sorted(set(names) - set(bundle.embeddings))
    if missing:
        there = ", ".join(bundle.embeddings) or "none"
        raise BundleError(f"{bundle.path}: has no embedding {', '.join(map(repr, missing))}; its embeddings: {there}")


def _facts_of(metadata: Mapping[str, str], embeddings: Mapping[str, EmbeddingTensors]) -> dict[str, str]:
    """The metadata, with `pivotal.words` cut down to these embeddings."""
    facts = {name: value for name, value in embedding_facts(metadata).items() if name in embeddings}
    return with_embedding_facts(metadata, facts) if META_EMBEDDINGS in metadata else dict(metadata)


def _embedding_conflicts(
    embeddings: Mapping[str, EmbeddingTensors], others: Mapping[str, EmbeddingTensors]
) -> list[str]:
    conflicts = []
    by_case = {name.lower(): name for name in embeddings}
    for name, vectors in others.items():
        twin = by_case.get(name.lower())
        if twin is None:
            continue
        same = len(vectors) == len(embeddings[twin]) and all(
            same_values(a, b) for a, b in zip(vectors, embeddings[twin], strict=True)
        )
        if twin != name or not same:
            conflicts.append(f"embedding {name!r} is there already with other vectors; rename one of them")
    return conflicts


def _joined_metadata(bundles: Sequence[Bundle], network: Mapping[str, Tensor], *, name: str) -> dict[str, str]:
    """The first file's metadata; tables of all files merged; rank and name as they are now."""
    metadata = for_kohya(bundles[0].metadata)
    for key in ("ss_tag_frequency", "ss_dataset_dirs", META_EMBEDDINGS):
        merged = {inner: value for bundle in bundles for inner, value in read_json(bundle.metadata, key).items()}
        if merged:
            metadata[key] = json.dumps(merged, ensure_ascii=False)
    titles = [bundle.metadata.get("modelspec.title") or Path(bundle.path or "").stem for bundle in bundles]
    metadata |= {"ss_output_name": name, "modelspec.title": name, "modelspec.merged_from": ", ".join(titles)}
    metadata |= rank_metadata(network)
    return with_embedding_facts(metadata, embedding_facts(metadata))


MODEL_FILE = "adapter_model.safetensors"


def write_peft(
    folder: Path, network: Mapping[str, Tensor], *, shape: UnetShape | None, metadata: Mapping[str, str]
) -> Path:
    """Write a kohya network below `folder`: `unet/`, `text_encoder/`, `text_encoder_2/`, those that it has."""
    noted, models = alpha_dtype(network), to_peft(network, shape=shape)
    if not models:
        raise BundleError(f"{folder}: the file holds no network, so there is nothing to convert")
    for part, model in models.items():
        target = folder / DIFFUSERS_PREFIXES[part]
        tensors = {f"base_model.model.{key}": tensor for key, tensor in model.tensors.items()}
        told = {**metadata, META_PART: part, **({META_ALPHA_DTYPE: noted} if noted else {})}
        dora = any(key.endswith("lora_magnitude_vector") for key in tensors)
        config = json.dumps(config_for(model.ranks, model.alphas, dora=dora), indent=2)
        try:
            target.mkdir(parents=True, exist_ok=True)
            write_bundle(target / MODEL_FILE, network=tensors, embeddings={}, metadata=told, dtype=None)
            with replacing(target / CONFIG_FILE) as temporary:
                temporary.write_text(config + "\n", encoding="utf-8")
        except OSError as error:
            raise BundleError(f"{target}: cannot be written: {error.strerror or error}") from error
    return folder
