"""ldm's transformer of the U-Net: cross attention, feed-forward, block, and the block's frame."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CrossAttention(nn.Module):
    """Heads over `context`, or over the input itself; the web UI replaces `forward` of this class."""

    def __init__(self, query_dim: int, context_dim: int | None = None, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (query_dim // heads) ** -0.5
        context_dim = query_dim if context_dim is None else context_dim
        self.to_q = nn.Linear(query_dim, query_dim, bias=False)
        self.to_k = nn.Linear(context_dim, query_dim, bias=False)
        self.to_v = nn.Linear(context_dim, query_dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(query_dim, query_dim), nn.Dropout(0.0))

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        context = x if context is None else context
        q, k, v = (
            each.unflatten(-1, (self.heads, -1)) for each in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        weights = torch.einsum("bihd,bjhd->bhij", q, k).mul(self.scale).softmax(-1)
        return self.to_out(torch.einsum("bhij,bjhd->bihd", weights, v).flatten(-2))


class GEGLU(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, inner * 2)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.proj(x).chunk(2, dim=-1)
        return x * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GEGLU(width, 2 * width), nn.Dropout(0.0), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class BasicTransformerBlock(nn.Module):
    """`checkpoint` says whether ldm's own checkpointing is on; a fresh one has it on."""

    def __init__(self, width: int, context_dim: int, attention: type[nn.Module] = CrossAttention) -> None:
        super().__init__()
        self.attn1 = attention(width)
        self.ff = FeedForward(width)
        self.attn2 = attention(width, context_dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.checkpoint = True

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = self.attn1(self.norm1(x)) + x
        x = self.attn2(self.norm2(x), context=context) + x
        return self.ff(self.norm3(x)) + x


class SpatialTransformer(nn.Module):
    """Pixels as tokens; `use_linear` as in SD2 and SDXL, whose projections are no convolutions."""

    def __init__(self, width: int, context_dim: int, *, use_linear: bool, attention: type[nn.Module]) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.use_linear = use_linear
        project = (lambda: nn.Linear(width, width)) if use_linear else (lambda: nn.Conv2d(width, width, 1))
        self.proj_in = project()
        self.transformer_blocks = nn.ModuleList([BasicTransformerBlock(width, context_dim, attention)])
        self.proj_out = project()

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        size, residual, x = x.shape[-2:], x, self.norm(x)
        if not self.use_linear:
            x = self.proj_in(x)
        x = x.flatten(2).transpose(1, 2)
        if self.use_linear:
            x = self.proj_in(x)
        for block in self.transformer_blocks:
            x = block(x, context=context)
        if self.use_linear:
            x = self.proj_out(x)
        x = x.transpose(1, 2).unflatten(-1, size)
        return residual + (x if self.use_linear else self.proj_out(x))
