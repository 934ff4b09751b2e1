"""Write a bundle: checked first, atomic, read back and compared before it counts.

The same content gives the same bytes: metadata is sorted, which the official writer leaves to chance.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lib_pivotal.bundle.format import (
    META_LEGACY_HASH,
    META_MODEL_HASH,
    META_SPEC_HASH,
    EmbeddingTensors,
    check_vectors,
    check_widths,
    embedding_keys,
    is_embedding_key,
)
from lib_pivotal.bundle.hashes import hashes_of_blob, serialize_for_hash
from lib_pivotal.bundle.reader import is_finite
from lib_pivotal.bundle.safetensors_file import read_header, read_tensors
from lib_pivotal.embedding_names import check_embedding_name, warn_embedding_name
from lib_pivotal.errors import BundleError
from lib_pivotal.files import replacing

logger = logging.getLogger(__name__)

DTYPES = {"fp16": torch.float16, "fp32": torch.float32, "bf16": torch.bfloat16}
"""Precisions of a file by name."""


def dtype_names() -> tuple[str, ...]:
    """Choices of `saving.dtype`."""
    return tuple(DTYPES)


def write_bundle(
    path: str | Path,
    *,
    network: Mapping[str, Tensor],
    embeddings: Mapping[str, EmbeddingTensors],
    metadata: Mapping[str, str],
    dtype: torch.dtype | None = torch.float16,
) -> Path:
    """Write network and embeddings into one `.safetensors` file and return its path.

    Floating point tensors are stored as `dtype` (None: each as it is), contiguous. `sshs_*` hashes are computed as
    kohya does and replace any in `metadata`. An existing file is replaced in one step, or stays as it was. BundleError
    lists every reason why the content may not be written.
    """
    path = Path(path)
    reasons = check_content(network=network, embeddings=embeddings, metadata=metadata)
    if path.suffix != ".safetensors":
        reasons.append(f"file name {path.name!r}: a bundle ends in .safetensors")
    tensors = _stored(network, embeddings, dtype=dtype)
    reasons += [
        f"{key}: holds values that are not finite"
        + (
            ""
            if dtype is None or not is_finite(_source(key, network, embeddings))
            else f" as {dtype}: too large for it"
        )
        for key, tensor in tensors.items()
        if not is_finite(tensor)
    ]
    if reasons:
        lines = "\n".join(f"  - {reason}" for reason in reasons)
        raise BundleError(f"{path}: not written, {len(reasons)} reason(s):\n{lines}")
    for name in embeddings:
        for warning in warn_embedding_name(name):
            logger.warning("%s: embedding %r %s", path.name, name, warning)
    _replace(path, tensors, {str(key): value for key, value in metadata.items()})
    return path


def check_content(
    *, network: Mapping[str, Tensor], embeddings: Mapping[str, EmbeddingTensors], metadata: Mapping[str, str]
) -> list[str]:
    """Every reason why this content may not be written, but for values that are not finite."""
    reasons = [
        f"network key {key!r}: belongs to an embedding; give it in `words`" for key in network if is_embedding_key(key)
    ]
    reasons += [
        f"metadata {key!r}: the value must be text, is {type(value).__name__}"
        for key, value in metadata.items()
        if not isinstance(value, str)
    ]
    first_with: dict[str, str] = {}
    for name, towers in embeddings.items():
        found = [f"the name {reason}" for reason in check_embedding_name(name)]
        twin = first_with.setdefault(name.lower(), name)
        if twin != name:
            found.append(f"differs from {twin!r} only in case")
        found += _check_towers(towers)
        reasons += [f"embedding {name!r}: {reason}" for reason in found]
    widths = {tuple(int(tower.shape[-1]) for tower in towers if tower.dim()) for towers in embeddings.values()}
    widths.discard(())
    if len(widths) > 1:
        told = ", ".join(sorted("+".join(map(str, pair)) for pair in widths))
        reasons.append(f"embeddings of different models in one file (widths {told})")
    if not network and not embeddings:
        reasons.append("there is neither a network nor an embedding")
    return reasons


def _check_towers(towers: EmbeddingTensors) -> list[str]:
    """Why these tensors are not the vectors of an embedding."""
    odd = [f"tensor of shape {list(tower.shape)}, needed [vectors, width]" for tower in towers if tower.dim() != 2]
    odd += [f"dtype {tower.dtype} is not floating point" for tower in towers if not tower.is_floating_point()]
    if odd or not towers:
        return odd or ["has no tensors"]
    counts = sorted({tower.shape[0] for tower in towers})
    if len(counts) > 1:
        odd.append(f"its towers have unequal numbers of vectors ({' and '.join(map(str, counts))})")
    checked = [check_widths([tower.shape[1] for tower in towers]), *(check_vectors(count) for count in counts)]
    return odd + [reason for reason in checked if reason]


def _source(key: str, network: Mapping[str, Tensor], embeddings: Mapping[str, EmbeddingTensors]) -> Tensor:
    if key in network:
        return network[key]
    return next(
        tower
        for name, towers in embeddings.items()
        for embedding_key, tower in zip(embedding_keys(name, len(towers)), towers, strict=True)
        if embedding_key == key
    )


def _stored(
    network: Mapping[str, Tensor], embeddings: Mapping[str, EmbeddingTensors], *, dtype: torch.dtype | None
) -> dict[str, Tensor]:
    """All tensors under the keys of the file, as they are stored: own memory, contiguous, on the CPU."""

    def stored(tensor: Tensor) -> Tensor:
        tensor = tensor.detach().to("cpu", copy=True)
        if dtype is not None and tensor.is_floating_point():
            tensor = tensor.to(dtype)
        return tensor.contiguous()

    tensors = {key: stored(tensor) for key, tensor in network.items()}
    for name, towers in embeddings.items():
        if 1 <= len(towers) <= 2:
            tensors |= zip(embedding_keys(name, len(towers)), map(stored, towers), strict=True)
    return tensors


def _replace(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write beside the target, read back, compare; only then does it take the target's place."""
    metadata = {key: value for key, value in metadata.items() if key not in (META_MODEL_HASH, META_LEGACY_HASH)}
    blob = memoryview(serialize_for_hash(tensors, metadata))
    hashes = hashes_of_blob(blob)
    metadata |= hashes.as_metadata()
    if META_SPEC_HASH in metadata:  # it was true of the tensors that the file had before
        metadata[META_SPEC_HASH] = f"0x{hashes.model}"
    data_start = 8 + int.from_bytes(blob[:8], "little")
    header = _header(json.loads(bytes(blob[8:data_start])), metadata)
    try:
        with replacing(path) as temporary:
            with temporary.open("wb") as file:
                file.write(len(header).to_bytes(8, "little"))
                file.write(header)
                file.write(blob[data_start:])
            _compare(temporary, tensors, metadata)
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be written: {error.strerror or error}. Check space and rights of the folder."
        ) from error


def _header(entries: dict[str, dict[str, object]], metadata: Mapping[str, str]) -> bytes:
    """The JSON header with all metadata, sorted, padded with spaces so that the data is aligned to eight bytes."""
    entries.pop("__metadata__", None)
    ordered = sorted(entries.items(), key=lambda item: (item[1]["data_offsets"], item[0]))
    content = {"__metadata__": dict(sorted(metadata.items())), **dict(ordered)}
    raw = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    return raw + b" " * (-len(raw) % 8)


def _compare(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Read the file back; BundleError if it is not, bit for bit, what was to be written."""
    header = read_header(path)
    found = {key for key, tensor in read_tensors(path, header) if _same_bits(tensor, tensors.get(key))}
    lost = sorted(set(tensors) - found)
    if lost or set(header.tensors) != set(tensors) or dict(header.metadata) != dict(metadata):
        what = f"tensor {lost[0]!r}" if lost else "the header"
        raise BundleError(f"{path}: reading it back gave something else ({what}). The disk may be full or failing.")


def _same_bits(first: Tensor | None, second: Tensor | None) -> bool:
    if first is None or second is None or first.dtype != second.dtype or first.shape != second.shape:
        return False
    return torch.equal(first.reshape(-1).view(torch.uint8), second.reshape(-1).view(torch.uint8))
