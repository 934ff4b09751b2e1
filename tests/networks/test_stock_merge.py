"""Every kind's file gives in the web UI 1.10.1 the change that was trained: by its formulas, and by its own modules."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from lib_pivotal.networks.adapter import layer_weight
from tests.networks.battery import ROWS
from tests.networks.stock_merge import real_delta, stock_delta

WEBUI = Path(os.environ.get("PIVOTAL_WEBUI") or Path.home() / "stable-diffusion-webui")


def cases(world, network):
    """Layer -> tensors by suffix, and the layer's weight."""
    found = {}
    layers = {layer.name: layer for layer in world.layers}
    for key, tensor in network.kohya_tensors().items():
        name, _, suffix = key.partition(".")
        found.setdefault(name, ({}, layer_weight(layers[name]).detach()))[0][suffix] = tensor
    return found


def own_delta(network, name):
    adapter = network.adapters[name]
    return adapter.delta(layer_weight(adapter.layer)), adapter.bias_delta()


def assert_same(found, expected):
    scale = max(expected[0].abs().max().item(), 1e-6)
    assert found[0].shape == expected[0].shape
    assert (found[0] - expected[0]).abs().max().item() < 1e-6 * scale
    assert (found[1] is None) == (expected[1] is None)
    if found[1] is not None:
        torch.testing.assert_close(found[1], expected[1])


@pytest.mark.parametrize("name", ROWS)
def test_by_its_formulas(world, perturb, name):
    network = perturb(world.network(name), std=ROWS[name].std)
    for layer, (tensors, weight) in cases(world, network).items():
        found = stock_delta(tensors, weight)
        assert found[0].abs().max() > 1e-3
        assert_same(found, own_delta(network, layer))


@pytest.mark.skipif(not (WEBUI / "extensions-builtin" / "Lora" / "network_oft.py").is_file(), reason="no web UI here")
def test_by_its_own_modules(world, perturb):
    networks = {name: perturb(world.network(name), std=row.std) for name, row in ROWS.items()}
    asked = {
        f"{name}/{layer}": case for name, network in networks.items() for layer, case in cases(world, network).items()
    }
    asked |= {f"mha-{place}": case for place, case in asked.items() if place.endswith("self_attn_q_proj")}
    for place, found in real_delta(WEBUI, asked).items():
        name, _, layer = place.removeprefix("mha-").partition("/")
        own = own_delta(networks[name], layer)
        assert_same(found, own)
        # in fp32 to the last bit: the picture of a file is that of the network in a run (docs/networks.md)
        assert torch.equal(found[0], own[0]), place
        assert found[1] is None or torch.equal(found[1], own[1]), place
