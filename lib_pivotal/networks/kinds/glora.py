"""GLoRA: one low-rank change of a layer's input, one of its output."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lib_pivotal.networks.adapter import (
    AdapterSpec,
    Cost,
    Switch,
    layer_sizes,
    layer_weight,
    reshaped,
    scale_parameters,
)
from lib_pivotal.networks.algorithm import Algorithm, NoOptions
from lib_pivotal.networks.ops import without_autocast
from lib_pivotal.ports import Layer

from .lora import add_low_rank, initial_factors

SUFFIXES = {"a1": "a1.weight", "a2": "a2.weight", "b1": "b1.weight", "b2": "b2.weight"}


class GloraAdapter(nn.Module):
    """GLoRA, Chavan et al. 2023 (arXiv 2306.07967), eq. 8 with two low-rank terms: `ΔW = W A₂A₁ + B₂B₁`.

    `a1` `(rank, in)`, `a2` `(in, rank)`, `b1` `(rank, in)`, `b2` `(out, rank)`: the layout that the web UI 1.10.1
    merges (network_glora.py), and without a scale, which it does not apply.

    `(W + ΔW) x = W (x + A₂A₁x) + B₂B₁x`: the first term changes what goes into the frozen layer, the second what comes
    out.
    """

    def __init__(self, layer: Layer, spec: AdapterSpec, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.layer = layer
        self.switch = Switch()
        self.spec = spec
        self.a1 = nn.Parameter(tensors["a1"])
        self.a2 = nn.Parameter(tensors["a2"])
        self.b1 = nn.Parameter(tensors["b1"])
        self.b2 = nn.Parameter(tensors["b2"])
        self._pending: Tensor | None = None

    def attach(self) -> list[RemovableHandle]:
        module = self.layer.module
        return [module.register_forward_pre_hook(self._pre_hook), module.register_forward_hook(self._hook)]

    def _pre_hook(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x, *rest = args
        self._pending = x
        with without_autocast(x.device.type):
            h = F.linear(x, (self.a1 * self.switch.value).to(x.dtype))
            return x + F.linear(h, self.a2.to(x.dtype)), *rest

    def _hook(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x, self._pending = self._pending, None
        assert x is not None
        return add_low_rank(self.layer, output, x, self.b1, self.b2, scale=self.switch.value)

    # ---- files and norms ----

    @torch.no_grad()
    def delta(self, weight: Tensor) -> Tensor:
        return weight.to(self.a2) @ self.a2 @ self.a1 + self.b2 @ self.b1

    def bias_delta(self) -> None:
        return None

    def cost(self, tokens: int) -> Cost:
        outputs, inputs = layer_sizes(self.layer)
        rank, count = self.spec.rank, sum(parameter.numel() for parameter in self.parameters())
        return Cost(count, 3 * tokens * rank * (3 * inputs + outputs), tokens * (inputs + 2 * rank))

    def kohya_tensors(self) -> dict[str, Tensor]:
        """`alpha` is the rank: the web UI wants the key, and LyCORIS divides it by the rank."""
        own = {suffix: self.get_parameter(name) for name, suffix in SUFFIXES.items()}
        return {**own, "alpha": torch.tensor(float(self.spec.rank))}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        found = _as_stored(self.layer, tensors)
        for name, suffix in SUFFIXES.items():
            own = self.get_parameter(name)
            own.copy_(reshaped(found[name], own, layer=self.layer, suffix=suffix))

    def limit_norm(self, limit: float) -> bool:
        """Both terms by the same factor, each in its two matrices."""
        norm = float(self.delta(layer_weight(self.layer)).norm())
        if norm <= limit:
            return False
        for pair in ((self.a1, self.a2), (self.b1, self.b2)):
            scale_parameters(pair, norm=norm, limit=limit)
        return True


def _as_stored(layer: Layer, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A file's matrices in our layout. LyCORIS 2 and later calls the first of each pair the second, and scales."""
    found = {name: tensors[suffix] for name, suffix in SUFFIXES.items()}
    if found["a1"].shape[1] == layer_weight(layer).shape[1]:
        return found
    rank = found["a1"].shape[1]
    scale = float(tensors["alpha"]) / rank if "alpha" in tensors else 1.0
    return {"a1": found["a2"], "a2": found["a1"] * scale, "b1": found["b2"], "b2": found["b1"] * scale}


def make_glora(
    layer: Layer, spec: AdapterSpec, *, options: NoOptions, generator: torch.Generator, device: torch.device
) -> GloraAdapter:
    """A new GLoRA on `layer`, each pair begun as a LoRA begins."""
    shape = layer_weight(layer).shape
    (a1, a2), (b1, b2) = (
        initial_factors(torch.Size(size), rank=spec.rank, generator=generator)
        for size in ((shape[1], shape[1]), (shape[0], shape[1]))
    )
    tensors = {"a1": a1, "a2": a2, "b1": b1, "b2": b2}
    return GloraAdapter(layer, spec, {name: tensor.to(device) for name, tensor in tensors.items()})


def glora_like(layer: Layer, tensors: Mapping[str, Tensor], device: torch.device) -> GloraAdapter:
    """A GLoRA of the rank that a file's tensors have."""
    found = _as_stored(layer, tensors)
    spec = AdapterSpec(rank=found["a1"].shape[0], alpha=float(found["a1"].shape[0]))
    return GloraAdapter(layer, spec, {name: torch.zeros_like(tensor, device=device) for name, tensor in found.items()})


ALGORITHM = Algorithm(
    name="glora",
    title="GLoRA",
    summary="A LoRA on a layer's input and one on its output; for linear layers, since the web UI can merge no other.",
    make=make_glora,
    like=glora_like,
    keys=(frozenset(SUFFIXES.values()),),
    optional=frozenset({"alpha"}),
    common=frozenset({"rank", "up_lr_factor"}),
    up=frozenset({"a2", "b2"}),
    layers=frozenset({"linear"}),
    arguments=lambda options: {"algo": "glora"},
)
