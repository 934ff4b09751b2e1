"""Cross attention computed otherwise; what a fresh start on a CPU takes is InvokeAI's."""

from __future__ import annotations

from typing import Any

import sgm.modules.diffusionmodules.model
import torch
from torch import Tensor

sgm_diffusionmodules_model_AttnBlock_forward = sgm.modules.diffusionmodules.model.AttnBlock.forward  # noqa: N816


def scaled_dot_product_attention_forward(
    self: Any, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None, **kwargs: Any
) -> Tensor:
    context = x if context is None else context
    q, k, v = (
        each.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        for each in (self.to_q(x), self.to_k(context), self.to_v(context))
    )
    return self.to_out(torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2))


def split_cross_attention_forward_invokeAI(  # noqa: N802
    self: Any, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None, **kwargs: Any
) -> Tensor:
    context = x if context is None else context
    q, k, v = self.to_q(x), self.to_k(context) * self.scale, self.to_v(context)
    q, k, v = (each.unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in (q, k, v))
    weights = (q @ k.transpose(-1, -2)).softmax(-1)
    return self.to_out((weights @ v).transpose(1, 2).flatten(-2))
