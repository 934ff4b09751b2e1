"""A toy host: linear layers, convolutions, one attention whose q, k, v read the same tensor."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lib_pivotal.networks.network import Network, build_network
from lib_pivotal.networks.targets import LayerRule
from lib_pivotal.ports import Layer
from tests.networks.battery import ROWS


class Toy(nn.Module):
    """Convolutions round an attention-like middle, and a small text part that makes the context."""

    def __init__(self) -> None:
        super().__init__()
        self.te_self_attn_q_proj = nn.Linear(6, 6)
        self.te_self_attn_k_proj = nn.Linear(6, 6)
        self.te_self_attn_v_proj = nn.Linear(6, 6)
        self.conv_in = nn.Conv2d(3, 8, 3, padding=1)
        self.down = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.attn1_to_q = nn.Linear(8, 8, bias=False)
        self.attn1_to_k = nn.Linear(8, 8, bias=False)
        self.attn1_to_v = nn.Linear(8, 8, bias=False)
        self.attn2_to_k = nn.Linear(6, 8, bias=False)
        self.attn2_to_v = nn.Linear(6, 8, bias=False)
        self.ff = nn.Linear(8, 8)
        self.norm = nn.GroupNorm(2, 8)
        self.norm1 = nn.LayerNorm(8)
        self.norm2 = nn.LayerNorm(8)
        self.norm3 = nn.LayerNorm(8)
        self.te_layer_norm = nn.LayerNorm(6)
        self.conv_out = nn.Conv2d(8, 4, 1)

    def encode(self, embeddings: Tensor) -> Tensor:
        q, k, v = (
            self.te_self_attn_q_proj(embeddings),
            self.te_self_attn_k_proj(embeddings),
            self.te_self_attn_v_proj(embeddings),
        )
        return self.te_layer_norm(torch.tanh(q * k + v))

    def middle(self, x: Tensor, context: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = x + torch.tanh(self.attn1_to_q(normed) * self.attn1_to_k(normed)) + self.attn1_to_v(normed)
        scores = torch.softmax(self.norm2(x) @ self.attn2_to_k(context).transpose(1, 2), dim=-1)
        x = x + scores @ self.attn2_to_v(context)
        return x + self.ff(torch.tanh(self.norm3(x)))

    def forward(self, pixels: Tensor, embeddings: Tensor) -> Tensor:
        context = self.encode(embeddings)
        x = self.norm(self.down(torch.tanh(self.conv_in(pixels))))
        batch, channels, height, width = x.shape
        x = self.middle(x.flatten(2).transpose(1, 2), context)
        return self.conv_out(x.transpose(1, 2).reshape(batch, channels, height, width))


class World:
    """The toy, its layers as a host lists them, and inputs of the same type."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        torch.manual_seed(0)
        self.model = Toy().to(dtype).requires_grad_(False)
        self.pixels = torch.randn(2, 3, 6, 6).to(dtype)
        self.embeddings = torch.randn(2, 5, 6).to(dtype)
        self.layers = []
        for name, module in self.model.named_children():
            te = name.startswith("te_")
            kind = {nn.Linear: "linear", nn.Conv2d: "conv"}.get(type(module), "norm")
            self.layers.append(
                Layer(f"lora_{name}" if te else f"lora_unet_{name}", "te" if te else "unet", kind, module)
            )

    def network(self, name: str = "lora", *, pattern: str = "", **settings: object) -> Network:
        """A network of a row of the battery; it changes nothing yet."""
        fuse, row = bool(settings.pop("fuse", True)), ROWS[name]
        rule = LayerRule(pattern=pattern, **{"rank": row.rank, "alpha": 2.0, **settings})
        network = build_network(
            self.layers, [rule], algorithm=row.algorithm, options=row.options, seed=0, device="cpu", fuse=fuse
        )
        return network.eval() if row.draws else network

    def run(self) -> Tensor:
        return self.model(self.pixels, self.embeddings)


def perturb_weights(network: Network, *, std: float = 0.2, seed: int = 1) -> Network:
    """Move every trainable weight."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter) * std)
    return network


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def make_world() -> Callable[..., World]:
    return World


@pytest.fixture
def perturb() -> Callable[..., Network]:
    return perturb_weights


@pytest.fixture(params=[0, 1 << 17], ids=["functions", "plain"])
def either_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy is small: once with the autograd functions that large layers use, once as it comes."""
    monkeypatch.setattr("lib_pivotal.networks.kinds.lora.SMALL_OUTPUT", request.param)


@pytest.fixture
def only_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy's layers take the path of large layers."""
    monkeypatch.setattr("lib_pivotal.networks.kinds.lora.SMALL_OUTPUT", 0)
