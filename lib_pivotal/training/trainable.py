"""What is trained and how it is updated: embeddings, network, optimiser, scaler, EMA, norm control - one unit to save.

One optimiser step = unscale, average over processes, clip by group, set the rates, step, control the embeddings' norms
(or turn the embeddings by a rule of their own, and let the optimiser step the rest).
An embedding without a gradient in a step (none of its pictures was drawn) is not touched at all: no momentum, no decay,
no normalisation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lib_pivotal.embeddings.control import NormControl
from lib_pivotal.embeddings.vectors import TrainedEmbeddings
from lib_pivotal.networks.network import Network
from lib_pivotal.parameter_groups import ParameterGroup
from lib_pivotal.training.distributed import ProcessGroup
from lib_pivotal.training.ema import EMA
from lib_pivotal.training.optimizers import (
    build_optimizer,
    clip_groups,
    evaluation_mode,
    state_bytes,
    training_mode,
)
from lib_pivotal.training.rates import SECOND_PHASE, Phase, set_rates
from lib_pivotal.training.scaler import LossScaler


@dataclass(frozen=True)
class Update:
    """What an optimiser step did. `applied` is False where the gradients were not finite and nothing was changed."""

    applied: bool
    rates: dict[str, float]
    gradient_norms: dict[str, float]


class Trainable:
    """The embeddings and the network of a run, with everything that moves them."""

    def __init__(
        self,
        embeddings: TrainedEmbeddings,
        network: Network | None,
        groups: Sequence[ParameterGroup],
        *,
        optimizer: str,
        optimizer_options: Mapping[str, Any] | None = None,
        control: NormControl | None = None,
        embedding_step: NormControl | None = None,
        max_norm: float = 0.0,
        l1: float = 0.0,
        ema_decay: float = 0.0,
        loss_scaling: bool = False,
        world: ProcessGroup | None = None,
    ) -> None:
        self.embeddings = embeddings
        self.network = network
        self.groups = tuple(groups)
        self.scaler = LossScaler(enabled=loss_scaling)
        self.rate_scale = 1.0
        self._control = control
        self._embedding_step = embedding_step
        self._max_norm = max_norm
        self._l1 = l1
        self._world = world or ProcessGroup()
        self._limits = {group.name: group.clip_norm for group in self.groups}
        self.optimizer = build_optimizer(optimizer, self.groups, options=optimizer_options)
        training_mode(self.optimizer)
        self.ema = EMA(self.parameters, decay=ema_decay) if ema_decay > 0 else None

    @property
    def parameters(self) -> list[Tensor]:
        """Every trained parameter, in a fixed order."""
        return [parameter for group in self.groups for parameter in group.parameters]

    @property
    def optimizer_bytes(self) -> int:
        """Bytes of the optimiser's state so far."""
        return state_bytes(self.optimizer)

    def trained_embeddings(self, phase: Phase) -> list[str]:
        """Names of the embeddings that a step of this phase moves."""
        frozen = self.embeddings.frozen
        return [
            name for name in self.embeddings.names() if self._embedding_factor(name, phase) > 0 and name not in frozen
        ]

    def prepare(self, phase: Phase) -> None:
        """Before a step: gradients cleared; what the phase does not train takes part without gradient."""
        frozen = self.embeddings.frozen
        for group in self.groups:
            active = self._factor(group, phase) > 0
            if group.kind == "embeddings" and group.name.removeprefix("word ") in frozen:
                active = False
            for parameter in group.parameters:
                parameter.grad = None
                parameter.requires_grad_(active)

    def update(self, phase: Phase, *, rate_factor: float) -> Update:
        """After the backwards of a step: move everything, or nothing if a gradient is not finite."""
        gradients = self._gradients()
        self.scaler.unscale(gradients)
        self._world.average([parameter for parameter in self.parameters if parameter.requires_grad])
        self._add_l1()
        norms = {name: float(norm) for name, norm in clip_groups(self.optimizer.param_groups, self._limits).items()}
        finite = all(torch.isfinite(torch.tensor(norm)) for norm in norms.values())
        rates = set_rates(
            self.optimizer,
            {group.name: self._factor(group, phase) * rate_factor * self.rate_scale for group in self.groups},
        )
        self.scaler.update(overflowed=not finite)
        if not finite:
            return Update(False, rates, norms)
        updated = [
            group.name.removeprefix("word ")
            for group in self.groups
            if group.kind == "embeddings" and any(parameter.grad is not None for parameter in group.parameters)
        ]
        if self._embedding_step is not None:  # the optimiser then finds no gradient of theirs
            self._embedding_step(self.embeddings, updated, rates)
        self.optimizer.step()
        if self._control is not None:
            self._control(self.embeddings, updated, rates)
        if self.network is not None and self._max_norm > 0:
            self.network.apply_max_norm(self._max_norm)
        if self.ema is not None:
            self.ema.update()
        return Update(True, rates, norms)

    def is_finite(self) -> bool:
        """Whether everything that is trained, and its averages, are numbers."""
        averages = () if self.ema is None else self.ema.averages
        return all(bool(torch.isfinite(tensor).all()) for tensor in (*self.parameters, *averages))

    @contextlib.contextmanager
    def evaluated(self) -> Iterator[None]:
        """Inside, embeddings and network hold what a file would hold: averages where an EMA or the optimiser keeps
        them."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(evaluation_mode(self.optimizer))
            if self.ema is not None:
                stack.enter_context(self.ema.swapped())
            if self.network is not None:
                stack.enter_context(_mode(self.network, training=False))
            yield

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs, as copies on the CPU."""
        return _to_cpu(
            {
                "words": self.embeddings.state_dict(),  # so states of version 1 call them
                "network": {} if self.network is None else self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "ema": None if self.ema is None else self.ema.state_dict(),
                "rate_scale": self.rate_scale,
            }
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a `state_dict()`; the parameters keep their identity."""
        self.embeddings.load_state_dict(state["words"])
        if self.network is not None:
            self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None and state["ema"] is not None:
            self.ema.load_state_dict(state["ema"])
        self.rate_scale = state["rate_scale"]

    @torch.no_grad()
    def _add_l1(self) -> None:
        """The gradient of l1 · mean |p| over the network's parameters, to those that have a gradient: eden's
        `l1_penalty` (edenartlab/sd-lora-trainer, main.py, 0152335).

        DoRA's magnitudes are left out: at 0 they would not be a network that does nothing.
        """
        if self.network is None or self._l1 == 0:
            return
        penalised = [p for name, p in self.network.named_parameters() if not name.endswith("magnitude")]
        count = sum(parameter.numel() for parameter in penalised)
        for parameter in penalised:
            if parameter.grad is not None:
                parameter.grad.add_(parameter.sign(), alpha=self._l1 / count)

    def _factor(self, group: ParameterGroup, phase: Phase) -> float:
        """Of a group's rate in a phase."""
        if group.kind == "embeddings":
            return self._embedding_factor(group.name.removeprefix("word "), phase)
        return phase.unet if group.kind == "unet" else phase.te

    def _embedding_factor(self, name: str, phase: Phase) -> float:
        own = self.embeddings.continued_lr_factor(name) if phase.name == SECOND_PHASE else 1.0
        return phase.embeddings * own

    def _gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]


def _to_cpu(value: Any) -> Any:
    """A deep copy with every tensor detached, cloned and on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _to_cpu(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_to_cpu(item) for item in value)
    return value


@contextlib.contextmanager
def _mode(module: nn.Module, *, training: bool) -> Iterator[None]:
    before = module.training
    module.train(training)
    try:
        yield
    finally:
        module.train(before)
