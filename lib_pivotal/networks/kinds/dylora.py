"""DyLoRA: a LoRA whose ranks are in order of weight, so that the file may be cut to any rank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lib_pivotal.config_schema import setting
from lib_pivotal.networks.adapter import AdapterSpec, Cost, Switch, layer_weight
from lib_pivotal.networks.algorithm import Algorithm
from lib_pivotal.ports import Layer

from .lora import (
    add_low_rank,
    file_spec,
    initial_factors,
    limit_factors,
    load_factors,
    loaded_spec,
    low_rank_cost,
    low_rank_delta,
)


@dataclass(frozen=True)
class DyloraOptions:
    """DyLoRA's own settings."""

    unit: int = setting(
        4, "This many ranks are trained together; the file can be cut to any multiple.", minimum=1, maximum=256
    )


class DyloraAdapter(nn.Module):
    """DyLoRA, Valipour et al. 2022 (arXiv 2210.07558), section 3.2, frozen: `y + α/b · B[:, :b] A[:b] x`.

    Each forward pass in training draws b, a multiple of `unit`; of the first b ranks the last `unit` are trained. Out
    of training all are used. The file is a LoRA's, and cut to b ranks with its alpha as it is, it has the same `α/b`.
    b is drawn from torch's global generator, which gradient checkpointing restores.
    """

    def __init__(self, layer: Layer, spec: AdapterSpec, *, unit: int, down: Tensor, up: Tensor) -> None:
        super().__init__()
        self.layer = layer
        self.switch = Switch()
        self.spec = spec
        self.unit = unit
        self.down = nn.Parameter(down)
        self.up = nn.Parameter(up)

    def attach(self) -> list[RemovableHandle]:
        return [self.layer.module.register_forward_hook(self._hook)]

    def _hook(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if self.training:
            down, up = self._drawn_part()
            return add_low_rank(self.layer, output, args[0], down, up, scale=self.switch.value)
        scale = self.switch.value * self.spec.alpha / self.spec.rank
        return add_low_rank(self.layer, output, args[0], self.down, self.up, scale=scale)

    def _drawn_part(self) -> tuple[Tensor, Tensor]:
        """`down` times `α/b`, zero from rank b on, and `up`; gradient in the last unit of the b ranks alone.

        By masks and not by slices: b stays on the device, which need not be waited for.
        """
        rank, device = self.spec.rank, self.down.device
        first = torch.randint(-(-rank // self.unit), (), device=device) * self.unit
        used, ranks = (first + self.unit).clamp(max=rank), torch.arange(rank, device=device)
        trained, rows = (ranks >= first) & (ranks < used), (-1, *[1] * (self.down.dim() - 1))
        kept = (ranks < used) * (self.spec.alpha / used)
        down = torch.where(trained.view(rows), self.down, self.down.detach()) * kept.view(rows)
        columns = trained.view(1, -1, *[1] * (self.up.dim() - 2))
        return down, torch.where(columns, self.up, self.up.detach())

    # ---- files and norms ----

    def delta(self, weight: Tensor) -> Tensor:
        return low_rank_delta(self.down, self.up) * (self.spec.alpha / self.spec.rank)

    def bias_delta(self) -> None:
        return None

    def cost(self, tokens: int) -> Cost:
        """With all ranks; on average a step uses half of them."""
        return low_rank_cost(self.layer, self.spec.rank, tokens, parameters=sum(p.numel() for p in self.parameters()))

    def kohya_tensors(self) -> dict[str, Tensor]:
        alpha = torch.tensor(self.spec.alpha)
        return {"lora_down.weight": self.down, "lora_up.weight": self.up, "alpha": alpha}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        self.spec = loaded_spec(self.spec, tensors)
        load_factors(self.layer, self.down, self.up, tensors)

    def limit_norm(self, limit: float) -> bool:
        return limit_factors(self.down, self.up, scale=self.spec.alpha / self.spec.rank, limit=limit)


def make_dylora(
    layer: Layer, spec: AdapterSpec, *, options: DyloraOptions, generator: torch.Generator, device: torch.device
) -> DyloraAdapter:
    """A new DyLoRA on `layer`."""
    down, up = initial_factors(layer_weight(layer).shape, rank=spec.rank, generator=generator)
    return DyloraAdapter(layer, spec, unit=options.unit, down=down.to(device), up=up.to(device))


def dylora_like(layer: Layer, tensors: Mapping[str, Tensor], device: torch.device) -> DyloraAdapter:
    """A DyLoRA of the rank that a file's tensors have, in units as usual: the file does not tell them."""
    spec = file_spec(tensors)
    down, up = initial_factors(layer_weight(layer).shape, rank=spec.rank, generator=torch.Generator())
    return DyloraAdapter(layer, spec, unit=DyloraOptions().unit, down=down.to(device), up=up.to(device))


def dylora_arguments(options: DyloraOptions) -> dict[str, str]:
    """kohya's `--network_args` for LyCORIS."""
    return {"algo": "dylora", "block_size": str(options.unit)}


ALGORITHM = Algorithm(
    name="dylora",
    title="DyLoRA",
    summary="A LoRA that may be cut to any smaller rank afterwards; needs more steps.",
    make=make_dylora,
    like=dylora_like,
    keys=(frozenset({"lora_down.weight", "lora_up.weight"}),),
    optional=frozenset({"alpha"}),
    options=DyloraOptions,
    common=frozenset({"rank", "alpha", "up_lr_factor"}),
    arguments=dylora_arguments,
)
