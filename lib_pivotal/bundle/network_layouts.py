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

import torch
from torch import Tensor

from lib_pivotal.bundle.layer_names import (
    UnetShape,
    canonical_name,
    kohya_name,
    name_for_webui,
    part_of,
    split_kohya_name,
)
from lib_pivotal.errors import NetworkError
from lib_pivotal.ports import Part

DIFFUSERS_PREFIXES: dict[Part, str] = {"unet": "unet", "te": "text_encoder", "te2": "text_encoder_2"}

_PLAIN = frozenset({"lora_down.weight", "lora_up.weight", "alpha"})
_DORA = _PLAIN | {"dora_scale"}

_FOREIGN_SUFFIXES = (
    (re.compile(r"(.+)\.lora_A(?:\.default)?\.weight"), "lora_down.weight"),
    (re.compile(r"(.+)\.lora_B(?:\.default)?\.weight"), "lora_up.weight"),
    (re.compile(r"(.+)\.lora(?:_linear_layer)?\.down\.weight"), "lora_down.weight"),
    (re.compile(r"(.+)\.lora(?:_linear_layer)?\.up\.weight"), "lora_up.weight"),
    (re.compile(r"(.+)_lora\.down\.weight"), "lora_down.weight"),
    (re.compile(r"(.+)_lora\.up\.weight"), "lora_up.weight"),
    (re.compile(r"(.+)\.lora_magnitude_vector(?:\.default)?(?:\.weight)?"), "dora_scale"),
    (re.compile(r"(.+)\.alpha"), "alpha"),
)


def group_layers(network: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Kohya keys by layer: name -> what follows the first dot -> tensor."""
    layers: dict[str, dict[str, Tensor]] = {}
    for key, tensor in network.items():
        name, _, suffix = key.partition(".")
        layers.setdefault(name, {})[suffix] = tensor
    return layers


def is_kohya(network: Mapping[str, Tensor]) -> bool:
    """Whether these keys are laid out as kohya's (and so as the web UI wants them)."""
    return all("." not in key.partition(".")[0] and key.startswith("lora_") for key in network)


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
    path = split_kohya_name(canonical_name(name, shape))[1]
    try:
        return name_for_webui(path, shape)
    except NetworkError:  # a layer of no known place keeps its name
        return name


def _renamed(network: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    renamed = {}
    for key, tensor in network.items():
        name, dot, suffix = key.partition(".")
        renamed[names.get(name, name) + dot + suffix] = tensor
    return renamed


def is_diffusers(network: Mapping[str, Tensor]) -> bool:
    """Whether these keys are laid out as diffusers' or peft's."""
    return any(key.startswith(("unet.", "text_encoder.", "text_encoder_2.", "base_model.")) for key in network)


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
    refused: list[str] = []
    ranks = common_ranks(network)
    for name, layer in group_layers(network).items():
        try:
            part, path = split_kohya_name(canonical_name(name, shape))
            converted |= {
                f"{DIFFUSERS_PREFIXES[part]}.{path}.{key}": value for key, value in _peft(layer, ranks[part]).items()
            }
        except NetworkError as error:
            refused.append(f"{name}: {error}")
    if refused:
        lines = "\n".join(f"  - {reason}" for reason in refused)
        raise NetworkError(f"{len(refused)} layer(s) cannot be written in diffusers' layout:\n{lines}")
    return converted


def to_kohya(network: Mapping[str, Tensor], *, part: Part = "unet") -> dict[str, Tensor]:
    """A network in diffusers' or peft's layout as kohya's. `part` says what a peft file without prefixes belongs to."""
    layers: dict[str, dict[str, Tensor]] = {}
    towers = 2 if any(part_of(key) == "te2" for key in network) else 1
    refused = []
    for key, tensor in network.items():
        bare = key.removeprefix("base_model.model.")
        own = part_of(bare) or part
        bare = bare.removeprefix(f"{DIFFUSERS_PREFIXES[own]}.")
        found = next(((m[1], kind) for rule, kind in _FOREIGN_SUFFIXES if (m := rule.fullmatch(bare))), None)
        if found is None:
            refused.append(key)
            continue
        path = re.sub(r"\.processor\.(to_[qkv])$", r".\1", found[0])
        path = re.sub(r"(?:\.processor)?\.to_out$", ".to_out.0", path)
        layers.setdefault(kohya_name(path, own, towers=towers), {})[found[1]] = tensor
    if refused:
        raise NetworkError(f"{len(refused)} key(s) are no LoRA in diffusers' layout: {', '.join(refused[:5])}")
    return {f"{name}.{key}": value for name, layer in layers.items() for key, value in _kohya(layer).items()}


def common_ranks(network: Mapping[str, Tensor]) -> dict[Part, int]:
    """The largest rank of each part's LoRA layers (kohya keys)."""
    ranks: dict[Part, int] = {"unet": 0, "te": 0, "te2": 0}
    for key, tensor in network.items():
        part = part_of(key)
        if part is not None and key.endswith(".lora_down.weight") and tensor.dim() > 0:
            ranks[part] = max(ranks[part], tensor.shape[0])
    return ranks


def _peft(layer: Mapping[str, Tensor], rank: int) -> dict[str, Tensor]:
    if not {"lora_down.weight", "lora_up.weight"} <= set(layer) <= _DORA:
        raise NetworkError(f"holds {', '.join(sorted(layer))}, only LoRA and DoRA have a counterpart")
    up, down = layer["lora_up.weight"], layer["lora_down.weight"]
    tensors = {
        "lora_A.weight": _padded(down, rank, dim=0),
        "lora_B.weight": _padded(exactly(up.double() * lora_scale(layer), up.dtype), rank, dim=1),
    }
    if "dora_scale" in layer:
        scale = layer["dora_scale"]
        if scale.shape[0] != up.shape[0] or scale.numel() != up.shape[0]:
            raise NetworkError(f"DoRA a column (dora_scale {list(scale.shape)}); peft knows only DoRA a row")
        tensors["lora_magnitude_vector"] = scale.reshape(-1).contiguous()
    return tensors


def _padded(tensor: Tensor, rank: int, *, dim: int) -> Tensor:
    """The tensor with zeros appended along `dim` up to `rank`."""
    missing = rank - tensor.shape[dim]
    if missing == 0:
        return tensor.contiguous()
    shape = [missing if at == dim else size for at, size in enumerate(tensor.shape)]
    return torch.cat([tensor, tensor.new_zeros(shape)], dim=dim)


def _kohya(layer: Mapping[str, Tensor]) -> dict[str, Tensor]:
    down = layer.get("lora_down.weight")
    if down is None or "lora_up.weight" not in layer:
        return dict(layer)
    alpha = layer.get("alpha", torch.tensor(float(down.shape[0]), dtype=down.dtype))
    tensors = {"alpha": alpha, "lora_down.weight": down, "lora_up.weight": layer["lora_up.weight"]}
    if "dora_scale" in layer:
        tensors["dora_scale"] = layer["dora_scale"].reshape(-1, *[1] * (down.dim() - 1))
    return tensors
