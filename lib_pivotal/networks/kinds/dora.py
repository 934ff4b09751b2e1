"""DoRA: magnitude and direction apart, in the layout of `dora_scale` that the web UI 1.10.1 reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lib_pivotal.config_schema import setting
from lib_pivotal.networks.adapter import Adapter, AdapterSpec, Cost, Switch, layer_sizes, layer_weight, reshaped
from lib_pivotal.networks.algorithm import Algorithm
from lib_pivotal.networks.decomposed import (
    DORA_ARGUMENTS,
    DecomposedAdapter,
    InputScaling,
    channel_norm,
    decomposed_like,
    is_on_outputs,
    merged_norm,
)
from lib_pivotal.networks.ops import UpAdd
from lib_pivotal.ports import Layer

from .lora import (
    dropped,
    file_spec,
    forward_scale,
    initial_factors,
    limit_factors,
    load_factors,
    loaded_spec,
    low_rank_cost,
    low_rank_delta,
    project,
    rank_stabilised,
)
from .lora_forms import KEYS, MID, has_form, lora_like, make_tucker
from .lora_tucker import has_core


@dataclass(frozen=True)
class DoraOptions:
    """DoRA's own settings."""

    rank_stabilised: bool = rank_stabilised()
    tucker: bool = setting(
        False, "On convolutions larger than 1×1, Tucker's form: a small core convolution between two 1×1 ones."
    )


class DoraAdapter(nn.Module):
    """DoRA, Liu et al. 2024 (arXiv 2402.09353), eq. 5: `W' = m · V / ‖V‖`, `V = W + s·BA`, the norm held constant
    in the gradient (eq. 11).

    The norm runs over everything but the *input* axis, and `m` is `(1, in)` or `(1, in, 1, 1)`: the paper's
    column-wise norm, and the only layout that the web UI 1.10.1 computes (`network.py`,
    `NetworkModule.apply_weight_decompose`). peft and newer LyCORIS files hold one number an *output*: `dora_like` makes
    a `DecomposedAdapter` of those.

    With one factor `c = m / ‖V‖` an input channel, `W' x = W (c·x) + s·B A (c·x)`: a pre-hook scales the layer's input
    and the layer itself does the rest, so no second full-size product is needed. A multiplier `t` blends as the web
    UI does, `W + t·(W' - W)`: the input is scaled by `1 + t·(c - 1)` and the low-rank product by `t`.

    An input that is bf16 or fp16 already lies on that type's grid, and a factor within half a step of 1 (0.2 % in
    bf16) would round back to nothing: there the second product `W ((c - 1)·x)` is paid for.
    """

    def __init__(self, layer: Layer, spec: AdapterSpec, *, generator: torch.Generator, device: torch.device) -> None:
        super().__init__()
        weight = layer_weight(layer)
        self.layer = layer
        self.switch = Switch()
        self._spec = spec
        self._scaling = InputScaling()
        down, up = initial_factors(weight.shape, rank=spec.rank, generator=generator)
        self.down = nn.Parameter(down.to(device))
        self.up = nn.Parameter(up.to(device))
        self.magnitude = nn.Parameter(self._norm(weight).to(device))

    @property
    def spec(self) -> AdapterSpec:
        return self._spec

    def attach(self) -> list[RemovableHandle]:
        module = self.layer.module
        return [module.register_forward_pre_hook(self._pre_hook), module.register_forward_hook(self._hook)]

    def _pre_hook(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        factor = self.magnitude / self._norm(layer_weight(self.layer))
        return self._scaling.before(self.layer, args, factor, multiplier=self.switch.value)

    def _hook(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        output, scaled = self._scaling.after(self.layer, args, output, multiplier=self.switch.value)
        scale = forward_scale(self._spec, self.switch, training=self.training)
        h = project(self.layer, scaled, self.down, scale=scale, dtype=output.dtype)
        if self.training:
            h = dropped(h, self._spec, batch=scaled.shape[0])
        return UpAdd.apply(output, h, self.up)

    @torch.no_grad()
    def _norm(self, weight: Tensor) -> Tensor:
        """`‖W + s·BA‖` a input channel, `(1, in[, 1, 1])`, fp32."""
        return channel_norm(self._direction(weight), on_outputs=False)

    def _direction(self, weight: Tensor) -> Tensor:
        """`V = W + s·BA` in the parameters' type."""
        delta = low_rank_delta(self.down, self.up) * (self._spec.alpha / self._spec.rank)
        return weight.detach().to(delta) + delta

    def delta(self, weight: Tensor) -> Tensor:
        direction = self._direction(weight)
        return direction * (self.magnitude.detach() / merged_norm(direction)) - weight.detach().to(direction)

    def bias_delta(self) -> None:
        return None

    def cost(self, tokens: int) -> Cost:
        """The LoRA's, and `BA` built for the norm."""
        outputs, inputs = layer_sizes(self.layer)
        count = sum(parameter.numel() for parameter in self.parameters())
        low_rank = low_rank_cost(self.layer, self._spec.rank, tokens, parameters=count)
        built = outputs * inputs * (self._spec.rank + 1)
        return Cost(count, low_rank.multiplications + built, low_rank.kept + tokens * inputs)

    def kohya_tensors(self) -> dict[str, Tensor]:
        return {
            "lora_down.weight": self.down,
            "lora_up.weight": self.up,
            "alpha": torch.tensor(self._spec.alpha),
            "dora_scale": self.magnitude,
        }

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        magnitude = reshaped(tensors["dora_scale"], self.magnitude, layer=self.layer, suffix="dora_scale")
        self._spec = loaded_spec(self._spec, tensors)
        load_factors(self.layer, self.down, self.up, tensors)
        self.magnitude.copy_(magnitude)

    def limit_norm(self, limit: float) -> bool:
        return limit_factors(self.down, self.up, scale=self._spec.alpha / self._spec.rank, limit=limit)


def make_dora(
    layer: Layer, spec: AdapterSpec, *, options: DoraOptions, generator: torch.Generator, device: torch.device
) -> Adapter:
    """A new DoRA on `layer`."""
    if options.tucker and has_core(layer):
        return DecomposedAdapter(make_tucker(layer, spec, generator=generator, device=device))
    return DoraAdapter(layer, spec, generator=generator, device=device)


def dora_like(layer: Layer, tensors: Mapping[str, Tensor], device: torch.device) -> Adapter:
    """A DoRA of the rank and form that a file's tensors have, along their axis."""
    if MID in tensors or is_on_outputs(tensors["dora_scale"], layer_weight(layer)):
        return decomposed_like(lora_like(layer, tensors, device), tensors)
    return DoraAdapter(layer, file_spec(tensors), generator=torch.Generator(), device=device)


def dora_arguments(options: DoraOptions) -> dict[str, str]:
    """What LyCORIS would be told; its norm is over inputs, as ours, with `wd_on_output=False`."""
    told = {"rs_lora": options.rank_stabilised, "use_tucker": options.tucker}
    return {"algo": "locon", **DORA_ARGUMENTS, **{name: "True" for name, given in told.items() if given}}


ALGORITHM = Algorithm(
    name="dora",
    title="DoRA",
    summary="LoRA with each input channel's magnitude trained apart: closer to full training at a low rank.",
    make=make_dora,
    like=dora_like,
    keys=tuple(keys | {"dora_scale"} for keys in KEYS),
    optional=frozenset({"alpha"}),
    stored_so=has_form,
    options=DoraOptions,
    arguments=dora_arguments,
)
