"""OpenCLIP's attention with q, k and v as layers of their own, so that a network can be attached to each.

`nn.MultiheadAttention` keeps the three in one matrix `in_proj_weight` and hands its weights to a function: hooks on its
parts are never called. Inside `split()` its forward is ours: the same operations on the same operands, in the order of
`torch.nn.functional.multi_head_attention_forward` for self-attention, so the same bits, but through modules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


class Third(nn.Linear):
    """q (0), k (1) or v (2) of an attention: its weights are rows of the attention's own, never copies.

    While the attention runs, all three are computed as one product, as torch does it; a hook that replaces the input
    (DoRA's) gets its own product.
    """

    def __init__(self, attention: nn.MultiheadAttention, third: int) -> None:
        nn.Module.__init__(self)  # no parameters of its own
        self.in_features = self.out_features = attention.embed_dim
        self.third = third
        self.__dict__["_attention"] = attention  # not a child: it belongs to the model
        self._shared: tuple[Tensor, Tensor] | None = None

    def _rows(self, whole: Tensor) -> Tensor:
        return whole[self.third * self.out_features : (self.third + 1) * self.out_features]

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """`(width, width)`, a view."""
        return self._rows(self.__dict__["_attention"].in_proj_weight)

    @property
    def bias(self) -> Tensor:  # type: ignore[override]
        """`(width,)`, a view."""
        return self._rows(self.__dict__["_attention"].in_proj_bias)

    def share(self, x: Tensor | None, product: Tensor | None) -> None:
        """Have `product` ready as the answer to `x`; None forgets it."""
        self._shared = None if x is None or product is None else (x, product)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name
        if self._shared is not None and self._shared[0] is input:
            return self._shared[1]
        return F.linear(input, self.weight, self.bias)


class SplitAttention:
    """One attention and its three thirds."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        self.attention = attention
        self.thirds = tuple(Third(attention, third) for third in range(3))

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, attn_mask: Tensor | None = None, **rest: Any
    ) -> tuple[Tensor, None]:
        """`query` `(length, batch, width)`, which must be `key` and `value` too; as open_clip calls it."""
        attention = self.attention
        if key is not query or value is not query or rest.get("need_weights", False):
            raise AssertionError("unreachable: a text encoder attends to itself")
        length, batch, width = query.shape
        heads = attention.num_heads
        packed = F.linear(query, attention.in_proj_weight, attention.in_proj_bias)
        packed = packed.unflatten(-1, (3, width))
        try:
            for number, third in enumerate(self.thirds):
                # a copy each, and no view of a common tensor: adapters write into their layer's output
                third.share(query, packed[..., number, :].contiguous())
            projected = [third(query) for third in self.thirds]
        finally:
            for third in self.thirds:
                third.share(None, None)
        q, k, v = (
            x.view(length, batch * heads, width // heads).transpose(0, 1).view(batch, heads, length, width // heads)
            for x in projected
        )
        mask = None if attn_mask is None else attn_mask[None, None]
        attended = F.scaled_dot_product_attention(q, k, v, mask)
        attended = attended.permute(2, 0, 1, 3).contiguous().view(length * batch, width)
        return attention.out_proj(attended).view(length, batch, width), None


@contextmanager
def split(attentions: Iterable[SplitAttention]) -> Iterator[None]:
    """Inside, the attentions run through their thirds; their own forward is back afterwards."""
    attentions = list(attentions)
    try:
        for each in attentions:
            each.attention.forward = each.forward  # type: ignore[assignment, method-assign]
        yield
    finally:
        for each in attentions:
            each.attention.__dict__.pop("forward", None)
