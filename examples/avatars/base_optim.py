"""What the base checkpoint's training shares: Muon with AdamW, running averages, a schedule in time, states on disk.

Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/) orthogonalises the momentum of every matrix;
convolutions are taken as matrices `(out, in * height * width)`.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def orthogonalised(matrix: Tensor, steps: int = 4) -> Tensor:
    """The nearest (semi-)orthogonal matrix, roughly, by Newton-Schulz iterations with Jordan's coefficients."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / (wide.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


class Muon(torch.optim.Optimizer):
    """Orthogonalised Nesterov momentum for weights of two or more dimensions."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, *, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """One update of every weight that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
                ahead = weight.grad.lerp(momentum, group["momentum"])
                update = orthogonalised(ahead.flatten(1)).view_as(weight)
                scale = max(1.0, weight.shape[0] / weight.flatten(1).shape[1]) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * scale)


class Optimizers:
    """Muon for the matrices of `modules`, AdamW for all else (vectors, embeddings, first and last layers)."""

    def __init__(self, modules: Iterable[tuple[nn.Module, float]], *, muon_lr: float, adam_lr: float) -> None:
        """`modules`: each with the factor on both rates."""
        matrices, others = [], []
        for module, factor in modules:
            big, small = [], []
            for name, weight in module.named_parameters():
                if not weight.requires_grad:
                    continue
                plain = weight.ndim < 2 or "embedding" in name or min(weight.flatten(1).shape) < 16
                (small if plain else big).append(weight)
            matrices.append({"params": big, "lr": muon_lr * factor, "full_lr": muon_lr * factor})
            others.append({"params": small, "lr": adam_lr * factor, "full_lr": adam_lr * factor})
        self.muon = Muon(matrices, muon_lr)
        self.adam = torch.optim.AdamW(others, adam_lr, betas=(0.9, 0.98), weight_decay=0.0)

    def step(self, rate: float) -> None:
        """Update everything at `rate` times the full learning rates, and drop the gradients."""
        for optimizer in (self.muon, self.adam):
            for group in optimizer.param_groups:
                group["lr"] = group["full_lr"] * rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self.muon.state_dict(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])


class Average:
    """An exponential moving average of a module's weights, faster at the start."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.weights = {name: weight.detach().clone() for name, weight in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, self.updates / (self.updates + 10))
        now = dict(module.named_parameters())
        torch._foreach_lerp_(list(self.weights.values()), [now[name] for name in self.weights], 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        self.weights = {name: state["weights"][name].clone() for name in self.weights}


class Clock:
    """Training by the clock: a phase gets minutes, not steps; its learning rate follows the share used up."""

    def __init__(self, minutes: float, used_s: float = 0.0) -> None:
        self.budget_s = minutes * 60
        self.began = time.monotonic() - used_s

    @property
    def used_s(self) -> float:
        return time.monotonic() - self.began

    @property
    def share(self) -> float:
        """How much of the time is used up, 0 to 1."""
        return min(1.0, self.used_s / self.budget_s)

    def rate(self, step: int, warm_up: int = 30) -> float:
        """The factor on the learning rate: a short warm-up in steps, then a cosine to 0 in time."""
        return min(1.0, (step + 1) / warm_up) * max(0.01, 0.5 * (1 + math.cos(math.pi * self.share)))


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a training state so that there is always a whole one at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def join_workers() -> tuple[int, int]:
    """(rank, processes): torch.distributed with gloo when started by torchrun, else a single process."""
    if "RANK" not in os.environ:
        return 0, 1
    dist.init_process_group("gloo")
    return dist.get_rank(), dist.get_world_size()


def average_gradients(modules: Iterable[nn.Module]) -> None:
    """The mean of all processes' gradients, in one message."""
    if not dist.is_initialized():
        return
    gradients = [w.grad for module in modules for w in module.parameters() if w.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
