"""What an adapter is: one layer's trainable change, applied by forward hooks that always come off again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

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
