"""The configurations that diffusers and transformers need, from the shapes of a single file's tensors.

Only the number of heads cannot be seen in the tensors; it comes from the yaml, or is the family's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from lib_pivotal.errors import HostError
from lib_pivotal.standalone.families import SCALE_FACTORS, Family, params_of

SD1_HEADS = 8
HEAD_WIDTH = 64
"""Of SD2's and SDXL's U-Nets, and of all text encoders."""

SIZE_WIDTH = 256
"""SDXL: values that each number of the size conditioning becomes."""


def unet_config(weights: Mapping[str, Tensor], settings: Mapping[str, Any], family: Family = "sd1") -> dict[str, Any]:
    """Arguments of diffusers' UNet2DConditionModel for a U-Net's compvis weights (without prefix).

    SSD-1B and its like have SDXL's blocks with fewer transformers here and there, and none in the middle.
    """
    channels: list[int] = []
    down: list[list[int]] = [[]]
    block = 1
    while any(name.startswith(f"input_blocks.{block}.") for name in weights):
        if f"input_blocks.{block}.0.op.weight" in weights:
            down.append([])
        else:
            if not down[-1]:
                channels.append(weights[f"input_blocks.{block}.0.out_layers.3.weight"].shape[0])
            down[-1].append(_depth(weights, f"input_blocks.{block}.1"))
        block += 1
    if not channels or len({len(level) for level in down}) != 1:
        raise KeyError("input_blocks.1.0.out_layers.3.weight")
    step = len(down[0]) + 1
    up = [[_depth(weights, f"output_blocks.{level * step + i}.1") for i in range(step)] for level in range(len(down))]
    middle = _depth(weights, "middle_block.1")
    cross = next((w for name, w in weights.items() if name.endswith("attn2.to_k.weight")), None)
    linear = next((w for name, w in weights.items() if name.endswith(".1.proj_in.weight")), None)
    if cross is None or linear is None:
        raise KeyError("input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight")
    return {
        "sample_size": (params_of(settings, "first_stage_config").get("ddconfig") or {}).get("resolution", 512) // 8,
        "in_channels": weights["input_blocks.0.0.weight"].shape[1],
        "out_channels": weights["out.2.weight"].shape[0],
        "block_out_channels": tuple(channels),
        "down_block_types": tuple("CrossAttnDownBlock2D" if any(level) else "DownBlock2D" for level in down),
        "up_block_types": tuple("CrossAttnUpBlock2D" if any(level) else "UpBlock2D" for level in up),
        "layers_per_block": len(down[0]),
        "cross_attention_dim": cross.shape[1],
        "attention_head_dim": _heads(channels, settings, family),  # diffusers' name for the number of heads
        "use_linear_projection": linear.ndim == 2,
        **_transformers(down, up, middle),
        **_vector_conditioning(weights),
    }


def _depth(weights: Mapping[str, Tensor], place: str) -> int:
    """Transformers in an attention block; 0 where there is no attention."""
    depth = 0
    while f"{place}.transformer_blocks.{depth}.attn1.to_q.weight" in weights:
        depth += 1
    return depth


def _heads(channels: Sequence[int], settings: Mapping[str, Any], family: Family) -> int | tuple[int, ...]:
    """SD1 has eight heads everywhere, the others heads of 64 channels."""
    params = params_of(settings, "unet_config", "network_config")
    heads, width = params.get("num_heads", -1), params.get("num_head_channels", -1)
    if heads == -1 and width == -1:
        heads, width = (SD1_HEADS, -1) if family == "sd1" else (-1, HEAD_WIDTH)
    return int(heads) if width == -1 else tuple(max(1, each // int(width)) for each in channels)


def _transformers(down: Sequence[Sequence[int]], up: Sequence[Sequence[int]], middle: int) -> dict[str, Any]:
    """Transformers a block, where they are not one everywhere."""
    depths = [_same_or_list(level) for level in down]
    found: dict[str, Any] = {}
    if middle == 0:
        found["mid_block_type"] = "UNetMidBlock2D"
    elif max(down[-1]) not in (0, middle) or (max(down[-1]) == 0 and middle != 1):
        raise KeyError(f"middle_block.1.transformer_blocks.{max(down[-1])}.attn1.to_q.weight")
    # a level without attention counts for the middle only
    depths = [depth or 1 for depth in depths]
    if any(depth != 1 for depth in depths):
        found["transformer_layers_per_block"] = tuple(depths)
    back = [_same_or_list(level) or 1 for level in up]
    if any(isinstance(each, tuple) for each in (*depths, *back)) or back != depths[::-1]:
        # levels as in the way down, though they are those of the way up: diffusers wants them so
        found["transformer_layers_per_block"] = tuple(depths)
        found["reverse_transformer_layers_per_block"] = tuple(back)
    return found


def _same_or_list(depths: Sequence[int]) -> int | tuple[int, ...]:
    return depths[0] if len(set(depths)) == 1 else tuple(depths)


def _vector_conditioning(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """SDXL's: pooled text and six numbers, 256 values each."""
    first = weights.get("label_emb.0.0.weight")
    if first is None:
        return {}
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": SIZE_WIDTH,
        "projection_class_embeddings_input_dim": first.shape[1],
    }


def vae_config(weights: Mapping[str, Tensor], settings: Mapping[str, Any], family: Family = "sd1") -> dict[str, Any]:
    """Arguments of diffusers' AutoencoderKL for an autoencoder's compvis weights (without prefix)."""
    channels = [weights["encoder.down.0.block.0.conv2.weight"].shape[0]]
    while f"encoder.down.{len(channels)}.block.0.conv2.weight" in weights:
        channels.append(weights[f"encoder.down.{len(channels)}.block.0.conv2.weight"].shape[0])
    resnets = 1
    while f"encoder.down.0.block.{resnets}.conv1.weight" in weights:
        resnets += 1
    ddconfig = params_of(settings, "first_stage_config").get("ddconfig") or {}
    return {
        "block_out_channels": tuple(channels),
        "down_block_types": ("DownEncoderBlock2D",) * len(channels),
        "up_block_types": ("UpDecoderBlock2D",) * len(channels),
        "layers_per_block": resnets,
        "latent_channels": weights["post_quant_conv.weight"].shape[0],
        "norm_num_groups": 32,
        "sample_size": ddconfig.get("resolution", 512),
        "scaling_factor": float(settings.get("scale_factor", SCALE_FACTORS[family])),
    }


def clip_config(weights: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """Arguments of CLIPTextConfig for weights under CLIP's own names, heads as in CLIP ViT-L/14 (64 wide)."""
    table = weights.get("text_model.embeddings.token_embedding.weight")
    if table is None:
        raise HostError(
            f"{path}: no text encoder that is known (no text_model.embeddings.token_embedding.weight); "
            "choose a full SD1, SD2 or SDXL checkpoint"
        )
    places = weights["text_model.embeddings.position_embedding.weight"]
    layers = _each(weights, "text_model.encoder.layers.{}.mlp.fc1.weight")
    return {**_text_config(table, places, layers), "pad_token_id": table.shape[0] - 1}


def openclip_config(weights: Mapping[str, Tensor], *, layers_left_out: int = 0) -> dict[str, Any]:
    """Arguments of CLIPTextConfig for OpenCLIP's weights, without their last layers."""
    table, places = weights["token_embedding.weight"], weights["positional_embedding"]
    layers = _each(weights, "transformer.resblocks.{}.mlp.c_fc.weight")
    config = _text_config(table, places, layers)
    config["num_hidden_layers"] -= layers_left_out
    if "text_projection" in weights:
        config["projection_dim"] = weights["text_projection"].shape[1]
    return {**config, "hidden_act": "gelu", "pad_token_id": 1}


def _text_config(table: Tensor, places: Tensor, layers: Sequence[Tensor]) -> dict[str, Any]:
    """What both kinds of text encoder have; `layers` are the first matrices of their feed-forward networks."""
    vocabulary, width = table.shape
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "projection_dim": width,
        "intermediate_size": layers[0].shape[0],
        "num_hidden_layers": len(layers),
        "num_attention_heads": max(1, width // HEAD_WIDTH),
        "max_position_embeddings": places.shape[0],
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
    }


def _each(weights: Mapping[str, Tensor], pattern: str) -> list[Tensor]:
    """The tensors called `pattern` with 0, 1, 2 ...; KeyError where there is none."""
    found = [weights[pattern.format(0)]]
    while pattern.format(len(found)) in weights:
        found.append(weights[pattern.format(len(found))])
    return found
