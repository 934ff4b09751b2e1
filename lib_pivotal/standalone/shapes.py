"""Sizes of an architecture: from tensors to configurations, and from configurations to ldm's yaml.

Only the number of heads cannot be seen in the tensors; it comes from the yaml, or is the family's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from lib_pivotal.errors import HostError
from lib_pivotal.standalone import compvis
from lib_pivotal.standalone.families import SCALE_FACTORS, Family

SD1_HEADS = 8
HEAD_WIDTH = 64
"""Of SD2's and SDXL's U-Nets, and of all text encoders."""

SIZE_WIDTH = 256
"""SDXL: values that each number of the size conditioning becomes."""
_TEXT_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "projection_dim",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "hidden_act",
    "layer_norm_eps",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "model_type",
)


def read_yaml(path: Path) -> dict[str, Any]:
    """`model.params` of an ldm yaml; empty where there is no file."""
    if not path.is_file():
        return {}
    try:
        settings: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["model"]["params"]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        reason = f"no model.params can be read from it ({error!r}); remove it or write it as ldm does"
        raise HostError(f"{path}: {reason}") from error
    return settings


def params_of(settings: Mapping[str, Any], *parts: str) -> Mapping[str, Any]:
    """`params` of the first of these parts of a yaml that is there (ldm and sgm call them differently); or empty."""
    for part in parts:
        if settings.get(part):
            return settings[part].get("params") or {}
    return {}


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


def infer_text_config(weights: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """Arguments of CLIPTextConfig for a text model's weights, heads as in CLIP ViT-L/14 (64 wide)."""
    table = weights.get("text_model.embeddings.token_embedding.weight")
    if table is None:
        raise HostError(
            f"{path}: no text encoder that is known (no text_model.embeddings.token_embedding.weight); "
            "choose a full SD1, SD2 or SDXL checkpoint"
        )
    layers = 0
    while f"text_model.encoder.layers.{layers}.mlp.fc1.weight" in weights:
        layers += 1
    width = table.shape[1]
    return {
        "vocab_size": table.shape[0],
        "hidden_size": width,
        "projection_dim": width,
        "intermediate_size": weights["text_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // HEAD_WIDTH),
        "max_position_embeddings": weights["text_model.embeddings.position_embedding.weight"].shape[0],
        "pad_token_id": table.shape[0] - 1,
        "bos_token_id": table.shape[0] - 2,
        "eos_token_id": table.shape[0] - 1,
    }


def text_config(config: Any) -> dict[str, Any]:
    """The fields of a CLIPTextConfig that make its architecture."""
    return {name: getattr(config, name) for name in _TEXT_FIELDS}


def unet_names(config: Any) -> dict[str, str]:
    """Compvis -> diffusers modules of the U-Net with this configuration."""
    attention = [kind.startswith("CrossAttn") for kind in config.down_block_types]
    return compvis.unet_prefixes(attention, config.layers_per_block)


def vae_names(config: Any) -> dict[str, str]:
    """Compvis -> diffusers modules of the autoencoder with this configuration."""
    return compvis.vae_prefixes(len(config.block_out_channels), config.layers_per_block)


def ldm_yaml(unet: Any, vae: Any, schedule: Mapping[str, Any], *, text_version: str) -> str:
    """The yaml from which ldm (and the web UI) builds the same architecture."""
    base, ch = unet.block_out_channels[0], vae.block_out_channels[0]
    attention = [2**level for level, kind in enumerate(unet.down_block_types) if kind.startswith("CrossAttn")]
    params: dict[str, Any] = {
        **schedule,
        "num_timesteps_cond": 1,
        "log_every_t": 200,
        "first_stage_key": "jpg",
        "cond_stage_key": "txt",
        "image_size": unet.sample_size,
        "channels": vae.latent_channels,
        "cond_stage_trainable": False,
        "conditioning_key": "crossattn",
        "use_ema": False,
        "unet_config": {
            "target": "ldm.modules.diffusionmodules.openaimodel.UNetModel",
            "params": {
                "image_size": unet.sample_size,
                "in_channels": unet.in_channels,
                "out_channels": unet.out_channels,
                "model_channels": base,
                "attention_resolutions": attention,
                "num_res_blocks": unet.layers_per_block,
                "channel_mult": [width // base for width in unet.block_out_channels],
                "num_heads": unet.attention_head_dim,
                "use_spatial_transformer": True,
                "transformer_depth": 1,
                "context_dim": unet.cross_attention_dim,
                "use_checkpoint": False,
                "legacy": False,
            },
        },
        "first_stage_config": {
            "target": "ldm.models.autoencoder.AutoencoderKL",
            "params": {
                "embed_dim": vae.latent_channels,
                "ddconfig": {
                    "double_z": True,
                    "z_channels": vae.latent_channels,
                    "resolution": vae.sample_size,
                    "in_channels": 3,
                    "out_ch": 3,
                    "ch": ch,
                    "ch_mult": [width // ch for width in vae.block_out_channels],
                    "num_res_blocks": vae.layers_per_block,
                    "attn_resolutions": [],
                    "dropout": 0.0,
                },
                "lossconfig": {"target": "torch.nn.Identity"},
            },
        },
        "cond_stage_config": {
            "target": "ldm.modules.encoders.modules.FrozenCLIPEmbedder",
            "params": {"version": text_version},
        },
    }
    model = {"target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": params}
    text: str = yaml.safe_dump({"model": model}, sort_keys=False)
    return text
