"""OpenCLIP's attention through three layers: torch's own numbers, and networks on each of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from lib_pivotal.networks.network import Network, build_network
from lib_pivotal.networks.targets import LayerRule
from lib_pivotal.ports import Layer
from lib_pivotal.webui.split_attention import SplitAttention, split

LENGTH, BATCH, WIDTH = 77, 3, 64


@pytest.fixture
def attention() -> nn.MultiheadAttention:
    torch.manual_seed(0)
    made = nn.MultiheadAttention(WIDTH, 4).eval().requires_grad_(False)
    nn.init.normal_(made.in_proj_bias)
    return made


@pytest.fixture
def x() -> Tensor:
    return torch.randn(LENGTH, BATCH, WIDTH, generator=torch.Generator().manual_seed(1))


def attend(attention: nn.MultiheadAttention, x: Tensor) -> Tensor:
    """As open_clip calls it."""
    mask = torch.full((LENGTH, LENGTH), float("-inf")).triu(1)
    return attention(x, x, x, need_weights=False, attn_mask=mask)[0]


def layers_of(whole: SplitAttention) -> list[Layer]:
    stem = "lora_te_text_model_encoder_layers_0_self_attn"
    thirds = [Layer(f"{stem}_{n}_proj", "te", "linear", t) for n, t in zip("qkv", whole.thirds, strict=True)]
    return [*thirds, Layer(f"{stem}_out_proj", "te", "linear", whole.attention.out_proj)]


def trained_network(layers: list[Layer], algorithm: str) -> Network:
    """One whose change is not nothing."""
    network = build_network(layers, [LayerRule("", 4, 4.0)], algorithm=algorithm, seed=0, device="cpu")
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network


@pytest.fixture
def whole(attention: nn.MultiheadAttention) -> Iterator[SplitAttention]:
    made = SplitAttention(attention)
    with split([made]):
        yield made


def test_the_same_bits_and_gradients(attention: nn.MultiheadAttention, x: Tensor) -> None:
    first, second = x.clone().requires_grad_(), x.clone().requires_grad_()
    theirs = attend(attention, first)
    with split([SplitAttention(attention)]):
        ours = attend(attention, second)
        assert "forward" in attention.__dict__
    assert "forward" not in attention.__dict__
    assert torch.equal(ours, theirs)
    theirs.square().sum().backward()
    ours.square().sum().backward()
    assert first.grad is not None and second.grad is not None
    torch.testing.assert_close(second.grad, first.grad)


@pytest.mark.parametrize("algorithm", ["lora", "dora"])
def test_a_network_by_hooks_is_the_network_in_the_weights(whole: SplitAttention, x: Tensor, algorithm: str) -> None:
    attention = whole.attention
    before = {name: tensor.clone() for name, tensor in attention.state_dict().items()}
    plain = attend(attention, x)
    network = trained_network(layers_of(whole), algorithm)
    with network.attach():
        hooked = attend(attention, x)
        hooked.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())
    with network.merged():
        assert not torch.equal(attention.in_proj_weight, before["in_proj_weight"])
        merged = attend(attention, x)
    assert all(torch.equal(tensor, before[name]) for name, tensor in attention.state_dict().items())
    assert (hooked - plain).abs().max() > 1e-2
    torch.testing.assert_close(hooked, merged, rtol=1e-4, atol=1e-5)
    assert torch.equal(attend(attention, x), plain)


def test_thirds_follow_a_change_of_type(attention: nn.MultiheadAttention) -> None:
    q, k, v = SplitAttention(attention).thirds
    attention.half()
    assert q.weight.dtype == v.bias.dtype == torch.float16
    assert torch.equal(torch.cat([q.weight, k.weight, v.weight]), attention.in_proj_weight)
    assert not list(q.parameters()), "nothing is copied or counted twice"
