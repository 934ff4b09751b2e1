"""sgm's copy of ldm's cross attention: a class of its own, whose `forward` the web UI replaces too."""

from __future__ import annotations

import ldm.modules.attention
from torch import Tensor

_forward = ldm.modules.attention.CrossAttention.forward


class CrossAttention(ldm.modules.attention.CrossAttention):
    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        return _forward(self, x, context, mask)
