"""The new embeddings: their vectors are the only parameters; the vocabulary is never copied, trained or decayed.

An embedding is one fp32 leaf `(vectors, width)` a text tower. Hosts splice these leaves into prompts at token
positions, so gradients reach them directly and nothing else of the token table exists for the optimiser.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lib_pivotal.errors import EmbeddingNameError
from lib_pivotal.parameter_groups import ParameterGroup
from lib_pivotal.ports import EmbeddingVectors

MAX_VECTORS = 75
"""A chunk of a prompt has 75 places."""


@dataclass(frozen=True)
class EmbeddingSettings:
    """How one embedding is trained.

    `freeze_fraction` of the run (1 = never), `freeze_step` (0 = never) and `freeze_norm` (mean norm of the first
    tower's vectors, 0 = never; Mix-of-Show uses 0.55) each freeze the embedding for good; the first to be reached wins.
    `continued_lr_factor` multiplies its rate in the second phase of a two-phase run; at 0 it rests there.
    """

    lr_factor: float = 1.0
    weight_decay: float = 0.0
    freeze_fraction: float = 1.0
    freeze_step: int = 0
    freeze_norm: float = 0.0
    continued_lr_factor: float = 1.0


class TrainedEmbeddings(nn.Module):
    """Any number of embeddings, each of 1 to 75 vectors a tower.

    `vectors` gives the start values (copied, kept in fp32); `settings` those embeddings that differ from the default.
    The state dict holds values, start values and frozen flags exactly; it fits only embeddings of the same names and
    sizes.
    """

    def __init__(
        self,
        vectors: EmbeddingVectors,
        settings: Mapping[str, EmbeddingSettings] | None = None,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        settings = dict(settings or {})
        unknown = sorted(set(settings) - set(vectors))
        if unknown:
            raise EmbeddingNameError(
                f"settings for {', '.join(map(repr, unknown))}: no such embedding; give its vectors as well"
            )
        self._names = tuple(vectors)
        self._settings = {name: settings.get(name, EmbeddingSettings()) for name in self._names}
        self._frozen: set[str] = set()
        _check_towers(vectors)
        self._values = nn.ModuleList(
            nn.ParameterList(
                nn.Parameter(tensor.detach().to(device=device, dtype=torch.float32, copy=True).contiguous())
                for tensor in vectors[name]
            )
            for name in self._names
        )
        self._starts = {name: tuple(leaf.detach().clone() for leaf in self.parameters_of(name)) for name in self._names}

    # ---- reading ----

    def names(self) -> list[str]:
        """Names in the order given."""
        return list(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def as_mapping(self) -> dict[str, tuple[Tensor, ...]]:
        """The leaves themselves, by name: what a host's `encode` takes. Changing them changes the embedding."""
        return {name: self.parameters_of(name) for name in self._names}

    def parameters_of(self, name: str) -> tuple[nn.Parameter, ...]:
        """One leaf a tower."""
        return tuple(self._values[self._index(name)])  # type: ignore[arg-type]

    @property
    def starts(self) -> EmbeddingVectors:
        """The values that training began with, also where it is continued: one mapping, brought up to date in place."""
        return self._starts

    def begin_here(self) -> None:
        """Training begins with the values of now."""
        self._starts.update(
            {name: tuple(leaf.detach().clone() for leaf in self.parameters_of(name)) for name in self._names}
        )

    def parameter_groups(self) -> list[ParameterGroup]:
        """One group an embedding, in order, frozen ones included; its parameters are one tensor a tower."""
        return [
            ParameterGroup(
                f"word {name}",
                self.parameters_of(name),
                lr_factor=self._settings[name].lr_factor,
                weight_decay=self._settings[name].weight_decay,
            )
            for name in self._names
        ]

    def mean_norms(self) -> dict[str, float]:
        """Mean norm of each embedding's vectors in the first tower."""
        if not self._names:
            return {}
        first = [self.parameters_of(name)[0].detach() for name in self._names]
        norms = torch.cat(first).norm(dim=1).tolist()  # one transfer from the device for all embeddings
        means, start = {}, 0
        for name, tensor in zip(self._names, first, strict=True):
            count = tensor.shape[0]
            means[name] = sum(norms[start : start + count]) / count
            start += count
        return means

    def continued_lr_factor(self, name: str) -> float:
        """What the embedding's rate is multiplied by in the second phase of a two-phase run."""
        self._index(name)
        return self._settings[name].continued_lr_factor

    # ---- freezing ----

    @property
    def frozen(self) -> frozenset[str]:
        """Embeddings that get neither updates nor normalisation any more."""
        return frozenset(self._frozen)

    def freeze(self, names: Iterable[str]) -> None:
        """Stop training these embeddings; their values stay as they are."""
        self._set_frozen(names, frozen=True)

    def advance(self, step: int, *, max_steps: int) -> list[str]:
        """Freeze what is due after `step` finished optimiser steps of `max_steps`; returns the names newly frozen."""
        norms: dict[str, float] | None = None
        due = []
        for name in self._names:
            settings = self._settings[name]
            if name in self._frozen:
                continue
            reached = settings.freeze_fraction < 1 and step >= settings.freeze_fraction * max_steps
            reached = reached or (0 < settings.freeze_step <= step)
            if not reached and settings.freeze_norm > 0:
                norms = self.mean_norms() if norms is None else norms
                reached = norms[name] >= settings.freeze_norm
            if reached:
                due.append(name)
        self.freeze(due)
        return due

    def _set_frozen(self, names: Iterable[str], *, frozen: bool) -> None:
        for name in names:
            for parameter in self.parameters_of(name):
                parameter.requires_grad_(not frozen)
                if frozen:
                    parameter.grad = None
            if frozen:
                self._frozen.add(name)
            else:
                self._frozen.discard(name)

    # ---- saving ----

    def get_extra_state(self) -> dict[str, Any]:
        """Names, flags and start values, saved with the values."""
        starts = [list(self._starts[name]) for name in self._names]
        return {"names": list(self._names), "frozen": sorted(self._frozen), "starts": starts}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take over flags; refuses the state of other words."""
        names = list(state["names"])
        if names != list(self._names):
            raise EmbeddingNameError(
                f"saved embeddings {names} are not those of this run {list(self._names)}; resume "
                "with the embeddings that the state was saved with"
            )
        for name, saved in zip(names, state.get("starts", ()), strict=False):  # older states have none
            self._starts[name] = tuple(
                one.detach().to(old.device, copy=True) for one, old in zip(saved, self._starts[name], strict=True)
            )
        frozen = set(state["frozen"])
        self._set_frozen((name for name in self._names if name not in frozen), frozen=False)
        self.freeze(frozen)

    def _index(self, name: str) -> int:
        try:
            return self._names.index(name)
        except ValueError:
            raise EmbeddingNameError(
                f"no embedding {name!r} here; there are {', '.join(self._names) or 'none'}"
            ) from None


def _check_towers(vectors: EmbeddingVectors) -> None:
    """Every embedding has the same number of towers with the same widths, and 1 to 75 vectors in each."""
    widths: dict[str, tuple[int, ...]] = {}
    for name, towers in vectors.items():
        if not name:
            raise EmbeddingNameError("an embedding has an empty name; give it one")
        if not towers:
            raise EmbeddingNameError(f"embedding {name!r}: no vectors; give one tensor per text encoder")
        for tower, tensor in enumerate(towers):
            where = f"embedding {name!r}, tower {tower}"
            if tensor.ndim != 2:
                raise EmbeddingNameError(f"{where}: shape {tuple(tensor.shape)}, but (vectors, width) is needed")
            if not 1 <= tensor.shape[0] <= MAX_VECTORS:
                raise EmbeddingNameError(
                    f"{where}: {tensor.shape[0]} vectors; use 1 to {MAX_VECTORS}, a chunk holds no more"
                )
            if tensor.shape[0] != towers[0].shape[0]:
                raise EmbeddingNameError(
                    f"{where}: {tensor.shape[0]} vectors, but tower 0 has {towers[0].shape[0]}; they must be equal"
                )
        widths[name] = tuple(tensor.shape[1] for tensor in towers)
    if len(set(widths.values())) > 1:
        shown = ", ".join(f"{name!r}: {width}" for name, width in widths.items())
        raise EmbeddingNameError(f"embeddings of different widths cannot belong to one checkpoint: {shown}")
