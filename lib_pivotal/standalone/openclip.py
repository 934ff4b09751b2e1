"""OpenCLIP's text encoder under transformers' names, and back.

The same numbers in another arrangement: q, k and v of self-attention are one matrix `in_proj_weight` there, and the
projection of the pooled output multiplies from the other side. Layers' names are those of `bundle.layer_names`.
https://github.com/mlfoundations/open_clip/blob/v2.20.0/src/open_clip/transformer.py
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lib_pivotal.bundle.layer_names import OpenClipLayer, to_openclip, to_transformers
from lib_pivotal.errors import NetworkError

HEAD_WIDTH = 64
"""Of ViT-H and ViT-bigG alike (and of CLIP ViT-L)."""

_TOP = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}
_BACK = {transformers: openclip for openclip, transformers in _TOP.items()}
_PROJECTION = "text_projection"
_UNUSED = frozenset({"logit_scale", "attn_mask"})
_FUSED = ("q_proj", "k_proj", "v_proj")


def to_transformers_weights(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """(weights under transformers' names, names for which there is no place), views where possible."""
    found: dict[str, Tensor] = {}
    strange = []
    for name, tensor in weights.items():
        stem, _, leaf = name.rpartition(".")
        if name in _UNUSED:
            continue
        if name in _TOP:
            found[_TOP[name]] = tensor
        elif name == _PROJECTION:
            found["text_projection.weight"] = tensor.t().contiguous()
        elif leaf in ("in_proj_weight", "in_proj_bias"):
            for third, part in enumerate(tensor.chunk(3)):
                found[f"{to_transformers(OpenClipLayer(stem, third))}.{leaf.removeprefix('in_proj_')}"] = part
        else:
            try:
                found[f"{to_transformers(OpenClipLayer(stem))}.{leaf}"] = tensor
            except NetworkError:
                strange.append(name)
    return found, strange


def from_transformers_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The reverse of `to_transformers_weights`."""
    found: dict[str, Tensor] = {}
    thirds: dict[str, list[Tensor]] = {}
    for name, tensor in weights.items():
        stem, _, leaf = name.rpartition(".")
        if name in _BACK:
            found[_BACK[name]] = tensor
        elif name == "text_projection.weight":
            found[_PROJECTION] = tensor.t().contiguous()
        elif not name.endswith("position_ids"):
            layer = to_openclip(stem)
            if layer.third is None:
                found[f"{layer.path}.{leaf}"] = tensor
            else:
                thirds.setdefault(f"{layer.path}.in_proj_{leaf}", [tensor] * 3)[layer.third] = tensor
    return found | {name: torch.cat(parts) for name, parts in thirds.items()}


def text_config(weights: Mapping[str, Tensor], *, layers_left_out: int = 0) -> dict[str, Any]:
    """Arguments of transformers' CLIPTextConfig for OpenCLIP's weights; KeyError names a tensor that is missing."""
    table = weights["token_embedding.weight"]
    layers = 0
    while f"transformer.resblocks.{layers}.mlp.c_fc.weight" in weights:
        layers += 1
    width = table.shape[1]
    projection = weights.get(_PROJECTION)
    return {
        "vocab_size": table.shape[0],
        "hidden_size": width,
        "projection_dim": width if projection is None else projection.shape[1],
        "intermediate_size": weights["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        "num_hidden_layers": layers - layers_left_out,
        "num_attention_heads": max(1, width // HEAD_WIDTH),
        "max_position_embeddings": weights["positional_embedding"].shape[0],
        "hidden_act": "gelu",
        "pad_token_id": 1,
        "bos_token_id": table.shape[0] - 2,
        "eos_token_id": table.shape[0] - 1,
    }


def without_last_layers(weights: Mapping[str, Tensor], kept: int) -> dict[str, Tensor]:
    """Without the layers after the first `kept`: SD2 stops before its last."""
    return {
        name: tensor
        for name, tensor in weights.items()
        if not name.startswith("transformer.resblocks.") or int(name.split(".")[2]) < kept
    }
