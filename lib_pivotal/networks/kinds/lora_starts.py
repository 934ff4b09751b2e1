"""LoRA that begins in the layer's own main directions (PiSSA, OLoRA), kept as a normal LoRA of twice the rank.

Both methods train `A`, `B` from a start `A₀`, `B₀` made of the weight, and take `s·B₀A₀` off the weight. Here it is not
touched: the change is `s·(BA - B₀A₀) = s·[B, B - B₀] [A - A₀; A₀]`, exactly, and that is what a file holds. It is zero
at first, and a small change is made of small numbers; `[B, -B₀] [A; A₀]` is one of large ones, which fp16 would round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lib_pivotal.errors import NetworkError
from lib_pivotal.networks.adapter import AdapterSpec, Cost, Switch, layer_weight, reshaped
from lib_pivotal.networks.ops import UpAdd, without_autocast
from lib_pivotal.ports import Layer

from .lora import add_low_rank, dropped, forward_scale, low_rank_cost, low_rank_delta, project

Start = Callable[[Tensor, int], tuple[Tensor, Tensor]]
"""`down` `(rank, in)` and `up` `(out, rank)` of a matrix `(out, in)`."""


def principal(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """PiSSA, Meng et al. 2024 (arXiv 2404.02948), eq. 2 and 3: the largest singular values, their roots in both."""
    u, singular, v = torch.linalg.svd(matrix, full_matrices=False)
    root = singular[:rank].sqrt()
    return root[:, None] * v[:rank], u[:, :rank] * root


def orthonormal(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """OLoRA, Büyükakyüz 2024 (arXiv 2406.01775), algorithm 1: the first columns of Q, the first rows of R."""
    q, r = torch.linalg.qr(matrix)
    return r[:rank], q[:, :rank]


STARTS: Mapping[str, Start] = {"pissa": principal, "olora": orthonormal}


class StartedLoraAdapter(nn.Module):
    """`y + s·(BA - B₀A₀) x`; `down` (A) and `up` (B) are shaped as `LoraAdapter`'s, a file has twice their rank."""

    start_down: Tensor
    start_up: Tensor

    def __init__(self, layer: Layer, spec: AdapterSpec, down: Tensor, up: Tensor) -> None:
        super().__init__()
        self.layer = layer
        self.switch = Switch()
        self.spec = spec
        self.down = nn.Parameter(down)
        self.up = nn.Parameter(up)
        self.register_buffer("start_down", down.clone())
        self.register_buffer("start_up", up.clone())

    def attach(self) -> list[RemovableHandle]:
        return [self.layer.module.register_forward_hook(self._hook)]

    def _hook(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x, (down, up) = args[0], self._pair()
        scale = forward_scale(self.spec, self.switch, training=self.training)
        if not self.training or self.spec.dropout == self.spec.rank_dropout == 0:
            return add_low_rank(self.layer, output, x, down, up, scale=scale)
        with without_autocast(x.device.type):
            h = project(self.layer, x, down, scale=scale, dtype=output.dtype)
            # one mask for what is trained and its start: at first the change is zero under it too
            kept = dropped(torch.ones_like(h[:, : self.spec.rank]), self.spec, batch=x.shape[0])
            return UpAdd.apply(output, h * torch.cat([kept, kept], dim=1), up)

    def _pair(self) -> tuple[Tensor, Tensor]:
        """`[A - A₀; A₀]` and `[B, B - B₀]`."""
        down = torch.cat([self.down - self.start_down, self.start_down])
        return down, torch.cat([self.up, self.up - self.start_up], dim=1)

    # ---- files and norms ----

    @torch.no_grad()
    def delta(self, weight: Tensor) -> Tensor:
        return low_rank_delta(*self._pair()) * (self.spec.alpha / self.spec.rank)

    def bias_delta(self) -> None:
        return None

    def cost(self, tokens: int) -> Cost:
        count = sum(parameter.numel() for parameter in self.parameters())
        return low_rank_cost(self.layer, 2 * self.spec.rank, tokens, parameters=count)

    def kohya_tensors(self) -> dict[str, Tensor]:
        down, up = self._pair()
        return {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(2.0 * self.spec.alpha)}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Of a file of twice the rank: its second half tells the start."""
        own_down, own_up = self._pair()
        down = reshaped(tensors["lora_down.weight"], own_down, layer=self.layer, suffix="lora_down.weight").to(own_down)
        up = reshaped(tensors["lora_up.weight"], own_up, layer=self.layer, suffix="lora_up.weight").to(own_up)
        rank = self.spec.rank
        alpha = float(tensors["alpha"]) / 2 if "alpha" in tensors else float(rank)
        self.spec = AdapterSpec(rank, alpha, self.spec.dropout, self.spec.rank_dropout)
        self.start_down.copy_(down[rank:])
        self.down.copy_(down[:rank] + down[rank:])
        self.up.copy_(up[:, :rank])
        self.start_up.copy_(up[:, :rank] - up[:, rank:])

    @torch.no_grad()
    def limit_norm(self, limit: float) -> bool:
        """Back towards the start until the change is no larger than `limit`."""
        norm = self._norm()
        if norm <= limit:
            return False
        while norm > limit:
            for own, start in ((self.down, self.start_down), (self.up, self.start_up)):
                own.copy_(torch.lerp(start, own, min(limit / norm, 0.9999)))  # else rounding might hold it above
            norm = self._norm()
        return True

    def _norm(self) -> float:
        return float(self.delta(layer_weight(self.layer)).norm())


def started_lora(layer: Layer, spec: AdapterSpec, *, start: str, device: torch.device) -> StartedLoraAdapter:
    """A LoRA begun as `start` says, with `s·B₀A₀` a part of the layer's weight as in peft (tuners/lora/layer.py)."""
    if spec.alpha == 0:
        raise NetworkError(f"{layer.name}: alpha = 0 leaves {start} no start. Give an alpha above 0.")
    weight = layer_weight(layer).detach().float()
    matrix = weight.flatten(1)
    rank = min(spec.rank, *matrix.shape)
    down, up = STARTS[start](matrix, rank)
    if start == "pissa":  # its part of the weight is the same at any scale; OLoRA's is scaled
        root = (spec.alpha / spec.rank) ** 0.5
        down, up = down / root, up / root
    # more ranks than the layer has: those begin, and stay, at nothing
    down = torch.cat([down, down.new_zeros(spec.rank - rank, down.shape[1])])
    up = torch.cat([up, up.new_zeros(up.shape[0], spec.rank - rank)], dim=1)
    return StartedLoraAdapter(
        layer,
        spec,
        down.view(spec.rank, *weight.shape[1:]).to(device),
        up.view(weight.shape[0], spec.rank, *[1] * (weight.dim() - 2)).contiguous().to(device),
    )
