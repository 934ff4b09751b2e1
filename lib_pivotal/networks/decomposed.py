"""DoRA over any kind that adds a product to its layer's output: magnitude and direction apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lib_pivotal.config_schema import setting
from lib_pivotal.ports import Layer

from .adapter import Adapter, AdapterSpec, Cost, Switch, layer_sizes, layer_weight, reshaped
from .ops import without_autocast

DORA_ARGUMENTS = {"dora_wd": "True", "wd_on_output": "False"}
"""kohya's `--network_args` for what is made here: LyCORIS' norm over inputs."""


def weight_decompose() -> Any:
    """The setting that kinds share which can be decomposed."""
    return setting(
        False, "DoRA: the magnitude of each input channel is trained apart from its direction, for a little more time."
    )


class Additive(Adapter, Protocol):
    """An adapter that adds `ΔW x` to the layer's output."""

    def apply_to(self, y: Tensor, x: Tensor) -> Tensor:
        """`y + multiplier · ΔW x`, which may be in `y`'s memory."""
        ...


class InputScaling:
    """A factor onto each input channel of a layer, by a hook before it and one behind it; see `kinds.dora.DoraAdapter`.

    Half-precision inputs go through as they are, and what the factor adds to the layer's product is computed apart.
    """

    def __init__(self) -> None:
        self._pending: tuple[Tensor, Tensor] | None = None

    def before(
        self, layer: Layer, args: tuple[Tensor, ...], factor: Tensor, *, multiplier: float
    ) -> tuple[Tensor, ...]:
        """The layer's arguments, its input times `1 + multiplier · (factor - 1)`; `factor` has one number an input."""
        x, *rest = args
        factor = factor.view((-1,) if layer.kind == "linear" else (1, -1, 1, 1))
        self._pending = (x, factor)
        if is_half(x):
            return args
        return (x * (1.0 + multiplier * (factor - 1.0))).to(x.dtype), *rest

    def after(
        self, layer: Layer, args: tuple[Tensor, ...], output: Tensor, *, multiplier: float
    ) -> tuple[Tensor, Tensor]:
        """The layer's own output for the scaled input, and the input times `factor`, on which its change works."""
        if self._pending is None:
            raise AssertionError("unreachable: the pre-hook runs first")
        (x, factor), self._pending = self._pending, None
        if is_half(x):
            rest = (x * (multiplier * (factor - 1.0))).to(x.dtype)
            output = output + own_product(layer, rest).to(output.dtype)
        # at multiplier 1 the layer's input is `c·x` already
        return output, args[0] if multiplier == 1.0 and not is_half(x) else (x * factor).to(x.dtype)


class DecomposedAdapter(nn.Module):
    """DoRA, Liu et al. 2024 (arXiv 2402.09353), eq. 5: `W' = m · V / ‖V‖`, `V = W + ΔW`, with `ΔW` of any kind and the
    norm held constant in the gradient (eq. 11).

    `m` is one number an input, `(1, in[, 1, 1])`, the paper's norm and the one that the web UI 1.10.1 computes
    (network.py, `apply_weight_decompose`); or one an output, `(out, 1[, 1, 1])`, as peft, and LyCORIS unless told
    otherwise, write it. A multiplier `t` blends, `W + t·(W' - W)`.

    With `c = m / ‖V‖`: an input's factor goes onto `x`, as in `kinds.dora.DoraAdapter`; an output's onto the product.
    """

    def __init__(self, inner: Additive, *, on_outputs: bool = False) -> None:
        super().__init__()
        self.inner = inner
        self.on_outputs = on_outputs
        self._scaling = InputScaling()
        self.magnitude = nn.Parameter(self._norm(layer_weight(inner.layer)).to(next(inner.parameters()).device))

    @property
    def layer(self) -> Layer:
        """The inner adapter's."""
        return self.inner.layer

    @layer.setter
    def layer(self, layer: Layer) -> None:
        self.inner.layer = layer

    @property
    def switch(self) -> Switch:
        """The inner adapter's."""
        return self.inner.switch

    @switch.setter
    def switch(self, switch: Switch) -> None:
        self.inner.switch = switch

    @property
    def spec(self) -> AdapterSpec:
        return self.inner.spec

    def attach(self) -> list[RemovableHandle]:
        module = self.layer.module
        if self.on_outputs:
            return [module.register_forward_hook(self._scale_outputs)]
        return [module.register_forward_pre_hook(self._pre_hook), module.register_forward_hook(self._hook)]

    def _pre_hook(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return self._scaling.before(self.layer, args, self._factor(), multiplier=self.switch.value)

    def _hook(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        output, scaled = self._scaling.after(self.layer, args, output, multiplier=self.switch.value)
        return self.inner.apply_to(output, scaled)

    def _scale_outputs(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """`y + c·(Wx + t ΔWx) + ((t - 1)·c - t)·Wx`, which at `t = 1` is `y + c·Vx - Wx`."""
        with without_autocast(output.device.type):
            factor = self._factor().view((-1,) if self.layer.kind == "linear" else (1, -1, 1, 1)).to(output.dtype)
            bias = getattr(module, "bias", None)
            shift = 0.0 if bias is None else bias.view(factor.shape).to(output.dtype)
            product, multiplier = output - shift, self.switch.value
            changed = self.inner.apply_to(product.clone(), args[0])
            return output + (factor * changed + ((multiplier - 1.0) * factor - multiplier) * product)

    def _factor(self) -> Tensor:
        return self.magnitude / self._norm(layer_weight(self.layer))

    @torch.no_grad()
    def _norm(self, weight: Tensor) -> Tensor:
        """`‖W + ΔW‖` of each channel of the axis, fp32."""
        return channel_norm(self._direction(weight), on_outputs=self.on_outputs)

    def _direction(self, weight: Tensor) -> Tensor:
        delta = self.inner.delta(weight)
        return delta + weight.detach().to(delta)  # in this order: the sum is laid out, and added up, as the web UI's

    # ---- files and norms ----

    @torch.no_grad()
    def delta(self, weight: Tensor) -> Tensor:
        direction = self._direction(weight)
        norm = channel_norm(direction, on_outputs=True) if self.on_outputs else merged_norm(direction)
        return direction * (self.magnitude / norm) - weight.to(direction)

    def bias_delta(self) -> None:
        return None

    def cost(self, tokens: int) -> Cost:
        """The inner adapter's, and `ΔW` built for the norm."""
        outputs, inputs = layer_sizes(self.layer)
        inner = self.inner.cost(tokens)
        built = outputs * inputs * (self.spec.rank + 1)
        kept = 2 * outputs if self.on_outputs else inputs
        return replace(
            inner,
            parameters=inner.parameters + self.magnitude.numel(),
            multiplications=inner.multiplications + built,
            kept=inner.kept + tokens * kept,
        )

    def kohya_tensors(self) -> dict[str, Tensor]:
        return {**self.inner.kohya_tensors(), "dora_scale": self.magnitude}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        magnitude = reshaped(tensors["dora_scale"], self.magnitude, layer=self.layer, suffix="dora_scale")
        self.inner.load({suffix: tensor for suffix, tensor in tensors.items() if suffix != "dora_scale"})
        self.magnitude.copy_(magnitude)

    def limit_norm(self, limit: float) -> bool:
        """Of `ΔW`; the magnitudes are no part of it."""
        return self.inner.limit_norm(limit)


def decomposed_like(inner: Additive, tensors: Mapping[str, Tensor]) -> DecomposedAdapter | Additive:
    """`inner`, decomposed along the axis that a file's `dora_scale` has; itself where the file has none."""
    if "dora_scale" not in tensors:
        return inner
    return DecomposedAdapter(inner, on_outputs=is_on_outputs(tensors["dora_scale"], layer_weight(inner.layer)))


def is_on_outputs(dora_scale: Tensor, weight: Tensor) -> bool:
    """Whether a file's magnitudes are one an output: by the shape, as `bundle.deltas` reads them."""
    return dora_scale.shape[0] == weight.shape[0] and dora_scale.numel() == weight.shape[0]


def channel_norm(direction: Tensor, *, on_outputs: bool) -> Tensor:
    """The norm of each output of a weight, `(out, 1[, 1, 1])`, or of each input, `(1, in[, 1, 1])`."""
    own = 0 if on_outputs else 1
    axes = [axis for axis in range(direction.dim()) if axis != own]
    return torch.linalg.vector_norm(direction, dim=axes, keepdim=True)


def merged_norm(direction: Tensor) -> Tensor:
    """The norm of each input, `(1, in[, 1, 1])`, added up in the web UI's order, so that a merged layer is its own to
    the last bit (network.py, `apply_weight_decompose`)."""
    inputs, ones = direction.shape[1], [1] * (direction.dim() - 1)
    norms = direction.transpose(0, 1).reshape(inputs, -1).norm(dim=1, keepdim=True)
    return norms.reshape(inputs, *ones).transpose(0, 1)


def own_product(layer: Layer, x: Tensor) -> Tensor:
    """The layer's own product, without bias and hooks."""
    module, weight = layer.module, layer_weight(layer)
    return module._conv_forward(x, weight, None) if isinstance(module, nn.Conv2d) else F.linear(x, weight)


def is_half(x: Tensor) -> bool:
    """Whether `x` lies on a grid so coarse that a factor near 1 rounds back to nothing (`kinds.dora`)."""
    return x.dtype in (torch.bfloat16, torch.float16)
