"""Hashes of model files as kohya's scripts and the web UI compute them.

`sshs_model_hash` is the SHA-256 of the data part of the safetensors file, so it does not depend on metadata; the web
UI shows its first 12 digits. `sshs_legacy_hash` is taken from 64 KiB at 1 MiB of the file as it would be with no
metadata but `ss_*`: for a smaller file it is the hash of nothing, e3b0c442.
Follows kohya-ss/sd-scripts 48d368f, library/train_util.py:3259-3299.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from torch import Tensor

from lib_pivotal.bundle.format import META_LEGACY_HASH, META_MODEL_HASH, META_TRAINING_PREFIX
from lib_pivotal.errors import BundleError

_LEGACY_OFFSET = 0x100000
_LEGACY_BYTES = 0x10000
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class KohyaHashes:
    """The two hashes that kohya writes into a LoRA's metadata."""

    model: str
    legacy: str

    def as_metadata(self) -> dict[str, str]:
        return {META_MODEL_HASH: self.model, META_LEGACY_HASH: self.legacy}


def training_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """The `ss_*` part of the metadata: what the hashes are computed with."""
    return {key: value for key, value in metadata.items() if key.startswith(META_TRAINING_PREFIX)}


def serialize_for_hash(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The file as kohya hashes it: these tensors, and of the metadata only `ss_*`."""
    return bytes(safetensors.torch.save(dict(tensors), training_metadata(metadata)))


def hashes_of_blob(blob: bytes | memoryview) -> KohyaHashes:
    """Both hashes of a serialized file made by `serialize_for_hash`."""
    view = memoryview(blob)
    data_start = 8 + int.from_bytes(view[:8], "little")
    model = hashlib.sha256(view[data_start:]).hexdigest()
    legacy = hashlib.sha256(view[_LEGACY_OFFSET : _LEGACY_OFFSET + _LEGACY_BYTES]).hexdigest()[:8]
    return KohyaHashes(model, legacy)


def kohya_hashes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> KohyaHashes:
    """The hashes that kohya's scripts would write for these tensors and this metadata."""
    return hashes_of_blob(serialize_for_hash(tensors, metadata))


def data_hash(path: str | Path) -> str:
    """SHA-256 of the data part of a safetensors file: what the web UI computes where `sshs_model_hash` is missing."""
    path = Path(path)
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            file.seek(8 + int.from_bytes(file.read(8), "little"))
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    except (OSError, OverflowError, ValueError) as error:
        raise BundleError(f"{path}: cannot be hashed: {error}") from error
    return digest.hexdigest()


def checkpoint_sha256(path: str | Path) -> str:
    """SHA-256 of a whole file (`ss_new_sd_model_hash`; the web UI's checkpoint hash)."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def checkpoint_legacy_hash(path: str | Path) -> str:
    """Old hash of a checkpoint (`ss_sd_model_hash`): 64 KiB at 1 MiB, eight digits."""
    with Path(path).open("rb") as file:
        file.seek(_LEGACY_OFFSET)
        return hashlib.sha256(file.read(_LEGACY_BYTES)).hexdigest()[:8]
