"""PiSSA and OLoRA against peft, which takes the start off the weight, and against the singular values themselves."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lib_pivotal.errors import NetworkError
from lib_pivotal.networks.network import Network, build_network
from lib_pivotal.networks.targets import LayerRule
from lib_pivotal.ports import Layer

NAME = "lora_unet_layer"


def started(module, start, *, rank=3, **options):
    kind = "linear" if isinstance(module, nn.Linear) else "conv"
    layer = Layer(NAME, "unet", kind, module.requires_grad_(False))
    rule = LayerRule("", rank=rank, alpha=1.5, dropout=options.pop("dropout", 0.0))
    network = build_network([layer], [rule], options={"start": start, **options}, seed=0, device="cpu")
    return layer, network


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_it_trains_as_in_peft(start):
    """The same start, and after three steps of the same optimiser the same output: there residual + s·BA."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    linear = nn.Linear(10, 7)
    holder = nn.Sequential(copy.deepcopy(linear))
    config = peft.LoraConfig(r=3, lora_alpha=1.5, target_modules=["0"], init_lora_weights=start)
    theirs = peft.get_peft_model(holder, config)
    layer, network = started(linear, start)
    adapter, inside = network.adapters[NAME], theirs.base_model.model[0]
    down, up = inside.lora_A["default"].weight, inside.lora_B["default"].weight
    torch.testing.assert_close(adapter.up @ adapter.down, up @ down, rtol=1e-4, atol=1e-5)
    with torch.no_grad():  # signs of singular vectors are free
        adapter.down.copy_(down), adapter.start_down.copy_(down)
        adapter.up.copy_(up), adapter.start_up.copy_(up)
    optimizers = [torch.optim.SGD(p, lr=0.1) for p in (network.parameters(), [down, up])]
    with network.attach():
        for _ in range(3):
            x = torch.randn(4, 10)
            for model, optimizer in zip((layer.module, theirs), optimizers, strict=True):
                optimizer.zero_grad()
                model(x).square().mean().backward()
                optimizer.step()
        torch.testing.assert_close(layer.module(x), theirs(x), rtol=1e-4, atol=1e-5)
    assert (adapter.down - adapter.start_down).abs().max() > 1e-3


def test_pissa_is_the_nearest_matrix_of_its_rank():
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3)
    _, network = started(conv, "pissa")
    adapter = network.adapters[NAME]
    u, singular, v = torch.linalg.svd(conv.weight.flatten(1), full_matrices=False)
    best = (u[:, :3] * singular[:3]) @ v[:3]
    made = adapter.up.flatten(1) @ adapter.down.flatten(1) * (1.5 / 3)
    torch.testing.assert_close(made, best, rtol=1e-4, atol=1e-5)
    assert adapter.up.shape == (6, 3, 1, 1)


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_the_file_is_a_lora_of_twice_the_rank_with_the_same_change(start):
    torch.manual_seed(0)
    layer, network = started(nn.Linear(10, 7), start)
    nn.init.normal_(network.adapters[NAME].up)
    tensors = network.kohya_tensors()
    assert tensors[f"{NAME}.lora_down.weight"].shape == (6, 10)
    assert tensors[f"{NAME}.alpha"].item() == 3.0
    adapter = network.adapters[NAME]
    expected = (adapter.up @ adapter.down - adapter.start_up @ adapter.start_down) * (1.5 / 3)
    read = Network.from_kohya([layer], tensors).adapters[NAME].delta(layer.module.weight)
    torch.testing.assert_close(read, expected.detach(), rtol=1e-4, atol=1e-5)


def test_a_small_change_survives_fp16():
    """Of `[B, -B₀] [A; A₀]`, the sum of two large products, fp16 would leave less."""
    torch.manual_seed(0)
    layer, network = started(nn.Linear(64, 64), "pissa", rank=8)
    adapter = network.adapters[NAME]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 1e-4)
    exact = adapter.delta(layer.module.weight)
    stored = Network.from_kohya([layer], network.kohya_tensors(torch.float16)).adapters[NAME].delta(layer.module.weight)
    naive = [tensor.half().float() for tensor in (adapter.up, adapter.down, adapter.start_up, adapter.start_down)]
    naive_delta = (naive[0] @ naive[1] - naive[2] @ naive[3]) * (1.5 / 8)
    lost = [((delta - exact).norm() / exact.norm()).item() for delta in (stored, naive_delta)]
    assert lost[0] < 2e-3 < 0.1 < lost[1]


def test_a_run_goes_on_from_its_file():
    """The start is told by the file's second half."""
    torch.manual_seed(0)
    _, network = started(nn.Linear(10, 7), "pissa")
    nn.init.normal_(network.adapters[NAME].up)
    _, other = started(nn.Linear(10, 7), "pissa")
    tensors = {key.partition(".")[2]: tensor for key, tensor in network.kohya_tensors().items()}
    other.adapters[NAME].load(tensors)
    for name, tensor in network.adapters[NAME].state_dict().items():
        torch.testing.assert_close(other.adapters[NAME].state_dict()[name], tensor)


def test_max_norm_leads_back_towards_the_start():
    torch.manual_seed(0)
    layer, network = started(nn.Linear(10, 7), "pissa")
    nn.init.normal_(network.adapters[NAME].up)
    adapter = network.adapters[NAME]
    before = adapter.delta(layer.module.weight).norm().item()
    assert network.apply_max_norm(before * 1.01) == 0
    assert network.apply_max_norm(before / 3) == 1
    assert before / 6 < adapter.delta(layer.module.weight).norm().item() <= before / 3


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_dropout_at_the_start_changes_nothing(start):
    torch.manual_seed(0)
    linear = nn.Linear(10, 7)
    layer, network = started(linear, start, dropout=0.5)
    x = torch.randn(4, 10)
    bare = layer.module(x)
    with network.attach():
        assert torch.equal(layer.module(x), bare)
        nn.init.normal_(network.adapters[NAME].up)
        torch.manual_seed(3)
        first = layer.module(x)
        torch.manual_seed(4)
        assert not torch.equal(layer.module(x), first)


def test_what_excludes_a_start():
    with pytest.raises(NetworkError, match="freeze_down exclude each other"):
        started(nn.Linear(10, 7), "pissa", freeze_down=True)
    with pytest.raises(NetworkError, match="tucker exclude each other"):
        started(nn.Conv2d(4, 6, 3), "olora", tucker=True)
