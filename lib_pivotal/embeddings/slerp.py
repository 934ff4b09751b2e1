"""Test-time embedding adjustment (TEA): shorter vectors, turned towards the init text, for prompts that the embedding
would otherwise swallow.

Of each row v and the init text's row t, with û = v/‖v‖, t̂ = t/‖t‖ and θ the angle between them:

    v ← norm · ‖v‖ · slerp(û, t̂; s)        slerp(û, t̂; s) = (sin((1-s)θ) · û + sin(sθ) · t̂) / sin θ

"Mitigating Semantic Collapse in Generative Personalization with a Surprisingly Simple Test-Time Embedding Adjustment",
arXiv:2506.22685; its code is `adjust_norm_and_slerp` in
https://github.com/tuananhbui89/Embedding-Adjustment/blob/b8c3cab9f8599439a1fbc4885b4f77436136cded/algo_adjust_embedding.py
Its authors propose α = 0.5 and ρ = s = 0.2. Two things differ, on purpose:

* their α moves the norm to (1-α)‖v‖ + α‖t‖. That is our factor 1 - α + α‖t‖/‖v‖; a plain factor needs no init text, and
  means the same on every checkpoint;
* where θ is next to 0 or π they interpolate on the chord, which for opposite rows goes through zero. Here the row is
  turned in the plane of û and what of t̂ is perpendicular to it: the same where θ is neither, and the norm is kept
  everywhere. Opposite rows have no such plane; one is chosen.
"""

from __future__ import annotations

import torch
from torch import Tensor

_PERPENDICULAR = 1e-9
"""Below this sine (in float64) two rows lie on one line."""


def adjusted_rows(rows: Tensor, init: Tensor | None, *, norm: float = 1.0, init_share: float = 0.0) -> Tensor:
    """An embedding's vectors `(n, width)` adjusted: fp32 on the CPU; at (1, 0) `rows` themselves.

    `init` `(m, width)` are the init text's rows, None: the directions stay. Row i goes with row i mod m, from which
    training began it (`initial`); an init row of zeros has no direction, and its row keeps its own. Computed in
    float64 on the CPU wherever `rows` are, so that a picture and a file that was written get the same bits.
    """
    if norm == 1 and (init_share == 0 or init is None):
        return rows
    exact = rows.detach().to("cpu", torch.float64)
    if init is not None and init_share > 0:
        target = init.detach().to("cpu", torch.float64)[torch.arange(rows.shape[0]) % init.shape[0]]
        exact = _turned(exact, target, init_share)
    return (norm * exact).float()


def _turned(rows: Tensor, target: Tensor, share: float) -> Tensor:
    """Each row turned by `share` of its angle to the row of `target`; norms stay."""
    norms, target_norms = rows.norm(dim=1, keepdim=True), target.norm(dim=1, keepdim=True)
    tiny = torch.finfo(rows.dtype).tiny
    unit, towards = rows / norms.clamp_min(tiny), target / target_norms.clamp_min(tiny)
    cosine = (unit * towards).sum(dim=1, keepdim=True)
    across = towards - cosine * unit
    sine = across.norm(dim=1, keepdim=True)
    across = torch.where(sine > _PERPENDICULAR, across / sine.clamp_min(tiny), _any_perpendicular(unit))
    angle = share * torch.atan2(sine, cosine)
    turned = norms * (torch.cos(angle) * unit + torch.sin(angle) * across)
    return torch.where((norms > 0) & (target_norms > 0), turned, rows)


def _any_perpendicular(unit: Tensor) -> Tensor:
    """A unit row perpendicular to each: its smallest entry's axis, without what of it lies along the row."""
    axis = torch.zeros_like(unit).scatter(1, unit.abs().argmin(dim=1, keepdim=True), 1.0)
    across = axis - (axis * unit).sum(dim=1, keepdim=True) * unit
    return across / across.norm(dim=1, keepdim=True).clamp_min(torch.finfo(unit.dtype).tiny)
