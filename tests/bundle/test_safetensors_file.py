"""Our reading of safetensors against the official library."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from lib_pivotal.bundle.safetensors_file import dtype_name, read_header, read_tensors
from lib_pivotal.errors import BundleError

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8, torch.bool]


def test_reads_what_the_official_library_wrote(save: Callable[..., Path]) -> None:
    g = torch.Generator().manual_seed(0)
    tensors = {f"t{i}": (torch.randn(3, 5, generator=g) * 9).to(dtype) for i, dtype in enumerate(DTYPES)}
    tensors |= {"scalar": torch.tensor(2.5), "empty": torch.empty(0, 4)}
    path = save(tensors, metadata={"a": "1"})
    header = read_header(path)
    found = dict(read_tensors(path, header))
    official = safetensors.torch.load_file(path)
    assert set(found) == set(official)
    for key, tensor in official.items():
        assert found[key].dtype == tensor.dtype and torch.equal(found[key], tensor)  # type: ignore[union-attr]
        assert header.tensors[key].shape == tuple(tensor.shape)
    assert header.metadata == {"a": "1"}


def test_names_of_dtypes() -> None:
    assert dtype_name(torch.float16) == "F16"
    assert dtype_name(torch.bfloat16) == "BF16"
    assert dtype_name(torch.complex64) == "torch.complex64"


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be opened"):
        read_header(tmp_path / "none.safetensors")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be opened"):
        read_header(tmp_path)


def test_a_file_that_shrinks_between_header_and_data(save: Callable[..., Path]) -> None:
    path = save({"a": torch.ones(100)})
    header = read_header(path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(BundleError, match="try again"):
        dict(read_tensors(path, header))
