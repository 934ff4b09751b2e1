"""Sizes of an SD1 architecture: from tensors to configurations, and from configurations to ldm's yaml.

Only the number of heads cannot be seen in the tensors; it comes from the yaml, or is SD1's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from lib_pivotal.errors import HostError
from lib_pivotal.standalone import compvis

SD1_HEADS = 8
CLIP_HEAD_WIDTH = 64
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


def _params(settings: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    return (settings.get(part) or {}).get("params") or {}


def unet_config(weights: Mapping[str, Tensor], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of diffusers' UNet2DConditionModel for a U-Net's compvis weights (without prefix)."""
    channels: list[int] = []
    attention: list[bool] = []
    resnets = [0]
    block = 1
    while any(name.startswith(f"input_blocks.{block}.") for name in weights):
        if f"input_blocks.{block}.0.op.weight" in weights:
            resnets.append(0)
        else:
            width = weights[f"input_blocks.{block}.0.out_layers.3.weight"].shape[0]
            if resnets[-1] == 0:
                channels.append(width)
                attention.append(f"input_blocks.{block}.1.proj_in.weight" in weights)
            resnets[-1] += 1
        block += 1
    if not channels or len(set(resnets)) != 1:
        raise KeyError("input_blocks.1.0.out_layers.3.weight")
    cross = "middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    heads = _params(settings, "unet_config").get("num_heads", SD1_HEADS)
    return {
        "sample_size": (_params(settings, "first_stage_config").get("ddconfig") or {}).get("resolution", 512) // 8,
        "in_channels": weights["input_blocks.0.0.weight"].shape[1],
        "out_channels": weights["out.2.weight"].shape[0],
        "block_out_channels": tuple(channels),
        "down_block_types": tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attention),
        "up_block_types": tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
        "layers_per_block": resnets[0],
        "cross_attention_dim": weights[cross].shape[1],
        "attention_head_dim": heads,  # diffusers' name for the number of heads
        "use_linear_projection": weights["middle_block.1.proj_in.weight"].ndim == 2,
    }


def vae_config(weights: Mapping[str, Tensor], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of diffusers' AutoencoderKL for an autoencoder's compvis weights (without prefix)."""
    channels = [weights["encoder.down.0.block.0.conv2.weight"].shape[0]]
    while f"encoder.down.{len(channels)}.block.0.conv2.weight" in weights:
        channels.append(weights[f"encoder.down.{len(channels)}.block.0.conv2.weight"].shape[0])
    resnets = 1
    while f"encoder.down.0.block.{resnets}.conv1.weight" in weights:
        resnets += 1
    ddconfig = _params(settings, "first_stage_config").get("ddconfig") or {}
    return {
        "block_out_channels": tuple(channels),
        "down_block_types": ("DownEncoderBlock2D",) * len(channels),
        "up_block_types": ("UpDecoderBlock2D",) * len(channels),
        "layers_per_block": resnets,
        "latent_channels": weights["post_quant_conv.weight"].shape[0],
        "norm_num_groups": 32,
        "sample_size": ddconfig.get("resolution", 512),
        "scaling_factor": float(settings.get("scale_factor", 0.18215)),
    }


def infer_text_config(weights: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """Arguments of CLIPTextConfig for a text model's weights, heads as in CLIP ViT-L/14 (64 wide)."""
    table = weights.get("text_model.embeddings.token_embedding.weight")
    if table is None:
        name = f"{compvis.TEXT}text_model.embeddings.token_embedding.weight"
        raise HostError(f"{path}: no tensor {name}; this is no SD1 checkpoint, whose text model is CLIP's")
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
        "num_attention_heads": max(1, width // CLIP_HEAD_WIDTH),
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
