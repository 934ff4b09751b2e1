"""DyLoRA in training: one unit of ranks a pass; and what a file that was cut gives."""

from __future__ import annotations

import torch
from torch import nn

from lib_pivotal.networks.network import Network, build_network
from lib_pivotal.networks.targets import LayerRule
from lib_pivotal.ports import Layer

NAME = "lora_unet_layer"


def dylora():
    torch.manual_seed(0)
    layer = Layer(NAME, "unet", "linear", nn.Linear(6, 5).requires_grad_(False))
    network = build_network(
        [layer], [LayerRule("", rank=6, alpha=3.0)], algorithm="dylora", options={"unit": 2}, seed=0, device="cpu"
    )
    nn.init.normal_(network.adapters[NAME].up)
    return layer, network


def test_a_pass_trains_one_unit_and_uses_those_before():
    layer, network = dylora()
    adapter, x, trained = network.adapters[NAME], torch.randn(3, 6), set()
    with network.attach():
        for seed in range(12):
            torch.manual_seed(seed)
            y = layer.module(x)
            down, up = torch.autograd.grad(y.square().sum(), [adapter.down, adapter.up])
            moved = [rank for rank in range(6) if down[rank].any() and up[:, rank].any()]
            first, used = moved[0], moved[-1] + 1
            assert used - first == 2 and first % 2 == 0
            assert not down[:first].any() and not down[used:].any() and not up[:, used:].any()
            expected = x @ adapter.down[:used].t() @ adapter.up[:, :used].t() * (3.0 / used)
            torch.testing.assert_close(y, nn.functional.linear(x, layer.module.weight, layer.module.bias) + expected)
            trained.add(first)
    assert trained == {0, 2, 4}


def test_a_file_cut_to_fewer_ranks_is_what_those_were_trained_as():
    layer, network = dylora()
    tensors = network.kohya_tensors()
    cut = {
        f"{NAME}.lora_down.weight": tensors[f"{NAME}.lora_down.weight"][:4],
        f"{NAME}.lora_up.weight": tensors[f"{NAME}.lora_up.weight"][:, :4],
        f"{NAME}.alpha": tensors[f"{NAME}.alpha"],
    }
    read = Network.from_kohya([layer], cut).adapters[NAME].delta(layer.module.weight)
    adapter = network.adapters[NAME]
    torch.testing.assert_close(read, adapter.up[:, :4].detach() @ adapter.down[:4].detach() * (3.0 / 4))
