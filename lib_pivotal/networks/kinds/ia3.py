"""(IA)³: each output (or input) of a layer is scaled by one trained number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lib_pivotal.config_schema import setting
from lib_pivotal.networks.adapter import AdapterSpec, Cost, Switch, layer_sizes, layer_weight, scale_parameters
from lib_pivotal.networks.algorithm import Algorithm
from lib_pivotal.ports import Layer

SECOND_OF_FEED_FORWARD = ("_ff_net_2", "_mlp_fc2")
"""How the kohya names of the layers end whose input the paper scales."""


@dataclass(frozen=True)
class Ia3Options:
    """(IA)³'s own settings."""

    on_input: str = setting(
        "feed-forward",
        "Which layers are scaled on their inputs, and the others on their outputs: the second layer of each "
        "feed-forward (as in the paper), all, or none.",
        choices=("feed-forward", "all", "none"),
    )

    def scales_input(self, layer: Layer) -> bool:
        """Whether this layer is one of them."""
        return self.on_input == "all" or (
            self.on_input == "feed-forward" and layer.name.endswith(SECOND_OF_FEED_FORWARD)
        )


class Ia3Adapter(nn.Module):
    """(IA)³, Liu et al. 2022 (arXiv 2205.05638), section 3.3, as LyCORIS writes it: `W' = W + w ∘ W`.

    `weight` `(out,)` scales rows of `W` (outputs without the bias), or `(in,)` its columns.

    An input that is bf16 or fp16 lies on that type's grid, where a factor within half a step of 1 would round back to
    nothing: there `W (w ∘ x)` is a second product.
    """

    def __init__(self, layer: Layer, spec: AdapterSpec, weight: Tensor, *, on_input: bool) -> None:
        super().__init__()
        self.layer = layer
        self.switch = Switch()
        self.spec = spec
        self.on_input = on_input
        self.weight = nn.Parameter(weight)
        self._pending: Tensor | None = None

    def attach(self) -> list[RemovableHandle]:
        after = self.layer.module.register_forward_hook(self._hook)
        if not self.on_input:
            return [after]
        return [self.layer.module.register_forward_pre_hook(self._pre_hook), after]

    def _pre_hook(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x, *rest = args
        gain = self._along_channels(x)
        if x.dtype in (torch.bfloat16, torch.float16):
            self._pending = (x * gain).to(x.dtype)
            return args
        return (x * (1.0 + gain)).to(x.dtype), *rest

    def _hook(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if self.on_input:
            scaled, self._pending = self._pending, None
            return output if scaled is None else output + self._bare(scaled).to(output.dtype)
        gain = self._along_channels(output).to(output.dtype)
        bias = getattr(module, "bias", None)
        product = output if bias is None else output - self._shaped(bias, output).to(output.dtype)
        return torch.addcmul(output, product, gain)

    def _along_channels(self, x: Tensor) -> Tensor:
        """`multiplier · w`, to be multiplied with a tensor of channels like `x`."""
        return self._shaped(self.weight * self.switch.value, x)

    def _shaped(self, vector: Tensor, like: Tensor) -> Tensor:
        return vector if self.layer.kind == "linear" else vector.view(1, -1, *[1] * (like.dim() - 2))

    def _bare(self, x: Tensor) -> Tensor:
        module, weight = self.layer.module, layer_weight(self.layer)
        return module._conv_forward(x, weight, None) if isinstance(module, nn.Conv2d) else F.linear(x, weight)

    # ---- files and norms ----

    @torch.no_grad()
    def delta(self, weight: Tensor) -> Tensor:
        ones = [1] * (weight.dim() - 2)
        shape = (1, -1, *ones) if self.on_input else (-1, 1, *ones)
        return weight.to(self.weight) * self.weight.view(shape)

    def bias_delta(self) -> None:
        return None

    def cost(self, tokens: int) -> Cost:
        outputs, inputs = layer_sizes(self.layer)
        width = inputs if self.on_input else outputs
        return Cost(self.weight.numel(), 3 * tokens * width, tokens * width)

    def kohya_tensors(self) -> dict[str, Tensor]:
        """On a convolution's outputs as `(out, 1, 1, 1)` with `on_input` 1: the web UI 1.10.1 multiplies that as it is,
        while what LyCORIS writes, `(1, out, 1, 1)` with 0, it cannot merge (network_ia3.py, `w.reshape(-1, 1)`)."""
        if self.layer.kind == "linear":
            return {"weight": self.weight, "on_input": torch.tensor(int(self.on_input))}
        shape = (1, -1, 1, 1) if self.on_input else (-1, 1, 1, 1)
        return {"weight": self.weight.view(shape), "on_input": torch.tensor(1)}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        self.weight.copy_(tensors["weight"].reshape(self.weight.shape))

    def limit_norm(self, limit: float) -> bool:
        norm = float(self.delta(layer_weight(self.layer)).norm())
        return scale_parameters([self.weight], norm=norm, limit=limit)


def make_ia3(
    layer: Layer, spec: AdapterSpec, *, options: Ia3Options, generator: torch.Generator, device: torch.device
) -> Ia3Adapter:
    """A new (IA)³ on `layer`: all zero, so that nothing is scaled."""
    on_input = options.scales_input(layer)
    width = layer_weight(layer).shape[1 if on_input else 0]
    return Ia3Adapter(layer, spec, torch.zeros(width, device=device), on_input=on_input)


def ia3_like(layer: Layer, tensors: Mapping[str, Tensor], device: torch.device) -> Ia3Adapter:
    """An (IA)³ on the side that a file's tensors say."""
    weight = tensors["weight"]
    of_outputs = weight.dim() > 1 and weight.shape[0] > 1  # as `kohya_tensors` writes a convolution's
    on_input = bool(tensors["on_input"].item()) and not of_outputs
    return Ia3Adapter(
        layer, AdapterSpec(rank=1, alpha=1.0), torch.zeros(weight.numel(), device=device), on_input=on_input
    )


def ia3_arguments(options: Ia3Options) -> dict[str, str]:
    """kohya's `--network_args` for LyCORIS, whose preset ia3 is the paper's choice of sides."""
    told = {"feed-forward": {"preset": "ia3"}, "all": {"train_on_input": "True"}, "none": {}}
    return {"algo": "ia3", **told[options.on_input]}


ALGORITHM = Algorithm(
    name="ia3",
    title="(IA)³",
    summary="One factor a channel: files of a few KB, for a style or a small change; needs a learning rate 10 to 50 "
    "times that of a LoRA.",
    make=make_ia3,
    like=ia3_like,
    keys=(frozenset({"weight", "on_input"}),),
    options=Ia3Options,
    common=frozenset(),
    arguments=ia3_arguments,
)
