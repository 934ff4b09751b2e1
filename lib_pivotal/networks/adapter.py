"""What an adapter is: one layer's trainable change, applied by forward hooks that always come off again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lib_pivotal.errors import NetworkError
from lib_pivotal.ports import Layer


@dataclass(frozen=True)
class AdapterSpec:
    """Size and regularisation of one adapter. The change is scaled by `alpha / rank`."""

    rank: int
    alpha: float
    dropout: float = 0.0
    rank_dropout: float = 0.0


@dataclass(frozen=True)
class Cost:
    """Of one adapter: trained numbers, and at a number of tokens (pixels of a convolution's output) multiplications of
    a forward and backward pass besides the layer's own, and numbers kept for the backward pass. `rebuilt`: the whole
    change is built and multiplied with, since its factors would cost more, or there are none."""

    parameters: int
    multiplications: int
    kept: int
    rebuilt: bool = False


@dataclass
class Switch:
    """The multiplier of a part, shared by all of its adapters; 0 = off."""

    value: float = 1.0


class Adapter(Protocol):
    """One layer's trainable change. Every implementation is an `nn.Module` whose parameters are fp32 leaves."""

    layer: Layer
    switch: Switch
    training: bool

    @property
    def spec(self) -> AdapterSpec: ...

    def attach(self) -> list[RemovableHandle]:
        """Register the hooks on the layer's module."""
        ...

    def delta(self, weight: Tensor) -> Tensor:
        """`ΔW` at multiplier 1 for the untouched `weight`: fp32 (or wider), of its shape."""
        ...

    def bias_delta(self) -> Tensor | None:
        """The change of the layer's bias at multiplier 1; None where the kind has none."""
        ...

    def cost(self, tokens: int) -> Cost:
        """What the adapter costs at so many tokens, in the way in which it would run."""
        ...

    def kohya_tensors(self) -> dict[str, Tensor]:
        """Suffix -> tensor as a file holds it (not yet copied or cast)."""
        ...

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take suffix -> tensor; shapes are checked."""
        ...

    def limit_norm(self, limit: float) -> bool:
        """Scale the change down so that its Frobenius norm is at most `limit`; True if it was larger."""
        ...

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]: ...

    def named_parameters(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, nn.Parameter]]: ...


@contextmanager
def attached(adapters: Iterable[Adapter]) -> Iterator[None]:
    """Hooks of `adapters` on; off again on the way out, whatever happens."""
    handles: list[RemovableHandle] = []
    try:
        for adapter in adapters:
            handles.extend(adapter.attach())
        yield
    finally:
        for handle in handles:
            handle.remove()


def layer_weight(layer: Layer) -> Tensor:
    """The weight of `layer`'s module; refuses what no adapter here can follow."""
    module = layer.module
    if layer.kind == "norm" and isinstance(module, nn.LayerNorm | nn.GroupNorm):
        return module.weight
    if isinstance(module, nn.Linear):
        return module.weight
    if isinstance(module, nn.Conv2d):
        if module.groups != 1:
            raise NetworkError(
                f"{layer.name}: a convolution with groups={module.groups} cannot take a low-rank adapter. "
                "Leave it out of the rules."
            )
        return module.weight
    raise NetworkError(
        f"{layer.name}: {type(module).__name__} is neither nn.Linear nor nn.Conv2d. Leave it out of the rules."
    )


def reshaped(value: Tensor, like: Tensor, *, layer: Layer, suffix: str) -> Tensor:
    """`value` in the shape of `like`: a linear factor may be stored as a 1×1 convolution and the reverse."""
    if value.shape == like.shape:
        return value
    if value.numel() == like.numel() and value.shape[0] == like.shape[0]:
        return value.reshape(like.shape)
    raise NetworkError(
        f"{layer.name}.{suffix} has shape {tuple(value.shape)}, expected {tuple(like.shape)}. "
        "The file is for another model or rank; build the network from the file (Network.from_kohya)."
    )


def layer_sizes(layer: Layer) -> tuple[int, int]:
    """Outputs, and inputs of one output (a convolution's kernel included)."""
    weight = layer_weight(layer)
    return weight.shape[0], weight[0].numel()


def token_count(layer: Layer, output: Tensor) -> int:
    """How many times the layer's matrix was applied for this output: tokens, or pixels of a convolution's output."""
    return output.numel() // layer_weight(layer).shape[0]


def own_convolution(layer: Layer) -> Callable[[Tensor, Tensor], Tensor] | None:
    """`(x, weight) -> y` as the layer convolves, without bias; None for a linear layer.

    The module's own method keeps its stride, padding and padding mode (the web UI's tiling changes the last).
    """
    module = layer.module
    return (lambda x, weight: module._conv_forward(x, weight, None)) if isinstance(module, nn.Conv2d) else None


def output_mask(adapter: Adapter, outputs: int, device: torch.device) -> Tensor | None:
    """Rank dropout of kinds whose ranks cannot be taken apart: which outputs a step changes, over its share, fp32
    `(outputs,)`; None outside of training.

    What LyCORIS calls so for LoHa and LoKr, with its `rank_dropout_scale`. Drawn from torch's global generator, which
    gradient checkpointing restores.
    """
    p = adapter.spec.rank_dropout
    if p == 0 or not adapter.training:
        return None
    return (torch.rand(outputs, device=device) > p).float() / (1 - p)


@torch.no_grad()
def load_parameters(adapter: nn.Module, layer: Layer, tensors: Mapping[str, Tensor]) -> None:
    """Copy suffix -> tensor into the parameters of the same names, after checking all of their shapes."""
    own = dict(adapter.named_parameters(recurse=False))
    if missing := sorted(own.keys() - tensors.keys()):
        raise NetworkError(f"{layer.name}: the file has no {', '.join(missing)}. It is of another kind or incomplete.")
    values = {name: reshaped(tensors[name], parameter, layer=layer, suffix=name) for name, parameter in own.items()}
    for name, parameter in own.items():
        parameter.copy_(values[name])


@torch.no_grad()
def scale_parameters(parameters: Iterable[Tensor], *, norm: float, limit: float) -> bool:
    """Shrink a change of Frobenius norm `norm`, the product of `parameters`, to `limit`, each by the same factor."""
    found = list(parameters)
    if norm <= limit:
        return False
    factor = (limit / norm) ** (1 / len(found))
    for parameter in found:
        parameter.mul_(factor)
    return True
