"""Algorithms are found by name and by the keys of a file."""

from __future__ import annotations

import pytest
import torch

from lib_pivotal.errors import NetworkError
from lib_pivotal.networks.registry import ALGORITHMS, algorithm_named, algorithm_of
from tests.networks.battery import ROWS

LORA = {"lora_down.weight", "lora_up.weight"}
KEYS = [
    (LORA, "lora"),
    (LORA | {"alpha"}, "lora"),
    (LORA | {"alpha", "dora_scale"}, "dora"),
    (LORA | {"dora_scale"}, "dora"),
    (LORA | {"lora_mid.weight"}, None),
    ({"lora_up.weight", "alpha"}, None),
    ({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "alpha"}, "loha"),
    ({"hada_w1_a", "hada_w1_b", "hada_w2_a", "alpha"}, None),
    ({"lokr_w1", "lokr_w2_a", "lokr_w2_b", "alpha"}, "lokr"),
    ({"lokr_w1_a", "lokr_w1_b", "lokr_w2", "alpha"}, "lokr"),
    ({"lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2"}, None),
    ({"weight", "on_input"}, "ia3"),
    ({"oft_blocks", "alpha"}, "oft"),
    ({"a1.weight", "a2.weight", "b1.weight", "b2.weight", "alpha"}, "glora"),
    ({"diff"}, "full"),
    ({"diff", "diff_b"}, "full"),
    ({"w_norm", "b_norm"}, "norm"),
    (set(), None),
]


@pytest.mark.parametrize(("suffixes", "name"), KEYS)
def test_by_keys(suffixes, name):
    found = algorithm_of(dict.fromkeys(suffixes, torch.zeros(2, 2, 2)))
    assert (found.name if found else None) == name


@pytest.mark.parametrize(
    ("suffixes", "name"),
    [
        (LORA | {"lora_mid.weight", "alpha"}, "lora"),
        (LORA | {"lora_mid.weight", "dora_scale"}, "dora"),
        ({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "dora_scale"}, "loha"),
        ({"lokr_w1", "lokr_w2", "dora_scale"}, "lokr"),
        ({"oft_diag"}, "oft"),
        ({"oft_blocks"}, "boft"),
    ],
)
def test_by_keys_of_a_convolution(suffixes, name):
    found = algorithm_of(dict.fromkeys(suffixes, torch.zeros(2, 2, 2, 2)))
    assert found is not None and found.name == name


def test_by_name():
    assert all(algorithm_named(name).name == name for name in ALGORITHMS)
    with pytest.raises(NetworkError, match=r"'lora-c3'.*dora, .*lora"):
        algorithm_named("lora-c3")


def test_every_algorithm_writes_what_it_reads(world):
    for name, row in ROWS.items():
        by_layer = {}
        for key, tensor in world.network(name).kohya_tensors().items():
            layer, _, suffix = key.partition(".")
            by_layer.setdefault(layer, {})[suffix] = tensor
        for tensors in by_layer.values():
            assert ALGORITHMS[row.algorithm].accepts(frozenset(tensors))
            assert algorithm_of(tensors) is ALGORITHMS[row.file_of or row.algorithm]
