"""Algorithms are found by name and by the keys of a file."""

from __future__ import annotations

import pytest

from lib_pivotal.errors import NetworkError
from lib_pivotal.networks.registry import ALGORITHMS, algorithm_named, algorithm_of

LORA = {"lora_down.weight", "lora_up.weight"}
KEYS = [
    (LORA, "lora"),
    (LORA | {"alpha"}, "lora"),
    (LORA | {"alpha", "dora_scale"}, "dora"),
    (LORA | {"dora_scale"}, "dora"),
    (LORA | {"lora_mid.weight"}, None),
    ({"lora_up.weight", "alpha"}, None),
    ({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "alpha"}, None),
    (set(), None),
]


@pytest.mark.parametrize(("suffixes", "name"), KEYS)
def test_by_keys(suffixes, name):
    found = algorithm_of(frozenset(suffixes))
    assert (found.name if found else None) == name


def test_by_name():
    assert all(algorithm_named(name).name == name for name in ALGORITHMS)
    with pytest.raises(NetworkError, match=r"'loha'.*dora, lora"):
        algorithm_named("loha")


def test_every_algorithm_writes_what_it_reads(world):
    for name, algorithm in ALGORITHMS.items():
        suffixes = {key.partition(".")[2] for key in world.network(name).kohya_tensors()}
        assert algorithm.accepts(frozenset(suffixes))
        assert algorithm_of(frozenset(suffixes)) is algorithm
