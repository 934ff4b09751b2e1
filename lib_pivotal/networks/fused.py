"""Several layers that read the same input share one down-projection: q, k, v of self-, k, v of cross-attention.

One `(tokens, in) · (in, 3·rank)` product is cheaper than three of a third of the size, and the gradient of the input
is formed once instead of three times. The layers stay separate: own parameters, own keys in the file.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from .kinds.lora import LoraAdapter
from .ops import DownProjection

SHARED_INPUT = (
    re.compile(r"^(.*attn1)_to_[qkv]$"),
    re.compile(r"^(.*attn2)_to_[kv]$"),
    re.compile(r"^(.*self_attn)_[qkv]_proj$"),
)
"""Layers whose names agree in the captured group get the same tensor (diffusers, LDM and CLIP alike)."""


class SharedDown:
    """The down-projections of `members`, computed at the first member's call and handed out to the others.

    A product is reused only for the *same tensor object*, unmodified, with unmodified factors, in the same grad
    mode, and once a member: everything else computes anew, so a host that gives its layers different tensors
    (hypernetworks) still gets the right result. Nothing is kept once the last member has had its share.
    """

    def __init__(self, members: Sequence[LoraAdapter]) -> None:
        self.members = tuple(members)
        self._index = {id(member): i for i, member in enumerate(self.members)}
        self._products: list[Tensor | None] = []
        self._input: weakref.ref[Tensor] | None = None
        self._key: tuple[object, ...] = ()

    def project(self, adapter: LoraAdapter, x: Tensor, *, dtype: torch.dtype) -> Tensor:
        """`scale · down(x)` of `adapter`, `(tokens, rank)`."""
        index = self._index[id(adapter)]
        scales = tuple(member.scale for member in self.members)
        version = -1 if x.is_inference() else x._version
        factors = tuple(member.down._version for member in self.members)
        key = (version, dtype, torch.is_grad_enabled(), scales, factors)
        fresh = self._input is not None and self._input() is x and self._key == key
        if not fresh or self._products[index] is None:
            self._products = list(DownProjection.apply(x, dtype, scales, *(member.down for member in self.members)))
            self._input, self._key = weakref.ref(x), key
        product = self._products[index]
        self._products[index] = None
        if all(left is None for left in self._products):
            self.clear()
        if product is None:
            raise AssertionError("unreachable: the product was just computed")
        return product

    def clear(self) -> None:
        """Forget whatever was not handed out."""
        self._products, self._input, self._key = [], None, ()


def fuse(adapters: Iterable[LoraAdapter]) -> list[SharedDown]:
    """Join the adapters that read one input; the groups found, each of at least two members."""
    found: dict[str, list[LoraAdapter]] = {}
    for adapter in adapters:
        if not isinstance(adapter.layer.module, nn.Linear):
            continue
        for pattern in SHARED_INPUT:
            if match := pattern.match(adapter.layer.name):
                found.setdefault(match.group(1), []).append(adapter)
                break
    groups = []
    for members in found.values():
        if len(members) > 1 and len({member.down.shape[1] for member in members}) == 1:
            group = SharedDown(members)
            for member in members:
                member.shared = group
            groups.append(group)
    return groups
