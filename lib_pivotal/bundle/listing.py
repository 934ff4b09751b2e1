"""What a bundle holds, from its header alone: fast enough for a folder of hundreds of files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from lib_pivotal.bundle.embedding_files import read_flat
from lib_pivotal.bundle.embedding_key_formats import EmbeddingLayout, TensorHeader, is_single_embedding, plan_embedding
from lib_pivotal.bundle.format import META_LEGACY_HASH, META_MODEL_HASH, Family, Problem
from lib_pivotal.bundle.layer_names import part_of
from lib_pivotal.bundle.reader import family_of, is_torch_file, plan_embeddings
from lib_pivotal.bundle.safetensors_file import Header, TensorEntry, dtype_name, read_header
from lib_pivotal.errors import BundleError
from lib_pivotal.ports import PARTS, Part

_ALGORITHMS = (
    ("lora_down.weight", "lora"),
    ("lora_A.weight", "lora"),
    ("lora.down.weight", "lora"),
    ("hada_w1_b", "loha"),
    ("lokr_w1", "lokr"),
    ("lokr_w1_a", "lokr"),
    ("a1.weight", "glora"),
    ("oft_blocks", "oft"),
    ("oft_diag", "oft"),
    ("oft_R.weight", "oft"),
    ("on_input", "ia3"),
    ("diff", "full"),
    ("w_norm", "norm"),
    ("dora_scale", "dora"),
)


@dataclass(frozen=True)
class EmbeddingSummary:
    """An embedding in a listing: its name, how many vectors, their width a tower, and how the file spells it."""

    name: str
    vectors: int
    widths: tuple[int, ...]
    spelling: str


@dataclass(frozen=True)
class BundleSummary:
    """A file in a listing. `family` is a guess from shapes, then metadata; `rank` the most frequent one."""

    path: Path
    embeddings: tuple[EmbeddingSummary, ...] = ()
    parts: tuple[Part, ...] = ()
    family: Family = "unknown"
    rank: int | None = None
    ranks: tuple[int, ...] = ()
    algorithms: tuple[str, ...] = ()
    file_bytes: int = 0
    network_bytes: int = 0
    embedding_bytes: int = 0
    network_tensors: int = 0
    hashes: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the metadata."""
        return {
            "path": str(self.path),
            "words": [
                {"name": w.name, "vectors": w.vectors, "widths": list(w.widths), "spelling": w.spelling}
                for w in self.embeddings
            ],
            "parts": list(self.parts),
            "family": self.family,
            "rank": self.rank,
            "ranks": list(self.ranks),
            "algorithms": list(self.algorithms),
            "file_bytes": self.file_bytes,
            "network_bytes": self.network_bytes,
            "word_bytes": self.embedding_bytes,
            "hashes": dict(self.hashes),
            "problems": [str(problem) for problem in self.problems],
        }


def list_bundle(path: str | Path) -> BundleSummary:
    """Embeddings, parts, family, rank, sizes, hashes and problems of one file; reads the header, no tensor data.

    A single embedding is listed as the embedding that it holds. Of a torch file (.pt, .bin) the whole is read, without
    executing its pickle. BundleError where the file cannot be read.
    """
    path = Path(path)
    header = _header_of_torch(path) if is_torch_file(path) else read_header(path)
    plans, network_keys, problems = _planned(path, header)
    network = {key: header.tensors[key] for key in network_keys}
    network_bytes = sum(entry.size_bytes for entry in network.values())
    shapes = {key: entry.shape for key, entry in network.items()}
    ranks = Counter(rank for key, shape in shapes.items() if (rank := _rank(key, shape)) is not None)
    found_parts = {part_of(f"{head}.") for head in {_head(key) for key in network}}
    return BundleSummary(
        path=path,
        embeddings=tuple(EmbeddingSummary(plan.name, plan.vectors, plan.widths, plan.spelling) for plan in plans),
        parts=tuple(part for part in PARTS if part in found_parts),
        family=family_of((plan.widths for plan in plans), shapes, header.metadata),
        rank=network_rank(shapes),
        ranks=tuple(sorted(ranks)),
        algorithms=_algorithms(network),
        file_bytes=header.data_start + header.data_bytes,
        network_bytes=network_bytes,
        embedding_bytes=header.data_bytes - network_bytes,
        network_tensors=len(network),
        hashes={key: header.metadata[key] for key in (META_MODEL_HASH, META_LEGACY_HASH) if key in header.metadata},
        metadata=dict(header.metadata),
        problems=tuple(problems),
    )


def _planned(path: Path, header: Header) -> tuple[list[EmbeddingLayout], list[str], list[Problem]]:
    """The embeddings of a bundle, or the one of an embedding file; the keys of the network; problems."""
    seen = {key: TensorHeader(entry.dtype, entry.shape) for key, entry in header.tensors.items()}
    if not is_single_embedding(seen) or any(header.metadata.get(key) == "<embed>" for key in seen):
        return plan_embeddings(header)
    plan, problems = plan_embedding(path.stem, seen)
    return ([] if plan is None else [plan]), [], problems


def _header_of_torch(path: Path) -> Header:
    """What a safetensors header would say of a torch file."""
    tensors, _ = read_flat(path)
    entries, at = {}, 0
    for key, tensor in tensors.items():
        entries[key] = TensorEntry(
            dtype_name(tensor.dtype), tuple(tensor.shape), at, at + tensor.numel() * tensor.element_size()
        )
        at = entries[key].end
    return Header(entries, {}, data_start=path.stat().st_size - at, data_bytes=at)


def list_folder(folder: str | Path, *, recursive: bool = True) -> list[BundleSummary]:
    """Every `.safetensors` file of a folder, by path; an unreadable file appears with its problem."""
    pattern = "**/*.safetensors" if recursive else "*.safetensors"
    summaries = []
    for path in sorted(Path(folder).glob(pattern)):
        try:
            summaries.append(list_bundle(path))
        except BundleError as error:
            summaries.append(BundleSummary(path, problems=(Problem("error", str(error)),)))
    return summaries


def _head(key: str) -> str:
    """What of a key tells the part: few different ones among thousands of keys."""
    head, _, rest = key.removeprefix("base_model.model.").partition(".")
    return f"{head}.{rest.partition('.')[0]}" if head == "text_encoders" else head


def network_rank(shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """The most frequent rank among the layers of a network (by key and shape; the higher one at a draw), or None."""
    ranks = Counter(rank for key, shape in shapes.items() if (rank := _rank(key, shape)) is not None)
    return max((count, rank) for rank, count in ranks.items())[1] if ranks else None


def rank_metadata(network: Mapping[str, Tensor]) -> dict[str, str]:
    """`ss_network_dim` and `ss_network_alpha` of a kohya network: the most frequent ones; empty without a rank."""
    rank = network_rank({key: tuple(tensor.shape) for key, tensor in network.items()})
    if rank is None:
        return {}
    alphas = [float(tensor) for key, tensor in network.items() if key.endswith(".alpha")]
    return {
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(max(set(alphas), key=alphas.count) if alphas else rank),
    }


def _rank(key: str, shape: tuple[int, ...]) -> int | None:
    if shape and key.endswith(("lora_down.weight", "lora_A.weight", "lora.down.weight")):
        return shape[0]
    if len(shape) == 2 and key.endswith("hada_w1_b"):
        return shape[0]
    return None


def _algorithms(keys: Iterable[str]) -> tuple[str, ...]:
    endings = {f".{key.partition('.')[2]}" for key in keys}  # of kohya keys there are only a few
    found = {name for ending in endings for suffix, name in _ALGORITHMS if ending.endswith(f".{suffix}")}
    return tuple(sorted(found))
