"""BOFT's stages: LyCORIS' rule of sizes, and every output meets every other."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lib_pivotal.errors import NetworkError
from lib_pivotal.networks.kinds.boft import butterfly
from lib_pivotal.networks.network import build_network
from lib_pivotal.networks.targets import LayerRule
from lib_pivotal.ports import Layer


@pytest.mark.parametrize("outputs", [320, 640, 1280, 2560, 768, 3072])
@pytest.mark.parametrize("largest", [4, 8, 10, 16, 32])
def test_sizes_are_those_of_lycoris(outputs, largest):
    theirs = pytest.importorskip("lycoris.functional").power2factorization(outputs, largest)
    if theirs[0] is None:
        with pytest.raises(NetworkError, match=f"rank = {largest}"):
            butterfly(outputs, largest)
        return
    stages, blocks, size = butterfly(outputs, largest)
    assert (size, blocks) == theirs and 2 ** (stages - 1) == blocks


def test_the_change_is_a_rotation_that_mixes_all_outputs():
    layer = Layer("lora_unet_layer", "unet", "linear", nn.Linear(16, 16, bias=False).requires_grad_(False))
    layer.module.weight.copy_(torch.eye(16))
    network = build_network([layer], [LayerRule("", 2, 1.0)], algorithm="boft", seed=0, device="cpu")
    adapter = network.adapters["lora_unet_layer"]
    nn.init.normal_(adapter.oft_blocks)
    rotation = torch.eye(16) + adapter.delta(layer.module.weight)
    torch.testing.assert_close(rotation @ rotation.t(), torch.eye(16), rtol=1e-5, atol=1e-5)
    assert (rotation.abs() > 1e-6).all()
