"""Hashes against a second implementation, written from kohya's description of the bytes, not from our code."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from lib_pivotal.bundle.hashes import checkpoint_legacy_hash, checkpoint_sha256, data_hash, kohya_hashes
from lib_pivotal.bundle.writer import write_bundle
from lib_pivotal.errors import BundleError


def reference_hashes(tensors: dict[str, Tensor], metadata: dict[str, str], folder: Path) -> tuple[str, str]:
    """kohya: save with only the ss_ metadata; hash the data part; hash 64 KiB at 1 MiB of the whole file."""
    path = folder / "reference.safetensors"
    safetensors.torch.save_file(tensors, path, {k: v for k, v in metadata.items() if k[:3] == "ss_"})
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    json.loads(content[8 : 8 + length])
    return (
        hashlib.sha256(content[8 + length :]).hexdigest(),
        hashlib.sha256(content[1048576 : 1048576 + 65536]).hexdigest()[:8],
    )


@pytest.mark.parametrize("rows", [4, 4000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_hashes_are_kohyas(tmp_path: Path, rows: int, dtype: torch.dtype) -> None:
    tensors = {"b.weight": torch.randn(rows, 301).to(dtype), "a.alpha": torch.tensor(4.0), "c": torch.randn(7).half()}
    metadata = {"ss_seed": "1", "ss_output_name": "x", "modelspec.title": "not part of it", "pivotal.run": "{}"}
    found = kohya_hashes(tensors, metadata)
    assert (found.model, found.legacy) == reference_hashes(tensors, metadata, tmp_path)
    if rows == 4:
        assert found.legacy == hashlib.sha256(b"").hexdigest()[:8] == "e3b0c442"


def test_written_files_carry_the_hashes_that_kohya_and_the_web_ui_compute(
    tmp_path: Path, embeddings: dict[str, tuple[Tensor, ...]]
) -> None:
    network = {"lora_unet_x.lora_down.weight": torch.randn(512, 2000), "lora_unet_x.alpha": torch.tensor(8.0)}
    metadata = {"ss_seed": "7", "ss_note": "x" * 333, "modelspec.title": "t" * 1000, "pivotal.run": "{}"}
    path = write_bundle(tmp_path / "x.safetensors", network=network, embeddings=embeddings, metadata=metadata)
    stored = safetensors.torch.load_file(path)
    with safetensors.safe_open(path, framework="pt") as file:
        told = file.metadata()
    assert (told["sshs_model_hash"], told["sshs_legacy_hash"]) == reference_hashes(stored, told, tmp_path)
    assert data_hash(path) == told["sshs_model_hash"]


def test_the_model_hash_ignores_metadata(tmp_path: Path) -> None:
    tensors = {"a": torch.ones(3)}
    assert kohya_hashes(tensors, {}).model == kohya_hashes(tensors, {"ss_seed": "1"}).model


def test_checkpoint_hashes(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    content = bytes(range(256)) * 5000
    path.write_bytes(content)
    assert checkpoint_sha256(path) == hashlib.sha256(content).hexdigest()
    assert checkpoint_legacy_hash(path) == hashlib.sha256(content[0x100000:0x110000]).hexdigest()[:8]


def test_a_missing_file_cannot_be_hashed(tmp_path: Path, save: Callable[..., Path]) -> None:
    with pytest.raises(BundleError, match="cannot be hashed"):
        data_hash(tmp_path / "none.safetensors")
