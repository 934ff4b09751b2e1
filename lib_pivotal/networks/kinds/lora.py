"""LoRA on linear layers and convolutions (LoCon): `y + s·up(down(x))`, `s = multiplier · alpha / rank`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lib_pivotal.config_schema import setting
from lib_pivotal.errors import NetworkError
from lib_pivotal.networks.adapter import AdapterSpec, Cost, Switch, layer_sizes, layer_weight, reshaped
from lib_pivotal.networks.ops import DownProjection, LowRankAdd, UpAdd, without_autocast
from lib_pivotal.ports import Layer

SMALL_OUTPUT = 1 << 17
"""Numbers in a linear layer's output below which layers of one input do not share their down-projection: sharing takes
more of Python than it saves there (docs/performance.md)."""


class DownSource(Protocol):
    """Whatever computes the down-projection of several adapters together (`fused.SharedDown`)."""

    def project(self, adapter: LoraAdapter, x: Tensor, *, dtype: torch.dtype) -> Tensor: ...


def rank_stabilised() -> Any:
    """The setting that all kinds with a scale of alpha / rank share (`networks.network.build_network` applies it)."""
    return setting(
        False,
        "rsLoRA: the change is scaled by alpha / sqrt(rank), so that a high rank does not weaken it. The file's alpha "
        "is the one that gives the same scale elsewhere.",
    )


class LoraAdapter(nn.Module):
    """LoRA, Hu et al. 2021 (arXiv 2106.09685), eq. 3; on a convolution as kohya and LyCORIS's LoCon do it.

    Linear `(out, in)`: `down` `(rank, in)`, `up` `(out, rank)`. Convolution `(out, in, k, k)`: `down`
    `(rank, in, k, k)` with the layer's stride and padding, `up` `(out, rank, 1, 1)`. fp32 over a layer of any type.

    Dropout draws from torch's global generator, not from a private one: gradient checkpointing restores only the
    global state, and the recomputation must see the same masks.
    """

    down: Tensor

    def __init__(
        self,
        layer: Layer,
        spec: AdapterSpec,
        *,
        generator: torch.Generator,
        device: torch.device,
        freeze_down: bool = False,
    ) -> None:
        super().__init__()
        weight = layer_weight(layer)
        self.layer = layer
        self.switch = Switch()
        self.shared: DownSource | None = None
        self._spec = spec
        down, up = initial_factors(weight.shape, rank=spec.rank, generator=generator)
        if freeze_down:
            self.register_buffer("down", down.to(device))
        else:
            self.down = nn.Parameter(down.to(device))
        self.up = nn.Parameter(up.to(device))

    @property
    def spec(self) -> AdapterSpec:
        return self._spec

    @property
    def scale(self) -> float:
        """What `up(down(x))` is multiplied by now: the part's switch, alpha / rank, rank dropout's rescale."""
        return forward_scale(self._spec, self.switch, training=self.training)

    def attach(self) -> list[RemovableHandle]:
        return [self.layer.module.register_forward_hook(self._hook)]

    def _hook(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return self.apply_to(output, args[0])

    def apply_to(self, y: Tensor, x: Tensor) -> Tensor:
        """`y + s·up(down(x))`, in `y`'s memory: `x` is the layer's input, `y` its output."""
        shared = None if y.numel() < SMALL_OUTPUT else self.shared
        drops = self.training and (self._spec.dropout > 0 or self._spec.rank_dropout > 0)
        if shared is None and not drops:
            return add_low_rank(self.layer, y, x, self.down, self.up, scale=self.scale)
        if shared is not None:
            h = shared.project(self, x, dtype=y.dtype)
        else:
            h = project(self.layer, x, self.down, scale=self.scale, dtype=y.dtype)
        if drops:
            h = dropped(h, self._spec, batch=x.shape[0])
        return UpAdd.apply(y, h, self.up)

    def delta(self, weight: Tensor) -> Tensor:
        return low_rank_delta(self.down, self.up) * (self._spec.alpha / self._spec.rank)

    def bias_delta(self) -> None:
        return None

    def cost(self, tokens: int) -> Cost:
        return low_rank_cost(self.layer, self.spec.rank, tokens, parameters=sum(p.numel() for p in self.parameters()))

    def kohya_tensors(self) -> dict[str, Tensor]:
        return {
            "lora_down.weight": self.down,
            "lora_up.weight": self.up,
            "alpha": torch.tensor(self._spec.alpha),
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        self._spec = loaded_spec(self._spec, tensors)
        load_factors(self.layer, self.down, self.up, tensors)

    def limit_norm(self, limit: float) -> bool:
        return limit_factors(self.down, self.up, scale=self._spec.alpha / self._spec.rank, limit=limit)


def low_rank_cost(layer: Layer, rank: int, tokens: int, *, parameters: int) -> Cost:
    """Of `up(down(x))`: forward, and backward to the input and to both factors; kept are input and product."""
    outputs, inputs = layer_sizes(layer)
    return Cost(parameters, 3 * tokens * rank * (inputs + outputs), tokens * (inputs + rank))


def initial_factors(shape: torch.Size, *, rank: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`down` Kaiming uniform with a = √5, `up` zero, as the original and kohya do.

    https://github.com/microsoft/LoRA/blob/c4593f060e6a368d7bb5af5273b8e42810cdef90/loralib/layers.py#L119-L125
    https://github.com/kohya-ss/sd-scripts/blob/48d368fa557731ad0488c07304dfeba8c07910eb/networks/lora.py#L78-L80
    With gain √(2 / (1 + 5)) that is U(-b, b), b = 1 / √fan_in; written out, as torch 2.1's initialiser takes no
    generator. Drawn on the CPU, so that a seed means the same on every device.
    """
    if rank < 1:
        raise NetworkError(f"rank = {rank}: must be at least 1. Give the layer no rule (or rank 0) to leave it out.")
    down = torch.empty(rank, *shape[1:])
    bound = 1.0 / math.sqrt(down[0].numel())
    down.uniform_(-bound, bound, generator=generator)
    return down, torch.zeros(shape[0], rank, *([1] * (len(shape) - 2)))


def project(layer: Layer, x: Tensor, down: Tensor, *, scale: float, dtype: torch.dtype) -> Tensor:
    """`scale · down(x)` in `dtype`: `(tokens, rank)` for a linear layer, `(batch, rank, H, W)` for a convolution."""
    if down.dim() == 2:
        (h,) = DownProjection.apply(x, dtype, (scale,), down)
        return h
    module = layer.module
    if not isinstance(module, nn.Conv2d):
        raise NetworkError(f"{layer.name}: {type(module).__name__} cannot take a convolution's factor.")
    with without_autocast(x.device.type):
        # the module's own method keeps its stride, padding and padding mode (the web UI's tiling changes the last)
        return module._conv_forward(x.to(dtype), (down * scale).to(dtype), None)


def add_low_rank(layer: Layer, y: Tensor, x: Tensor, down: Tensor, up: Tensor, *, scale: float) -> Tensor:
    """`y + scale · up(down(x))` in `y`'s memory, without dropout."""
    if down.dim() == 2:
        return LowRankAdd.apply(y, x, down, up, scale)
    return UpAdd.apply(y, project(layer, x, down, scale=scale, dtype=y.dtype), up)


def forward_scale(spec: AdapterSpec, switch: Switch, *, training: bool) -> float:
    """`multiplier · alpha / rank`, and `1 / (1 - p)` under rank dropout (kohya: "as if the rank is changed")."""
    scale = switch.value * spec.alpha / spec.rank
    return scale / (1.0 - spec.rank_dropout) if training else scale


def dropped(h: Tensor, spec: AdapterSpec, *, batch: int) -> Tensor:
    """Dropout on the product, then rank dropout (one mask a sample; the rescale is in the caller's scale).

    https://github.com/kohya-ss/sd-scripts/blob/48d368fa557731ad0488c07304dfeba8c07910eb/networks/lora.py#L102-L120
    """
    if spec.dropout > 0:
        h = F.dropout(h, p=spec.dropout)
    if spec.rank_dropout > 0:
        kept = (torch.rand((batch, spec.rank), device=h.device) > spec.rank_dropout).to(h.dtype)
        if h.dim() == 2:
            h = (h.view(batch, -1, spec.rank) * kept[:, None, :]).view(-1, spec.rank)
        else:
            h = h * kept[:, :, None, None]
    return h


def low_rank_delta(down: Tensor, up: Tensor) -> Tensor:
    """`up · down` in the shape of the layer's weight, unscaled.

    A k×k convolution followed by a 1×1 one is one convolution whose kernel is the product over the rank axis: what
    the web UI's `lyco_helpers.rebuild_conventional` builds.
    """
    product = up.detach().flatten(1) @ down.detach().flatten(1)
    return product.view(up.shape[0], *down.shape[1:])


def loaded_spec(spec: AdapterSpec, tensors: Mapping[str, Tensor]) -> AdapterSpec:
    """`spec` with the file's alpha; without one the scale is 1, as in the web UI (`NetworkModule.calc_scale`)."""
    alpha = float(tensors["alpha"].item()) if "alpha" in tensors else float(spec.rank)
    return AdapterSpec(rank=spec.rank, alpha=alpha, dropout=spec.dropout, rank_dropout=spec.rank_dropout)


def file_spec(tensors: Mapping[str, Tensor]) -> AdapterSpec:
    """Rank and alpha of an adapter as its tensors in a file tell them."""
    rank = tensors["lora_down.weight"].shape[0]
    return loaded_spec(AdapterSpec(rank=rank, alpha=float(rank)), tensors)


@torch.no_grad()
def load_factors(layer: Layer, down: Tensor, up: Tensor, tensors: Mapping[str, Tensor]) -> None:
    """Copy both factors in after checking both shapes."""
    new_down = reshaped(tensors["lora_down.weight"], down, layer=layer, suffix="lora_down.weight")
    new_up = reshaped(tensors["lora_up.weight"], up, layer=layer, suffix="lora_up.weight")
    down.copy_(new_down)
    up.copy_(new_up)


@torch.no_grad()
def limit_factors(down: Tensor, up: Tensor, *, scale: float, limit: float) -> bool:
    """kohya's max-norm: both factors times √(limit / ‖s·BA‖) where the norm is above `limit`.

    https://github.com/kohya-ss/sd-scripts/blob/48d368fa557731ad0488c07304dfeba8c07910eb/networks/lora.py#L1369-L1410
    ‖BA‖² = tr(BᵀB · AAᵀ): two rank×rank products instead of the whole matrix.
    """
    a, b = down.flatten(1), up.flatten(1)
    norm = abs(scale) * math.sqrt(max(float(((b.t() @ b) * (a @ a.t())).sum()), 0.0))
    if norm <= limit:
        return False
    factor = math.sqrt(limit / norm)
    down.mul_(factor)
    up.mul_(factor)
    return True
