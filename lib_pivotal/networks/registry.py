"""Every algorithm by name: how an adapter is made, and which keys of a file are its own.

A new algorithm is one file with an adapter class, and one line in `ALGORITHMS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lib_pivotal.errors import NetworkError
from lib_pivotal.ports import Layer

from .adapter import Adapter, AdapterSpec
from .dora import DoraAdapter
from .lora import LoraAdapter, file_spec


class AdapterFactory(Protocol):
    """Makes an adapter with its initial weights."""

    def __call__(
        self, layer: Layer, spec: AdapterSpec, *, generator: torch.Generator, device: torch.device
    ) -> Adapter: ...


@dataclass(frozen=True)
class Algorithm:
    """One algorithm: `required` and `optional` are the key suffixes in a file, `spec_of` reads size from them."""

    name: str
    make: AdapterFactory
    required: frozenset[str]
    optional: frozenset[str]
    spec_of: Callable[[Mapping[str, Tensor]], AdapterSpec]

    def accepts(self, suffixes: frozenset[str]) -> bool:
        """Whether a layer stored under exactly these suffixes is this algorithm's."""
        return self.required <= suffixes <= self.required | self.optional


ALGORITHMS: dict[str, Algorithm] = {
    algorithm.name: algorithm
    for algorithm in (
        Algorithm(
            name="lora",
            make=LoraAdapter,
            required=frozenset({"lora_down.weight", "lora_up.weight"}),
            optional=frozenset({"alpha"}),
            spec_of=file_spec,
        ),
        Algorithm(
            name="dora",
            make=DoraAdapter,
            required=frozenset({"lora_down.weight", "lora_up.weight", "dora_scale"}),
            optional=frozenset({"alpha"}),
            spec_of=file_spec,
        ),
    )
}


def algorithm_names() -> tuple[str, ...]:
    """Choices of `network.algorithm`; none trains embeddings alone."""
    return ("none", *ALGORITHMS)


def algorithm_named(name: str) -> Algorithm:
    """The algorithm called `name`."""
    if name not in ALGORITHMS:
        raise NetworkError(f"algorithm = {name!r}: unknown. Choose one of {', '.join(sorted(ALGORITHMS))}.")
    return ALGORITHMS[name]


def algorithm_of(suffixes: frozenset[str]) -> Algorithm | None:
    """The algorithm that stores a layer under exactly these suffixes; None if there is none here."""
    return next((algorithm for algorithm in ALGORITHMS.values() if algorithm.accepts(suffixes)), None)
