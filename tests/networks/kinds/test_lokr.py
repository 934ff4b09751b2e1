"""How LoKr divides a layer: LyCORIS' rule."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lib_pivotal.errors import NetworkError
from lib_pivotal.networks.kinds.lokr import KroneckerAdd, LowRankKroneckerAdd, factorization
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


@pytest.mark.parametrize(("a", "b", "c", "d"), [(2, 6, 2, 3), (2, 3, 2, 6), (2, 3, 3, 2)])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_both_orders_give_the_dense_product(a, b, c, d, scale):
    """The small factor first (input no wider than the output), and second; against `torch.kron` and its gradients."""
    torch.manual_seed(0)
    y, x, first, second = (
        torch.randn(size, dtype=torch.float64, requires_grad=True)
        for size in ((2, 5, a * b), (2, 5, c * d), (a, c), (b, d))
    )

    def ours(y, x, first, second):
        return KroneckerAdd.apply(y * 1.0, x, first, second, scale)

    torch.testing.assert_close(ours(y, x, first, second), y + scale * x @ torch.kron(first, second).t())
    assert torch.autograd.gradcheck(ours, (y, x, first, second))


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_low_rank_product_is_the_dense_one(scale):
    torch.manual_seed(0)
    sizes = ((2, 5, 8), (2, 5, 6), (2, 3), (2, 2), (4, 2))
    tensors = tuple(torch.randn(size, dtype=torch.float64, requires_grad=True) for size in sizes)

    def ours(y, x, first, down, up):
        return LowRankKroneckerAdd.apply(y * 1.0, x, first, down, up, scale)

    y, x, first, down, up = tensors
    torch.testing.assert_close(ours(*tensors), y + scale * x @ torch.kron(first, up @ down).t())
    assert torch.autograd.gradcheck(ours, tensors)
