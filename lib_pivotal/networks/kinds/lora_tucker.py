"""Tucker's LoRA of a convolution: a small core convolution between two 1×1 ones (LyCORIS' LoCon, `lora_mid`)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lib_pivotal.networks.adapter import (
    AdapterSpec,
    Cost,
    Switch,
    layer_weight,
    own_convolution,
    reshaped,
    scale_parameters,
)
from lib_pivotal.networks.ops import UpAdd, without_autocast
from lib_pivotal.ports import Layer

from .lora import dropped, forward_scale, loaded_spec

SUFFIXES = {"down": "lora_down.weight", "mid": "lora_mid.weight", "up": "lora_up.weight"}


class TuckerLoraAdapter(nn.Module):
    """`y + s · up(mid(down(x)))`, Tucker's form of Kim et al. 2015 (arXiv 1511.06530), section 3, as LyCORIS' LoCon.

    `down` `(rank, in, 1, 1)`, `mid` `(rank, rank, k, k)` with the layer's stride and padding, `up` `(out, rank, 1, 1)`.
    """

    down: Tensor

    def __init__(
        self, layer: Layer, spec: AdapterSpec, tensors: Mapping[str, Tensor], *, freeze_down: bool = False
    ) -> None:
        super().__init__()
        self.layer = layer
        self.switch = Switch()
        self.spec = spec
        if freeze_down:
            self.register_buffer("down", tensors["down"])
        else:
            self.down = nn.Parameter(tensors["down"])
        self.mid = nn.Parameter(tensors["mid"])
        self.up = nn.Parameter(tensors["up"])

    def attach(self) -> list[RemovableHandle]:
        return [self.layer.module.register_forward_hook(self._hook)]

    def _hook(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return self.apply_to(output, args[0])

    def apply_to(self, y: Tensor, x: Tensor) -> Tensor:
        """`y + s·up(mid(down(x)))`, in `y`'s memory: `x` is the layer's input, `y` its output."""
        scale, convolve = forward_scale(self.spec, self.switch, training=self.training), own_convolution(self.layer)
        assert convolve is not None
        with without_autocast(x.device.type):
            h = convolve(F.conv2d(x.to(y.dtype), (self.down * scale).to(y.dtype)), self.mid.to(y.dtype))
            if self.training:
                h = dropped(h, self.spec, batch=x.shape[0])
            return UpAdd.apply(y, h, self.up)

    # ---- files and norms ----

    @torch.no_grad()
    def delta(self, weight: Tensor) -> Tensor:
        """`rebuild_cp_decomposition` of the web UI's lyco_helpers."""
        product = torch.einsum("nmkl,in,mj->ijkl", self.mid, self.up.flatten(1), self.down.flatten(1))
        return product * (self.spec.alpha / self.spec.rank)

    def bias_delta(self) -> None:
        return None

    def cost(self, tokens: int) -> Cost:
        outputs, inputs = layer_weight(self.layer).shape[:2]
        rank, kernel = self.spec.rank, self.mid[0, 0].numel()
        products = rank * (inputs + rank * kernel + outputs)
        count = sum(parameter.numel() for parameter in self.parameters())
        return Cost(count, 3 * tokens * products, tokens * (inputs + 2 * rank))

    def kohya_tensors(self) -> dict[str, Tensor]:
        own = {suffix: getattr(self, name) for name, suffix in SUFFIXES.items()}
        return {**own, "alpha": torch.tensor(self.spec.alpha)}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        found = {
            name: reshaped(tensors[suffix], getattr(self, name), layer=self.layer, suffix=suffix)
            for name, suffix in SUFFIXES.items()
        }
        self.spec = loaded_spec(self.spec, tensors)
        for name, tensor in found.items():
            getattr(self, name).copy_(tensor)

    def limit_norm(self, limit: float) -> bool:
        norm = float(self.delta(layer_weight(self.layer)).norm())
        return scale_parameters([self.down, self.mid, self.up], norm=norm, limit=limit)


def has_core(layer: Layer) -> bool:
    """Whether Tucker's form has a meaning: on convolutions larger than 1×1."""
    return layer.kind == "conv" and layer_weight(layer)[0, 0].numel() > 1


def initial_tucker(layer: Layer, rank: int, *, generator: torch.Generator) -> dict[str, Tensor]:
    """`down` and `mid` Kaiming uniform with a = √5, `up` zero, as LyCORIS begins (modules/locon.py, f49d30d)."""
    outputs, inputs, *kernel = layer_weight(layer).shape
    down, mid = torch.empty(rank, inputs, 1, 1), torch.empty(rank, rank, *kernel)
    for tensor in (down, mid):
        bound = 1.0 / math.sqrt(tensor[0].numel())
        tensor.uniform_(-bound, bound, generator=generator)
    return {"down": down, "mid": mid, "up": torch.zeros(outputs, rank, 1, 1)}
