"""Is this file what it should be? Everything that can be said of a bundle without a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from lib_pivotal.bundle.format import (
    BUNDLE_PREFIX,
    META_EMBEDDINGS,
    META_LEGACY_HASH,
    META_MODEL_HASH,
    META_TRAINING_PREFIX,
    SDXL_TENSORS,
    Problem,
    parse_embedding_key,
)
from lib_pivotal.bundle.hashes import data_hash, kohya_hashes
from lib_pivotal.bundle.metadata import embedding_facts
from lib_pivotal.bundle.network_layouts import group_layers, misfits
from lib_pivotal.bundle.network_places import Recognition, place_of, recognise
from lib_pivotal.bundle.reader import Bundle, read_bundle
from lib_pivotal.bundle.safetensors_file import read_header, read_tensors
from lib_pivotal.embedding_names import warn_embedding_name
from lib_pivotal.errors import BundleError

_FORGE_LIMIT = 12


def verify(path: str | Path) -> list[Problem]:
    """Every problem of a bundle file, worst first; empty when all is well. Never raises for a bad file."""
    try:
        bundle = read_bundle(path)
        problems = [*bundle.problems, *_check_embeddings(bundle), *_check_network(bundle.network)]
        if Path(path).suffix == ".safetensors":
            problems += [*_check_hashes(Path(path), bundle), *_check_stock_reader(Path(path)), *_check_metadata(bundle)]
    except BundleError as error:
        return [Problem("error", str(error))]
    return sorted(problems, key=lambda problem: problem.severity)


def _check_embeddings(bundle: Bundle) -> list[Problem]:
    problems = [
        Problem("warning", f"its name {reason}", "Rename it.", embedding=name)
        for name in bundle.embeddings
        for reason in warn_embedding_name(name)
    ]
    widths = {tuple(tower.shape[1] for tower in towers) for towers in bundle.embeddings.values()}
    if len(widths) > 1:
        told = ", ".join(sorted("+".join(map(str, pair)) for pair in widths))
        problems.append(Problem("error", f"embeddings of different models in one file (widths {told})"))
    count = sum(len(towers) for towers in bundle.embeddings.values())
    if count > _FORGE_LIMIT:
        what = (
            f"{count} embedding tensors; Forge refuses a LoRA with more than {_FORGE_LIMIT} keys that it does "
            "not know"
        )
        problems.append(Problem("warning", what, "For Forge, split the bundle."))
    return problems


def _check_network(network: Mapping[str, Tensor]) -> list[Problem]:
    seen = recognise(network)
    what = "belongs to no known part of the model, or is no tensor of a LoRA"
    unknown = [] if seen.instead else [Problem("warning", what, key=key) for key in seen.unknown]
    return [*_check_layout(seen), *_check_layers(network), *unknown]


def _check_layout(seen: Recognition) -> list[Problem]:
    """Whether the web UI finds the layers by their names, and if not, whether `convert` can help."""
    if seen.instead:
        return [Problem("error", f"no LoRA that the web UI can use: {seen.refusal}")]
    if seen.unknown and not seen.places:
        return [Problem("error", f"no layer of the network can be found: {seen.refusal}")]
    if all(layout == "kohya" for layout in seen.layouts):
        return []
    what = f"the network is not in kohya's layout but in {seen.title}; the web UI finds layers by kohya's names"
    if seen.unknown:
        return [Problem("warning", what, "It cannot be converted while it has keys of no known layout.")]
    return [Problem("warning", what, "Convert it to kohya's.")]


def _check_layers(network: Mapping[str, Tensor]) -> list[Problem]:
    problems = []
    known = {key: tensor for key, tensor in network.items() if (place := place_of(key)) and place.layout == "kohya"}
    for name, layer in group_layers(known).items():
        problems += [Problem("error", reason, key=name) for reason in misfits(layer)]
    return problems


def _check_hashes(path: Path, bundle: Bundle) -> list[Problem]:
    remedy = "Write the file again (rename, strip or convert do) to correct it."
    stated, legacy = bundle.metadata.get(META_MODEL_HASH), bundle.metadata.get(META_LEGACY_HASH)
    actual = data_hash(path)
    if stated is not None and stated.startswith("0x") and stated != f"0x{actual}":
        # LyCORIS hashes one tensor after the other in the order of its modules, which no file keeps:
        # KohakuBlueleaf/LyCORIS f49d30d, lycoris/utils/__init__.py:33-41
        what = (
            f"{META_MODEL_HASH} says {stated[:14]}…, as LyCORIS counts it: whether the file was changed since is open"
        )
        return [Problem("warning", what)]
    if stated is not None and stated.removeprefix("0x") != actual:
        what = f"{META_MODEL_HASH} says {stated[:12]}…, the data gives {actual[:12]}…: changed after saving, or damaged"
        return [Problem("error", what, remedy)]
    tensors = dict(read_tensors(path, read_header(path)))
    known = {key: tensor for key, tensor in tensors.items() if tensor is not None}
    if legacy is None or len(known) < len(tensors):
        return []
    computed = kohya_hashes(known, bundle.metadata)
    if computed.model != actual or computed.legacy == legacy:  # another writer's order of tensors: not comparable
        return []
    return [Problem("error", f"{META_LEGACY_HASH} says {legacy}, should be {computed.legacy}", remedy)]


def _check_stock_reader(path: Path) -> list[Problem]:
    """What the stock web UI (1.7 to 1.10) would do with the embeddings: it cuts names at the first dot."""
    embeddings: dict[str, set[str]] = {}
    names: dict[str, dict[str, None]] = {}
    for key in read_header(path).tensors:
        if key.startswith(BUNDLE_PREFIX):
            cut, _, tensor = key[len(BUNDLE_PREFIX) :].partition(".")
            embeddings.setdefault(cut, set()).add(
                "string_to_param" if tensor.startswith("string_to_param.") else tensor
            )
            whole = parse_embedding_key(key)
            names.setdefault(cut, {})[cut if whole is None else whole.name] = None
    what = "the stock web UI refuses the whole file because of this embedding (tensors {})"
    return [
        Problem(
            "warning",
            what.format(", ".join(sorted(embeddings[cut]))),
            "Rename it without a dot." if "." in name else "Write the file again.",
            embedding=name,
        )
        for cut in embeddings
        if len(embeddings[cut]) > 1
        and "string_to_param" not in embeddings[cut]
        and not set(SDXL_TENSORS) <= embeddings[cut]
        for name in names[cut]
    ]


def _check_metadata(bundle: Bundle) -> list[Problem]:
    problems = []
    if not any(key.startswith(META_TRAINING_PREFIX) for key in bundle.metadata):
        what = "no ss_ metadata: the web UI cannot tell which model it was made for"
        problems.append(Problem("warning", what))
    told = set(embedding_facts(bundle.metadata))
    if META_EMBEDDINGS in bundle.metadata and told != set(bundle.embeddings):
        odd = ", ".join(sorted(told ^ set(bundle.embeddings)))
        problems.append(Problem("warning", f"{META_EMBEDDINGS} and the embeddings in the file differ: {odd}"))
    return problems
