"""LoHa's two ways to its product, and when each is taken."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lib_pivotal.networks.network import build_network
from lib_pivotal.networks.targets import LayerRule
from lib_pivotal.ports import Layer

LAYERS = {
    "linear": (lambda: nn.Linear(12, 20), (2, 7, 12)),
    "strided": (lambda: nn.Conv2d(6, 10, 3, stride=2, padding=1), (2, 6, 8, 8)),
    "circular": (lambda: nn.Conv2d(6, 10, 3, padding=1, padding_mode="circular"), (2, 6, 8, 8)),
}


def loha(module, *, rank=2, tucker=False):
    kind = "linear" if isinstance(module, nn.Linear) else "conv"
    layer = Layer("lora_unet_layer", "unet", kind, module.requires_grad_(False))
    rule = LayerRule("", rank=rank, alpha=3.0)
    network = build_network([layer], [rule], algorithm="loha", options={"tucker": tucker}, seed=0, device="cpu")
    nn.init.normal_(network.adapters["lora_unet_layer"].hada_w2_a)
    return network


@pytest.mark.parametrize("tucker", [False, True])
@pytest.mark.parametrize("place", LAYERS)
def test_both_ways_give_the_same(monkeypatch, place, tucker):
    torch.manual_seed(0)
    make, size = LAYERS[place]
    module = make()
    network, x = loha(module, tucker=tucker), torch.randn(size, requires_grad=True)
    adapter, found = network.adapters["lora_unet_layer"], []
    weights = torch.randn_like(module(x))
    for way in (True, False):
        monkeypatch.setattr(type(adapter), "runs_as_lora", lambda self, tokens, way=way: way)
        with network.attach():
            y = module(x)
            found.append([y.detach(), *torch.autograd.grad((y * weights).sum(), [x, *adapter.parameters()])])
    for ours, other in zip(*found, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("inputs", "outputs", "rank", "tokens", "as_lora"),
    [
        (320, 320, 4, 4096, True),  # 16 · 640 numbers a token against 320 · 320
        (320, 320, 16, 4096, False),
        (1280, 1280, 8, 256, True),
        (320, 320, 16, 4, True),  # few tokens: building the change would cost more than using it
    ],
)
def test_the_cheaper_way_is_taken(inputs, outputs, rank, tokens, as_lora):
    adapter = loha(nn.Linear(inputs, outputs), rank=rank).adapters["lora_unet_layer"]
    assert adapter.runs_as_lora(tokens) == as_lora


def test_building_keeps_nothing_of_the_weights_size(monkeypatch):
    """What autograd saves: the input and the factors."""
    module, saved = nn.Linear(64, 64), []
    network = loha(module, rank=2)
    adapter = network.adapters["lora_unet_layer"]
    monkeypatch.setattr(type(adapter), "runs_as_lora", lambda self, tokens: False)
    keep = torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda x: x)
    with network.attach(), keep:
        module(torch.randn(4, 64, requires_grad=True)).sum()
    weight = module.weight.untyped_storage().data_ptr()
    assert saved and not [t for t in saved if t.numel() >= 64 * 64 and t.untyped_storage().data_ptr() != weight]
