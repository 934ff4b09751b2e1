"""What torch stores but does not compute with."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lib_pivotal.bundle.dtypes import holding_both, same_values, side_by_side
from lib_pivotal.bundle.edits import join
from lib_pivotal.bundle.network_layouts import group_layers, lora_scale
from lib_pivotal.bundle.reader import read_bundle
from lib_pivotal.bundle.writer import write_bundle
from lib_pivotal.errors import NetworkError

SMALL = (torch.float8_e4m3fn, torch.float8_e5m2)
FLOATS = (*SMALL, torch.float16, torch.bfloat16, torch.float32, torch.float64)
NARROW = tuple(dtype for dtype in FLOATS if dtype.itemsize <= 2)


def every_value(dtype: torch.dtype) -> Tensor:
    """All finite values of a dtype of one or two bytes."""
    bits = torch.arange(256).to(torch.uint8) if dtype.itemsize == 1 else torch.arange(-32768, 32768).to(torch.int16)
    values = bits.view(dtype).double()
    return values[values.isfinite()]


@pytest.mark.parametrize(("first", "second"), itertools.product(NARROW, NARROW))
def test_the_dtype_that_holds_both_holds_every_value(first: torch.dtype, second: torch.dtype) -> None:
    both = holding_both(first, second)
    assert both == holding_both(second, first)
    for dtype in (first, second):
        values = every_value(dtype)
        assert torch.equal(values.to(both).double(), values)
    assert both.itemsize <= 4


def test_what_torch_itself_promotes_is_promoted_alike() -> None:
    for first, second in itertools.product((torch.float16, torch.bfloat16, torch.float32, torch.float64), repeat=2):
        assert holding_both(first, second) == torch.promote_types(first, second)


def test_integers() -> None:
    assert holding_both(torch.int8, torch.float16) == torch.float16
    assert holding_both(torch.int32, torch.float32) == torch.float64
    with pytest.raises(NetworkError, match="float32 and int64: no dtype holds both"):
        holding_both(torch.float32, torch.int64)


@pytest.mark.parametrize("dtype", [*FLOATS, torch.uint16, torch.int8, torch.bool, torch.complex64])
def test_side_by_side_and_equality(dtype: torch.dtype) -> None:
    first, second = torch.arange(6.0).view(2, 3).to(dtype), torch.ones(2, 1).to(dtype)
    both = side_by_side([first, second], dim=1)
    assert both.dtype == dtype
    assert same_values(both[:, :3].contiguous(), first)
    assert not same_values(both, side_by_side([second, first], dim=1))
    assert same_values(first.t(), first.t().clone())


def lora(dtype: torch.dtype, seed: int) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    name = "lora_unet_mid_block_attentions_0_proj_in"
    return {
        f"{name}.lora_down.weight": torch.randn(4, 32, generator=g).to(dtype),
        f"{name}.lora_up.weight": torch.randn(32, 4, generator=g).to(dtype),
        f"{name}.alpha": torch.tensor(2.0 + seed, dtype=torch.float16),
    }


def effect(network: dict[str, Tensor]) -> Tensor:
    (layer,) = group_layers(network).values()
    return lora_scale(layer) * layer["lora_up.weight"].double() @ layer["lora_down.weight"].double()


@pytest.mark.parametrize(("first", "second"), itertools.product(FLOATS, FLOATS))
def test_files_of_any_two_dtypes_are_joined(first: torch.dtype, second: torch.dtype, tmp_path: Path) -> None:
    files, networks = [], [lora(first, 0), lora(second, 1)]
    for index, network in enumerate(networks):
        embeddings = {f"word-{'ab'[index]}": (torch.ones(1, 8).to((first, second)[index]),)}
        path = tmp_path / f"{index}.safetensors"
        files.append(write_bundle(path, network=network, embeddings=embeddings, metadata={}, dtype=None))
    joined = read_bundle(join(files, tmp_path / "j.safetensors"))
    assert torch.allclose(effect(joined.network), effect(networks[0]) + effect(networks[1]), rtol=1e-6, atol=1e-6)
    assert set(joined.embeddings) == {"word-a", "word-b"}


def test_the_same_embedding_in_a_small_dtype_is_no_conflict(tmp_path: Path) -> None:
    embeddings = {"kira": (torch.ones(1, 8).to(torch.float8_e4m3fn),)}
    paths = [tmp_path / f"{index}.safetensors" for index in range(2)]
    for index, path in enumerate(paths):
        write_bundle(path, network=lora(torch.float16, index), embeddings=embeddings, metadata={}, dtype=None)
    assert set(read_bundle(join(paths, tmp_path / "j.safetensors")).embeddings) == {"kira"}
