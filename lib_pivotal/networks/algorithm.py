"""What is known of a kind of network besides its arithmetic: its own settings, its keys, its name elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from lib_pivotal.ports import Layer

from .adapter import Adapter, AdapterSpec

Common = Literal["rank", "alpha", "dropout", "rank_dropout", "up_lr_factor"]
"""Settings that several kinds have, and that stand in a run under one name for all of them."""

LYCORIS = "lycoris.kohya"
"""`ss_network_module` of everything that kohya trains through LyCORIS."""


@dataclass(frozen=True)
class NoOptions:
    """The settings of a kind that has none of its own."""


class AdapterFactory(Protocol):
    """Makes an adapter with its initial weights; `options` is the kind's own dataclass of settings."""

    def __call__(
        self, layer: Layer, spec: AdapterSpec, *, options: Any, generator: torch.Generator, device: torch.device
    ) -> Adapter: ...


@dataclass(frozen=True)
class Algorithm:
    """One kind of network.

    `title` and `summary` are for people. `like` makes an adapter of the size that the tensors of a file (suffix ->
    tensor) have; its numbers are then taken by `Adapter.load`. `keys` are the sets of key suffixes of which a layer in
    a file has exactly one, besides `optional` ones; where two kinds share them, `stored_so` tells by the tensors. `up`
    are the parameters that `up_lr_factor` (LoRA+) is for, in kinds that have that setting. `ranks`:
    how many times the rank of the settings a file's is. `module` and `arguments` are
    what kohya's `--network_module` and `--network_args` would have to say, for `ss_network_module` and
    `ss_network_args`.
    """

    name: str
    title: str
    summary: str
    make: AdapterFactory
    like: Callable[[Layer, Mapping[str, Tensor], torch.device], Adapter]
    keys: tuple[frozenset[str], ...]
    optional: frozenset[str] = frozenset()
    stored_so: Callable[[Mapping[str, Tensor]], bool] = lambda tensors: True
    options: type[Any] = NoOptions
    common: frozenset[Common] = frozenset({"rank", "alpha", "dropout", "rank_dropout", "up_lr_factor"})
    up: frozenset[str] = frozenset({"up"})
    layers: frozenset[str] = frozenset({"linear", "conv"})
    ranks: Callable[[Any], int] = lambda options: 1
    module: Callable[[Any], str] = lambda options: LYCORIS
    arguments: Callable[[Any], Mapping[str, str]] = lambda options: {}

    def accepts(self, suffixes: frozenset[str]) -> bool:
        """Whether a layer stored under exactly these suffixes is this algorithm's."""
        return any(required <= suffixes <= required | self.optional for required in self.keys)

    def options_from(self, given: Mapping[str, Any]) -> Any:
        """The kind's own settings: those of `given` that it has, defaults for the others."""
        own = {field.name for field in fields(self.options)}
        return self.options(**{name: value for name, value in given.items() if name in own})
