"""LoRA: a layer's change as up times down."""

from __future__ import annotations

from typing import Any

import network
import torch
from modules import devices
from torch import Tensor, nn


class ModuleTypeLora:
    def create_module(self, net: network.Network, weights: network.NetworkWeights) -> NetworkModuleLora | None:
        if all(key in weights.w for key in ("lora_up.weight", "lora_down.weight")):
            return NetworkModuleLora(net, weights)
        return None


class NetworkModuleLora(network.NetworkModule):
    def __init__(self, net: network.Network, weights: network.NetworkWeights) -> None:
        super().__init__(net, weights)
        if not isinstance(self.sd_module, nn.Linear | nn.Conv2d | nn.MultiheadAttention):
            kind = type(self.sd_module).__name__
            raise AssertionError(f"Lora layer {self.network_key} matched a layer with unsupported type: {kind}")
        up, down = (weights.w[f"lora_{name}.weight"] for name in ("up", "down"))
        if not isinstance(self.sd_module, nn.Conv2d):
            up, down = up.reshape(len(up), -1), down.reshape(len(down), -1)
        self.up, self.down = (tensor.to(device=devices.cpu, dtype=devices.dtype) for tensor in (up, down))
        self.dim = len(self.down)

    def calc_updown(self, orig_weight: Tensor) -> tuple[Tensor, Any]:
        up, down = self.up.flatten(1), self.down.flatten(1)
        rank = self.network.dyn_dim
        if rank is not None:
            up, down = up[:, :rank], down[:rank, :]
        return self.finalize((up @ down).reshape(orig_weight.shape).to(torch.float32))
