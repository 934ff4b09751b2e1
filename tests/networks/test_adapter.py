"""Hooks of loose adapters, and the checks on layers and shapes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lib_pivotal.errors import NetworkError
from lib_pivotal.networks.adapter import attached, layer_weight, reshaped
from lib_pivotal.ports import Layer


def test_attached_takes_hooks_off_even_if_attaching_fails(world):
    network = world.network()
    adapters = list(network.adapters.values())

    class Broken:
        def attach(self):
            raise RuntimeError("cannot")

    with attached(adapters):
        assert all(layer.module._forward_hooks for layer in world.layers if layer.kind != "norm")
    with pytest.raises(RuntimeError, match="cannot"), attached([*adapters, Broken()]):
        pass
    assert not any(layer.module._forward_hooks for layer in world.layers)


def test_layers_that_cannot_be_followed():
    with pytest.raises(NetworkError, match="LayerNorm is neither"):
        layer_weight(Layer("lora_unet_norm", "unet", "linear", nn.LayerNorm(4)))


def test_reshaped():
    layer = Layer("lora_unet_x", "unet", "linear", nn.Linear(2, 2))
    like = torch.zeros(2, 3)
    assert reshaped(torch.zeros(2, 3, 1, 1), like, layer=layer, suffix="lora_down.weight").shape == (2, 3)
    with pytest.raises(NetworkError, match=r"lora_unet_x.lora_down.weight has shape \(3, 2\), expected \(2, 3\)"):
        reshaped(torch.zeros(3, 2), like, layer=layer, suffix="lora_down.weight")
