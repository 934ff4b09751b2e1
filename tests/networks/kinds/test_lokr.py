"""How LoKr divides a layer: LyCORIS' rule."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lib_pivotal.errors import NetworkError
from lib_pivotal.networks.kinds.lokr import factorization
from lib_pivotal.networks.network import Network
from lib_pivotal.ports import Layer


@pytest.mark.parametrize("factor", [-1, 1, 2, 4, 5, 8, 16, 32, 100])
def test_factors_are_those_of_lycoris(factor):
    theirs = pytest.importorskip("lycoris.functional").factorization
    for dimension in (*range(1, 400), 640, 768, 1024, 1280, 2048, 2560, 5120, 10240):
        assert factorization(dimension, factor) == theirs(dimension, factor), dimension


def test_factors_of_another_model_are_refused():
    layer = Layer("lora_unet_layer", "unet", "linear", nn.Linear(8, 12))
    tensors = {"lora_unet_layer.lokr_w1": torch.ones(2, 2), "lora_unet_layer.lokr_w2": torch.ones(4, 4)}
    with pytest.raises(NetworkError, match="8×8, the layer has 12×8"):
        Network.from_kohya([layer], tensors)
