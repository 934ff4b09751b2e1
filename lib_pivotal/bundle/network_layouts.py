"""The network's tensors in other layouts: kohya's and diffusers'/peft's, both ways, with the same effect.

    kohya      <name>.lora_down.weight, .lora_up.weight, .alpha, .dora_scale       W + alpha/rank · up · down
    diffusers  <part>.<path>.lora_A.weight, .lora_B.weight, .lora_magnitude_vector  W + B · A (alpha = rank)

The diffusers layout has no place for alpha, so alpha/rank goes into B: exactly, in fp32 where the file's dtype cannot
hold the product. Layers of one part get one rank, smaller ones padded with zeros: diffusers (seen in 0.31,
utils/peft_utils.py get_peft_kwargs) takes the first layer's rank for every layer's alpha. Layers that have no
counterpart there are refused by name, none is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lib_pivotal.bundle.adapter_config import AdapterConfig
from lib_pivotal.bundle.dtypes import side_by_side
from lib_pivotal.bundle.layer_names import (
    UnetShape,
    canonical_name,
    kohya_name,
    name_for_webui,
    part_of,
    split_kohya_name,
)
from lib_pivotal.bundle.network_places import MAGNITUDE, Place, parts_of, place_of, recognise
from lib_pivotal.errors import NetworkError
from lib_pivotal.ports import Part


@dataclass(frozen=True)
class PeftModel:
    """One model's adapter: tensors under the keys of peft without `base_model.model.`, rank and alpha by path."""

    tensors: dict[str, Tensor]
    ranks: dict[str, int]
    alphas: dict[str, float]


DIFFUSERS_PREFIXES: dict[Part, str] = {"unet": "unet", "te": "text_encoder", "te2": "text_encoder_2"}

_PLAIN = frozenset({"lora_down.weight", "lora_up.weight", "alpha"})
_DORA = _PLAIN | {"dora_scale"}


def group_layers(network: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Kohya keys by layer: name -> what follows the first dot -> tensor."""
    layers: dict[str, dict[str, Tensor]] = {}
    for key, tensor in network.items():
        name, _, suffix = key.partition(".")
        layers.setdefault(name, {})[suffix] = tensor
    return layers


def is_kohya(network: Mapping[str, Tensor]) -> bool:
    """Whether these keys are laid out as kohya's (and so as the web UI wants them)."""
    return all(place is not None and place.layout == "kohya" for place in map(place_of, network))


def for_webui(network: Mapping[str, Tensor], shape: UnetShape) -> dict[str, Tensor]:
    """A kohya network under the names by which the stock web UI finds its layers in a U-Net of this shape.

    The same tensors, and for SD1 and SD2 the same names. In a U-Net with other numbers of blocks the stock web UI would
    miss layers, or take one for another; see `layer_names.name_for_webui`.
    """
    return _renamed(network, {name: _webui_name(name, shape) for name in group_layers(network)})


def from_webui(network: Mapping[str, Tensor], shape: UnetShape) -> dict[str, Tensor]:
    """The same network under kohya's names on diffusers' paths again, which hosts give their layers."""
    known = {name for name in group_layers(network) if part_of(name) == "unet" and name.startswith("lora_unet_")}
    return _renamed(network, {name: canonical_name(name, shape) for name in known})


OPENCLIP_PREFIXES = {"sd2": "lora_te_", "sdxl": "lora_te2_"}
"""How the layers of a family's OpenCLIP text encoder begin."""


def with_whole_attention(network: Mapping[str, Tensor], family: str) -> dict[str, Tensor]:
    """The same network, with changes of nothing where OpenCLIP's attention has some of q, k, v and out, but not all.

    The web UI v1.10.1 applies the four only together (Lora/networks.py, `network_apply_weights`), since OpenCLIP keeps
    three of them in one matrix: a file with q and v alone would have no effect there.
    """
    prefix = OPENCLIP_PREFIXES.get(family)
    if prefix is None:
        return dict(network)
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in network.items():
        match = re.fullmatch(rf"({prefix}.+_self_attn)_(q|k|v|out)_proj\.(.+)", key)
        if match and tensor.dim() > 1:
            found.setdefault(match[1], {}).setdefault(match[2], tensor)
    added: dict[str, Tensor] = {}
    for stem, there in found.items():
        width = max(max(tensor.shape, default=0) for tensor in there.values())
        dtype = next(iter(there.values())).dtype
        for name in sorted({"q", "k", "v", "out"} - set(there)):
            layer = f"{stem}_{name}_proj"
            added[f"{layer}.lora_down.weight"] = torch.zeros(1, width, dtype=dtype)
            added[f"{layer}.lora_up.weight"] = torch.zeros(width, 1, dtype=dtype)
            added[f"{layer}.alpha"] = torch.tensor(1.0, dtype=dtype)
    return {**network, **added}


def _webui_name(name: str, shape: UnetShape) -> str:
    if not name.startswith("lora_unet_"):
        return name
    try:
        return name_for_webui(split_kohya_name(canonical_name(name, shape))[1], shape)
    except NetworkError:  # a layer of no known place keeps its name
        return name


def _renamed(network: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for key, tensor in network.items():
        name, dot, suffix = key.partition(".")
        new = names.get(name, name) + dot + suffix
        if new in renamed:
            raise NetworkError(
                f"layer {name!r}: the file has it twice, under this name and as {names.get(name, name)!r}"
            )
        renamed[new] = tensor
    return renamed


def misfits(layer: Mapping[str, Tensor]) -> list[str]:
    """Why the tensors of one of kohya's layers cannot belong together; other algorithms' own tensors are not judged."""
    reasons = []
    up, down, alpha = (layer.get(suffix) for suffix in ("lora_up.weight", "lora_down.weight", "alpha"))
    if (up is None) != (down is None):
        reasons.append(f"has no {'lora_up.weight' if up is None else 'lora_down.weight'}")
    elif up is not None and down is not None and not _ranks_fit(layer, up, down):
        reasons.append(f"lora_up {list(up.shape)} and lora_down {list(down.shape)} do not fit together")
    if alpha is not None and alpha.numel() != 1:
        reasons.append(f"alpha has {alpha.numel()} values, one is needed")
    return reasons


def _ranks_fit(layer: Mapping[str, Tensor], up: Tensor, down: Tensor) -> bool:
    if up.dim() < 2 or down.dim() < 2 or down.shape[0] == 0:
        return False
    return "lora_mid.weight" in layer or up.shape[1] == down.shape[0]


def lora_scale(layer: Mapping[str, Tensor]) -> float:
    """alpha / rank of a LoRA layer; 1 where there is no alpha."""
    alpha = layer.get("alpha")
    return 1.0 if alpha is None else float(alpha) / layer["lora_down.weight"].shape[0]


def exactly(product: Tensor, dtype: torch.dtype) -> Tensor:
    """A float64 result in `dtype` if that holds it exactly, else in fp32."""
    narrow = product.to(dtype)
    return narrow if torch.equal(narrow.double(), product) else product.float()


def to_diffusers(network: Mapping[str, Tensor], *, shape: UnetShape | None = None) -> dict[str, Tensor]:
    """A kohya network in diffusers' layout. `shape` is needed for layers that are numbered as in compvis.

    NetworkError lists every layer that cannot be expressed there.
    """
    converted: dict[str, Tensor] = {}
    ranks = common_ranks(network)
    for part, path, layer in _placed(network, shape):
        up = layer["lora_up.weight"]
        folded = {**layer, "lora_up.weight": exactly(up.double() * lora_scale(layer), up.dtype)}
        for key, tensor in _peft(folded).items():
            dim = {"lora_A.weight": 0, "lora_B.weight": 1}.get(key)
            stored = tensor if dim is None else _padded(tensor, ranks[part], dim=dim)
            converted[f"{DIFFUSERS_PREFIXES[part]}.{path}.{key}"] = stored
    return converted


def to_kohya(
    network: Mapping[str, Tensor],
    *,
    configs: Mapping[str, AdapterConfig] | None = None,
    text_part: Part = "te",
    towers: int | None = None,
) -> dict[str, Tensor]:
    """A network in any layout that is recognised as kohya's; what is kohya's already keeps its keys and its bits.

    `configs`: ranks and alphas that a file keeps beside its tensors, by model. `text_part` says which text encoder the
    layers of a file belong to that names none, `towers` how many its model has (None: as many as the file shows).
    NetworkError where a key is of no layout that is known.
    """
    seen = recognise(network)
    if seen.refusal:
        raise NetworkError(seen.refusal)
    shown = parts_of(seen.places.values()) | ({text_part} if any(not p.sure for p in seen.places.values()) else set())
    towers = towers or (2 if "te2" in shown else 1)
    layers: dict[str, dict[str, Tensor]] = {}
    of: dict[str, Place] = {}
    for key, place in seen.places.items():
        part = place.part if place.sure else text_part
        name = place.name or kohya_name(place.path, part, towers=towers)
        layer = layers.setdefault(name, {})
        if place.suffix in layer:
            raise NetworkError(f"{key}: the file has {place.suffix} of layer {name!r} twice, in two layouts")
        layer[place.suffix] = network[key]
        if of.setdefault(name, place).layout == "kohya":
            of[name] = place
    converted: dict[str, Tensor] = {}
    for name, layer in layers.items():
        scale = None
        if of[name].layout != "kohya":
            config = _config_of(configs or {}, of[name].part if of[name].sure else text_part)
            scale = None if config is None else config.scale(of[name].path, _rank(layer))
            layer = _kohya(layer, scale)
        converted |= {f"{name}.{suffix}": tensor for suffix, tensor in layer.items()}
    return converted


def _config_of(configs: Mapping[str, AdapterConfig], part: Part) -> AdapterConfig | None:
    return configs.get(DIFFUSERS_PREFIXES[part]) or configs.get("")


def _rank(layer: Mapping[str, Tensor]) -> int:
    down = layer.get("lora_down.weight")
    return down.shape[0] if down is not None and down.dim() else 1


def common_ranks(network: Mapping[str, Tensor]) -> dict[Part, int]:
    """The largest rank of each part's LoRA layers (kohya keys)."""
    ranks: dict[Part, int] = {"unet": 0, "te": 0, "te2": 0}
    for key, tensor in network.items():
        part = part_of(key)
        if part is not None and key.endswith(".lora_down.weight") and tensor.dim() > 0:
            ranks[part] = max(ranks[part], tensor.shape[0])
    return ranks


def to_peft(network: Mapping[str, Tensor], *, shape: UnetShape | None = None) -> dict[Part, PeftModel]:
    """A kohya network as peft's, a model each: the same tensors, bit for bit; alphas and ranks for the config."""
    made: dict[Part, PeftModel] = {}
    for part, path, layer in _placed(network, shape):
        model = made.setdefault(part, PeftModel({}, {}, {}))
        model.tensors.update({f"{path}.{key}": tensor for key, tensor in _peft(layer).items()})
        model.ranks[path] = layer["lora_down.weight"].shape[0]
        model.alphas[path] = lora_scale(layer) * model.ranks[path]
    return made


def _placed(network: Mapping[str, Tensor], shape: UnetShape | None) -> list[tuple[Part, str, Mapping[str, Tensor]]]:
    """Part, diffusers path and tensors of each layer; NetworkError lists every one that has no counterpart there."""
    placed: list[tuple[Part, str, Mapping[str, Tensor]]] = []
    refused: list[str] = []
    for name, layer in group_layers(network).items():
        try:
            part, path = split_kohya_name(canonical_name(name, shape))
            _peft(layer)
            placed.append((part, path, layer))
        except NetworkError as error:
            refused.append(f"{name}: {error}")
    if refused:
        lines = "\n".join(f"  - {reason}" for reason in refused)
        raise NetworkError(f"{len(refused)} layer(s) cannot be written in diffusers' layout:\n{lines}")
    return placed


def _peft(layer: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not {"lora_down.weight", "lora_up.weight"} <= set(layer) <= _DORA:
        raise NetworkError(f"holds {', '.join(sorted(layer))}, only LoRA and DoRA have a counterpart")
    up, down = layer["lora_up.weight"], layer["lora_down.weight"]
    tensors = {"lora_A.weight": down.contiguous(), "lora_B.weight": up.contiguous()}
    if "dora_scale" in layer:
        scale = layer["dora_scale"]
        if scale.shape[0] != up.shape[0] or scale.numel() != up.shape[0]:
            raise NetworkError(f"DoRA a column (dora_scale {list(scale.shape)}); peft knows only DoRA a row")
        # peft has a convolution's magnitudes as a picture's channels: tuners/lora/dora.py, DoraConv2dLayer
        shape = (-1,) if down.dim() == 2 else (1, -1, *[1] * (down.dim() - 2))
        tensors["lora_magnitude_vector"] = scale.reshape(shape).contiguous()
    return tensors


def _padded(tensor: Tensor, rank: int, *, dim: int) -> Tensor:
    """The tensor with zeros appended along `dim` up to `rank`."""
    missing = rank - tensor.shape[dim]
    if missing == 0:
        return tensor.contiguous()
    shape = [missing if at == dim else size for at, size in enumerate(tensor.shape)]
    return side_by_side([tensor, torch.zeros(shape, dtype=tensor.dtype)], dim=dim)


def _kohya(layer: Mapping[str, Tensor], scale: float | None) -> dict[str, Tensor]:
    """One layer with kohya's endings. Without an alpha it has its rank for one, or what `scale` makes of it."""
    tensors = dict(layer)
    down = tensors.get("lora_down.weight")
    if MAGNITUDE in tensors:
        magnitude = tensors.pop(MAGNITUDE)
        tensors["dora_scale"] = magnitude.reshape(-1, *[1] * (1 if down is None else down.dim() - 1))
    if down is None or "lora_up.weight" not in tensors:
        return tensors
    if "alpha" not in tensors:
        rank = float(_rank(tensors))
        alpha = torch.tensor(rank if scale is None else scale * rank, dtype=torch.float64)
        tensors["alpha"] = exactly(alpha, down.dtype)
    return {"alpha": tensors.pop("alpha"), **tensors}
