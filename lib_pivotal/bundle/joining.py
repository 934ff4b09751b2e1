"""Join networks by putting their ranks side by side: the joined network is the exact sum of both.

    s1 · up1 · down1 + s2 · up2 · down2  =  s · [up1, up2 · s2/s1] · [down1; down2],   s = s1 = alpha / (rank1 + rank2)

With equal scales nothing is multiplied, so no bit changes; else the product is kept in fp32 where it needs it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lib_pivotal.bundle.dtypes import holding_both, same_values, side_by_side
from lib_pivotal.bundle.network_layouts import exactly, group_layers, is_kohya, lora_scale
from lib_pivotal.errors import NetworkError

_LORA = frozenset({"lora_down.weight", "lora_up.weight"})
_JOINABLE = _LORA | {"alpha", "lora_mid.weight"}
_DOUBLED = frozenset({"hada_w1_a", "lokr_w1", "lokr_w1_a", "diff", "diff_b", "w_norm", "b_norm"})
"""Of layers whose effect is linear in these tensors: twice the tensor is twice the effect, the sum of two alike."""


def join_conflicts(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> list[str]:
    """Why these two networks cannot be joined, layer by layer; empty when they can."""
    if not first or not second:
        return []
    if not is_kohya(first) or not is_kohya(second):
        return ["a network is not in kohya's layout; convert it first"]
    conflicts = []
    layers, others = group_layers(first), group_layers(second)
    for name in sorted(set(layers) & set(others)):
        one, two = layers[name], others[name]
        if _same(one, two) and set(one) & _DOUBLED and "dora_scale" not in one:
            continue
        odd = sorted((set(one) | set(two)) - _JOINABLE)
        if odd or not set(one) >= _LORA or not set(two) >= _LORA:
            told = ", ".join(odd) or "no complete LoRA"
            conflicts.append(f"{name}: only LoRA layers can be summed, this one has {told}")
        elif ("lora_mid.weight" in one) != ("lora_mid.weight" in two):
            conflicts.append(f"{name}: one has a lora_mid.weight, the other has none")
        elif (reason := _shape_conflict(one, two)) is not None:
            conflicts.append(f"{name}: {reason}")
    return conflicts


def join_networks(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network whose effect is the sum of both. Ask `join_conflicts` before."""
    layers, others = group_layers(first), group_layers(second)
    joined: dict[str, Tensor] = {}
    for name in [*layers, *(name for name in others if name not in layers)]:
        if name not in others:
            layer: Mapping[str, Tensor] = layers[name]
        elif name not in layers:
            layer = others[name]
        elif not set(others[name]) >= _LORA:
            layer = {
                suffix: _twice(tensor) if suffix in _DOUBLED else tensor for suffix, tensor in others[name].items()
            }
        else:
            layer = _join_layer(layers[name], others[name])
        joined |= {f"{name}.{suffix}" if suffix else name: tensor for suffix, tensor in layer.items()}
    return joined


def weighted(network: Mapping[str, Tensor], weight: float) -> tuple[dict[str, Tensor], list[str]]:
    """The network at another strength, through alpha alone; and the layers whose strength cannot be changed so."""
    if weight == 1.0:
        return dict(network), []
    result: dict[str, Tensor] = {}
    stuck = []
    for name, layer in group_layers(network).items():
        if not _LORA <= set(layer) <= _JOINABLE:
            stuck.append(f"{name}: only LoRA layers can be weighted, this one has {', '.join(sorted(layer))}")
            continue
        rank = layer["lora_down.weight"].shape[0]
        dtype = layer["lora_up.weight"].dtype
        alpha = exactly(torch.tensor(lora_scale(layer) * weight * rank, dtype=torch.float64), dtype)
        result |= {f"{name}.{suffix}": tensor for suffix, tensor in {**layer, "alpha": alpha}.items()}
    return result, stuck


def _join_layer(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> dict[str, Tensor]:
    scales = (lora_scale(one), lora_scale(two))
    common = scales[0] or 1.0
    downs = _alike(one["lora_down.weight"], two["lora_down.weight"])
    ups = _alike(
        *(
            layer["lora_up.weight"]
            if scale == common
            else exactly(layer["lora_up.weight"].double() * (scale / common), layer["lora_up.weight"].dtype)
            for layer, scale in zip((one, two), scales, strict=True)
        )
    )
    rank = downs[0].shape[0] + downs[1].shape[0]
    joined = {
        "alpha": exactly(torch.tensor(common * rank, dtype=torch.float64), ups[0].dtype),
        "lora_down.weight": side_by_side(downs, dim=0),
        "lora_up.weight": side_by_side(ups, dim=1),
    }
    if "lora_mid.weight" in one:
        joined["lora_mid.weight"] = _block_diagonal(*_alike(one["lora_mid.weight"], two["lora_mid.weight"]))
    return joined


def _twice(tensor: Tensor) -> Tensor:
    return exactly(tensor.double() * 2, tensor.dtype)


def _alike(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Both in one dtype that holds either, and with equally many dimensions (1x1 convolutions are also kept as 2-D)."""
    dtype = holding_both(first.dtype, second.dtype)
    dims = max(first.dim(), second.dim())
    first, second = (t.reshape(_shape_of(t, dims)).to(dtype) for t in (first, second))
    return first, second


def _shape_of(tensor: Tensor, dims: int) -> tuple[int, ...]:
    return (*tensor.shape, *[1] * (dims - tensor.dim()))


def _block_diagonal(first: Tensor, second: Tensor) -> Tensor:
    """Two Tucker cores `(r, r, k, k)` as one, without a crossing between them."""
    (n1, m1), (n2, m2) = first.shape[:2], second.shape[:2]
    core = torch.zeros(n1 + n2, m1 + m2, *first.shape[2:], dtype=first.dtype)
    core[:n1, :m1] = first
    core[n1:, m1:] = second
    return core


def _shape_conflict(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> str | None:
    for suffix, dim in (("lora_down.weight", 1), ("lora_up.weight", 0)):
        first, second = one[suffix], two[suffix]
        if min(first.dim(), second.dim()) < 2 or first.shape[dim] != second.shape[dim]:
            return f"{suffix} {list(first.shape)} and {list(second.shape)} belong to different models"
        dims = max(first.dim(), second.dim())
        if _shape_of(first, dims)[2:] != _shape_of(second, dims)[2:]:
            return f"{suffix} {list(first.shape)} and {list(second.shape)} have different kernels"
    for suffix in sorted(set(one) & set(two)):
        try:
            holding_both(one[suffix].dtype, two[suffix].dtype)
        except NetworkError as error:
            return f"{suffix} {error}"
    return None


def _same(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> bool:
    return set(one) == set(two) and all(same_values(one[key], two[key]) for key in one)
