"""Full difference: every number of a layer's weight is trained, and its bias."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lib_pivotal.config_schema import setting
from lib_pivotal.networks.adapter import (
    AdapterSpec,
    Cost,
    Switch,
    layer_sizes,
    layer_weight,
    load_parameters,
    own_convolution,
    scale_parameters,
)
from lib_pivotal.networks.algorithm import Algorithm
from lib_pivotal.networks.ops import RebuiltAdd
from lib_pivotal.ports import Layer

BIAS_IS_DROPPED = ("_self_attn_q_proj", "_self_attn_k_proj", "_self_attn_v_proj")
"""Where the web UI 1.10.1 drops a change of the bias: on OpenCLIP's attention (networks.py, `updown_q, _ = ...`). Such
names are CLIP-L's too, and a file does not say which encoder it is for."""


@dataclass(frozen=True)
class FullOptions:
    """Full difference's own settings."""

    biases: bool = setting(
        True, "Biases are trained too, but for those of q, k and v in text encoders, which the web UI cannot load."
    )


class FullAdapter(nn.Module):
    """`y + ΔW x + Δb`, as Custom Diffusion trains k and v of cross-attention (Kumari et al. 2022, arXiv 2212.04488).

    `diff` has the shape of the layer's weight, `diff_b` that of its bias.
    """

    diff: nn.Parameter
    diff_b: nn.Parameter | None

    def __init__(self, layer: Layer, spec: AdapterSpec, diff: Tensor, diff_b: Tensor | None) -> None:
        super().__init__()
        self.layer = layer
        self.switch = Switch()
        self.spec = spec
        self.diff = nn.Parameter(diff)
        self.diff_b = None if diff_b is None else nn.Parameter(diff_b)

    def attach(self) -> list[RemovableHandle]:
        return [self.layer.module.register_forward_hook(self._hook)]

    def _hook(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        changed = RebuiltAdd.apply(output, args[0], own_convolution(self.layer), _itself, self.switch.value, self.diff)
        if self.diff_b is None:
            return changed
        shift = (self.diff_b * self.switch.value).to(changed.dtype)
        return changed + (shift if self.layer.kind == "linear" else shift[:, None, None])

    # ---- files and norms ----

    def delta(self, weight: Tensor) -> Tensor:
        return self.diff.detach()

    def bias_delta(self) -> Tensor | None:
        return None if self.diff_b is None else self.diff_b.detach()

    def cost(self, tokens: int) -> Cost:
        outputs, inputs = layer_sizes(self.layer)
        count = sum(parameter.numel() for parameter in self.parameters())
        return Cost(count, 3 * tokens * inputs * outputs, tokens * inputs, rebuilt=True)

    def kohya_tensors(self) -> dict[str, Tensor]:
        return dict(self.named_parameters())

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        load_parameters(self, self.layer, tensors)

    def limit_norm(self, limit: float) -> bool:
        return scale_parameters([self.diff], norm=float(self.diff.norm()), limit=limit)


def _itself(diff: Tensor) -> Tensor:
    return diff


def make_full(
    layer: Layer, spec: AdapterSpec, *, options: FullOptions, generator: torch.Generator, device: torch.device
) -> FullAdapter:
    """A new difference on `layer`: zero."""
    has_bias = getattr(layer.module, "bias", None) is not None
    with_bias = options.biases and has_bias and not layer.name.endswith(BIAS_IS_DROPPED)
    zero = torch.zeros(layer_weight(layer).shape, device=device)
    return FullAdapter(layer, spec, zero, torch.zeros(zero.shape[0], device=device) if with_bias else None)


def full_like(layer: Layer, tensors: Mapping[str, Tensor], device: torch.device) -> FullAdapter:
    """A difference, with one of the bias where a file has it."""
    zero = torch.zeros(layer_weight(layer).shape, device=device)
    bias = torch.zeros(zero.shape[0], device=device) if "diff_b" in tensors else None
    return FullAdapter(layer, AdapterSpec(rank=1, alpha=1.0), zero, bias)


ALGORITHM = Algorithm(
    name="full",
    title="Full difference",
    summary="Every number of the chosen layers; for a few layers, such as k and v of cross-attention.",
    make=make_full,
    like=full_like,
    keys=(frozenset({"diff"}),),
    optional=frozenset({"diff_b"}),
    options=FullOptions,
    common=frozenset(),
    arguments=lambda options: {"algo": "full"},
)
