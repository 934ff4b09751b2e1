"""Read a bundle: network, embeddings and metadata, tolerant of every spelling, losing no more than what is broken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from lib_pivotal.bundle.embedding_key_formats import EmbeddingLayout, TensorHeader, carry_out, plan_embedding, seen_of
from lib_pivotal.bundle.file_kinds import kind_of
from lib_pivotal.bundle.format import (
    EmbeddingTensors,
    Family,
    Problem,
    family_of_widths,
    is_embedding_key,
    parse_embedding_key,
)
from lib_pivotal.bundle.layer_names import part_of
from lib_pivotal.bundle.pickles import load_tensors
from lib_pivotal.bundle.safetensors_file import Header, read_header, read_tensors
from lib_pivotal.embedding_names import check_embedding_name
from lib_pivotal.errors import BundleError

PICKLE_SUFFIXES = frozenset({".pt", ".bin", ".ckpt", ".pth"})
_CONTEXT_WIDTHS: dict[int, Family] = {768: "sd1", 1024: "sd2", 2048: "sdxl"}


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle in memory.

    `network`: every tensor that belongs to no embedding, under its own key, untouched. `embeddings`: name as the file
    spells it
    -> one tensor `(vectors, width)` a tower. `problems`: what was skipped (errors) or is odd (warnings).
    """

    network: dict[str, Tensor]
    embeddings: dict[str, EmbeddingTensors]
    metadata: dict[str, str]
    problems: tuple[Problem, ...] = ()
    path: Path | None = None

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that cost a part of the file."""
        return tuple(problem for problem in self.problems if problem.severity == "error")

    @property
    def family(self) -> Family:
        """The model that the file is for: see `family_of`."""
        widths = ([tower.shape[-1] for tower in towers] for towers in self.embeddings.values())
        return family_of(widths, {key: tuple(tensor.shape) for key, tensor in self.network.items()}, self.metadata)


def read_bundle(path: str | Path) -> Bundle:
    """Read a bundle (or a plain LoRA: then it has no embeddings).

    One bad embedding is skipped with a Problem. BundleError only where the file as a whole cannot be read.
    Tensors keep the dtype in which they are stored. A `.pt` file is read without executing its pickle.
    """
    path = Path(path)
    if is_torch_file(path):
        tensors, metadata, problems = load_tensors(path), dict[str, str](), list[Problem]()
    else:
        header = read_header(path)
        tensors, metadata, problems = _all_tensors(path, header)
    embeddings, network_keys, embedding_problems = take_embeddings(tensors, metadata)
    problems += embedding_problems
    network = {key: tensors[key] for key in network_keys}
    problems += [
        Problem("error", "holds values that are not numbers (NaN or infinite)", "The network is broken.", key=key)
        for key, tensor in network.items()
        if not is_finite(tensor)
    ]
    return Bundle(network, embeddings, metadata, tuple(problems), path)


def is_torch_file(path: Path) -> bool:
    """Whether a file is read as torch's: by its first bytes, and by its name where they tell nothing."""
    try:
        kind = kind_of(path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be opened: {error.strerror or error}") from error
    return kind == "torch" or (kind == "other" and path.suffix.lower() in PICKLE_SUFFIXES)


def take_embeddings(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> tuple[dict[str, EmbeddingTensors], list[str], list[Problem]]:
    """The embeddings among a file's tensors, the keys of its network, and what was skipped or is odd."""
    found, network_keys, problems = group_embeddings(
        {key: seen_of(tensor) for key, tensor in tensors.items()}, metadata
    )
    embeddings: dict[str, EmbeddingTensors] = {}
    for name, keys in found.items():
        plan, plan_problems = plan_embedding(name, {tensor: seen_of(tensors[key]) for tensor, key in keys.items()})
        problems += plan_problems
        if plan is None:
            continue
        vectors = carry_out(plan, lambda tensor, keys=keys: tensors[keys[tensor]])  # type: ignore[misc]
        if all(is_finite(tower) for tower in vectors):
            embeddings[name] = vectors
        else:
            problems.append(
                Problem("error", "skipped: holds values that are not numbers (NaN or infinite)", embedding=name)
            )
    return embeddings, network_keys, problems + name_problems(embeddings)


def read_embeddings(path: str | Path) -> tuple[dict[str, EmbeddingTensors], tuple[Problem, ...]]:
    """Only the words of a file: of a safetensors file, nothing but their tensors is read. Raises as `read_bundle`."""
    path = Path(path)
    if is_torch_file(path):
        bundle = read_bundle(path)
        return bundle.embeddings, tuple(problem for problem in bundle.problems if not problem.key or problem.embedding)
    header = read_header(path)
    marked = {key for key, value in header.metadata.items() if value == "<embed>"}
    entries = {key: entry for key, entry in header.tensors.items() if is_embedding_key(key) or key in marked}
    tensors, metadata, problems = _all_tensors(path, replace(header, tensors=entries))
    embeddings, _, embedding_problems = take_embeddings(tensors, metadata)
    return embeddings, (*problems, *embedding_problems)


def group_embeddings(
    tensors: Mapping[str, TensorHeader], metadata: Mapping[str, str]
) -> tuple[dict[str, dict[str, str]], list[str], list[Problem]]:
    """Sort keys into embeddings (name -> inner tensor name -> key) and network (a list of keys)."""
    embeddings: dict[str, dict[str, str]] = {}
    network: list[str] = []
    problems: list[Problem] = []
    for key in tensors:
        if metadata.get(key) == "<embed>":  # cloneofsimo/lora: the key is the token, the metadata marks it
            embeddings.setdefault(key, {})[key] = key
        elif not is_embedding_key(key):
            network.append(key)
        elif (parsed := parse_embedding_key(key)) is not None:
            embeddings.setdefault(parsed.name, {})[parsed.tensor] = key
        else:
            what = "skipped: the key of an embedding needs a name and a tensor, bundle_emb.<name>.<tensor>"
            problems.append(Problem("error", what, key=key))
    return embeddings, network, problems


def name_problems(names: Iterable[str]) -> list[Problem]:
    """What is wrong with names that a file already has: they are read all the same."""
    problems: list[Problem] = []
    first_with: dict[str, str] = {}
    for name in names:
        reasons = check_embedding_name(name)
        if reasons:
            problems.append(Problem("warning", "its name " + "; ".join(reasons), "Rename it.", embedding=name))
        twin = first_with.setdefault(name.lower(), name)
        if twin != name:
            what = f"differs from {twin!r} only in case, which no prompt can tell apart"
            problems.append(Problem("warning", what, f"Rename it; {twin!r} wins.", embedding=name))
    return problems


def plan_embeddings(header: Header) -> tuple[list[EmbeddingLayout], list[str], list[Problem]]:
    """The words of a file from its header alone, the keys of its network, and the problems of both."""
    seen = {key: TensorHeader(entry.dtype, entry.shape) for key, entry in header.tensors.items()}
    embeddings_found, network_keys, problems = group_embeddings(seen, header.metadata)
    plans = []
    for name, keys in embeddings_found.items():
        plan, plan_problems = plan_embedding(name, {tensor: seen[key] for tensor, key in keys.items()})
        problems += plan_problems
        if plan is not None:
            plans.append(plan)
    return plans, network_keys, problems + name_problems(plan.name for plan in plans) + _odd_metadata(header)


def family_of(
    widths: Iterable[Sequence[int]], shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]
) -> Family:
    """A file's model, by `widths` of its embeddings, `shapes` of its network (they cannot lie), names of keys, then
    metadata."""
    for towers in widths:
        if (family := family_of_widths(towers)) != "unknown":
            return family
    for key, shape in shapes.items():
        if "attn2" in key and "to_k" in key and key.endswith(("down.weight", "lora_A.weight")) and len(shape) > 1:
            return _CONTEXT_WIDTHS.get(shape[1]) or _family_of_metadata(metadata)
    if any(part_of(key) == "te2" or key.startswith("lora_te1_") for key in shapes):
        return "sdxl"
    return _family_of_metadata(metadata)


def _family_of_metadata(metadata: Mapping[str, str]) -> Family:
    version = metadata.get("ss_base_model_version", "")
    if version.startswith("sdxl"):
        return "sdxl"
    if version.startswith("sd_v2") or metadata.get("ss_v2") == "True":
        return "sd2"
    return "sd1" if version.startswith("sd_v1") or metadata.get("ss_v2") == "False" else "unknown"


def is_finite(tensor: Tensor) -> bool:
    """Whether every value is a number. True for integers, and for dtypes in which it cannot be asked."""
    if not tensor.is_floating_point():
        return True
    if tensor.element_size() == 1:
        tensor = tensor.float()
    return bool(torch.isfinite(tensor).all())


def require(bundle: Bundle) -> Bundle:
    """The same bundle, or BundleError naming every part of the file that could not be read."""
    if bundle.errors:
        lines = "\n".join(f"  - {problem}" for problem in bundle.errors)
        raise BundleError(f"{bundle.path}: {len(bundle.errors)} part(s) could not be read:\n{lines}")
    return bundle


def _odd_metadata(header: Header) -> list[Problem]:
    what = "metadata is not text; the official reader refuses such a file"
    return [Problem("warning", what, "Save the file again.", key=key) for key in header.odd_metadata]


def _all_tensors(path: Path, header: Header) -> tuple[dict[str, Tensor], dict[str, str], list[Problem]]:
    tensors: dict[str, Tensor] = {}
    problems = _odd_metadata(header)
    for key, tensor in read_tensors(path, header):
        if tensor is not None:
            tensors[key] = tensor
            continue
        what = f"skipped: dtype {header.tensors[key].dtype} is unknown to this torch ({torch.__version__})"
        problems.append(Problem("error", what, key=key))
    return {key: tensors[key] for key in header.tensors if key in tensors}, dict(header.metadata), problems
