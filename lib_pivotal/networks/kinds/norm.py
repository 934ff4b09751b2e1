"""Norms: weight and bias of layer norms and group norms are trained."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lib_pivotal.errors import NetworkError
from lib_pivotal.networks.adapter import AdapterSpec, Cost, Switch, layer_weight, load_parameters, scale_parameters
from lib_pivotal.networks.algorithm import Algorithm, NoOptions
from lib_pivotal.networks.ops import without_autocast
from lib_pivotal.ports import Layer


class NormAdapter(nn.Module):
    """`norm(x)` with `w + Δw` and `b + Δb`: the layer's output plus `Δw · x̂ + Δb`, as LyCORIS' `train_norm`.

    `w_norm` and `b_norm` have the shape of the norm's weight.
    """

    w_norm: nn.Parameter
    b_norm: nn.Parameter

    def __init__(self, layer: Layer, spec: AdapterSpec, *, device: torch.device) -> None:
        super().__init__()
        self.layer = layer
        self.switch = Switch()
        self.spec = spec
        weight, bias = layer.module.weight, layer.module.bias
        if not isinstance(weight, Tensor) or not isinstance(bias, Tensor):
            raise NetworkError(f"{layer.name}: this norm has no weight and bias of its own. Leave it out of the rules.")
        self.w_norm = nn.Parameter(torch.zeros(weight.shape, device=device))
        self.b_norm = nn.Parameter(torch.zeros(weight.shape, device=device))

    def attach(self) -> list[RemovableHandle]:
        return [self.layer.module.register_forward_hook(self._hook)]

    def _hook(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x, weight, bias = args[0].to(self.w_norm.dtype), self.w_norm, self.b_norm
        with without_autocast(x.device.type):
            if isinstance(module, nn.GroupNorm):
                change = F.group_norm(x, module.num_groups, weight, bias, module.eps)
            else:
                assert isinstance(module, nn.LayerNorm)
                change = F.layer_norm(x, module.normalized_shape, weight, bias, module.eps)
        return output + (change * self.switch.value).to(output.dtype)

    # ---- files and norms ----

    def delta(self, weight: Tensor) -> Tensor:
        return self.w_norm.detach()

    def bias_delta(self) -> Tensor:
        return self.b_norm.detach()

    def cost(self, tokens: int) -> Cost:
        width = layer_weight(self.layer).numel()
        return Cost(2 * width, 6 * tokens * width, tokens * width)

    def kohya_tensors(self) -> dict[str, Tensor]:
        return dict(self.named_parameters())

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        load_parameters(self, self.layer, tensors)

    def limit_norm(self, limit: float) -> bool:
        return scale_parameters([self.w_norm], norm=float(self.w_norm.norm()), limit=limit)


def make_norm(
    layer: Layer, spec: AdapterSpec, *, options: NoOptions, generator: torch.Generator, device: torch.device
) -> NormAdapter:
    """A new change of a norm: zero."""
    return NormAdapter(layer, spec, device=device)


def norm_like(layer: Layer, tensors: Mapping[str, Tensor], device: torch.device) -> NormAdapter:
    """A change of a norm; its size is the layer's."""
    return NormAdapter(layer, AdapterSpec(rank=1, alpha=1.0), device=device)


ALGORITHM = Algorithm(
    name="norm",
    title="Norms",
    summary="Weight and bias of the norms alone; as a group's kind beside another network, what LyCORIS calls "
    "train_norm.",
    make=make_norm,
    like=norm_like,
    keys=(frozenset({"w_norm", "b_norm"}),),
    common=frozenset(),
    layers=frozenset({"norm"}),
    arguments=lambda options: {"algo": "full", "train_norm": "True"},
)
