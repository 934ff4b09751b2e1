"""SD1 checkpoints as files for the web UI: a .safetensors in ldm's layout, and its yaml."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from lib_pivotal.bundle.layer_names import UnetShape, compvis_path
from lib_pivotal.errors import HostError
from lib_pivotal.standalone.families import TEXT_PARTS, TITLES, UNET, VAE
from lib_pivotal.standalone.single_file import TEXT_METADATA, Checkpoint

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
_POSITION_IDS = "text_model.embeddings.position_ids"

_VAE_NAMES = (
    (r"\.down_blocks\.(\d+)\.resnets\.", r".down.\1.block."),
    (r"\.down_blocks\.(\d+)\.downsamplers\.0\.", r".down.\1.downsample."),
    (r"\.up_blocks\.(\d+)\.resnets\.", r".up.\1.block."),
    (r"\.up_blocks\.(\d+)\.upsamplers\.0\.", r".up.\1.upsample."),
    (r"\.mid_block\.resnets\.0\.", ".mid.block_1."),
    (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
    (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."),
    (r"\.attn_1\.group_norm\.", ".attn_1.norm."),
    (r"\.attn_1\.to_([qkv])\.", r".attn_1.\1."),
    (r"\.attn_1\.to_out\.0\.", ".attn_1.proj_out."),
    (r"\.conv_norm_out\.", ".norm_out."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
)


def save_checkpoint(
    path: str | Path, checkpoint: Checkpoint, *, text_version: str, dtype: torch.dtype = torch.float16
) -> None:
    """Write `path` (.safetensors, ldm's layout) and its yaml; SD1 only.

    `text_version` goes into the yaml as FrozenCLIPEmbedder's `version`: "openai/clip-vit-large-patch14", or a folder
    made by `install.write_text_folder`, as seen from where the web UI starts.
    """
    path = Path(path)
    if checkpoint.family != "sd1":
        raise HostError(f"{path}: only SD1 checkpoints are written, this one is {TITLES[checkpoint.family]}")
    text, prefix = checkpoint.text_model, TEXT_PARTS["sd1"][0].prefix
    tensors = unet_to_ldm(checkpoint.unet) | vae_to_ldm(checkpoint.vae)
    tensors |= {prefix + name: tensor for name, tensor in text.state_dict().items() if name != _POSITION_IDS}
    tensors = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in tensors.items()}
    tensors[prefix + _POSITION_IDS] = torch.arange(text.config.max_position_embeddings)[None]
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"format": "pt", TEXT_METADATA: json.dumps(text_config(text.config), sort_keys=True)}
    save_file(tensors, str(path), metadata=metadata)
    schedule = {
        "linear_start": checkpoint.linear_start,
        "linear_end": checkpoint.linear_end,
        "timesteps": checkpoint.timesteps,
        "scale_factor": checkpoint.scale_factor,
        "parameterization": "v" if checkpoint.prediction_type == "v_prediction" else "eps",
    }
    text_yaml = ldm_yaml(checkpoint.unet.config, checkpoint.vae.config, schedule, text_version=text_version)
    path.with_suffix(".yaml").write_text(text_yaml, encoding="utf-8")


def unet_to_ldm(unet: Any) -> dict[str, Tensor]:
    """The weights of diffusers' U-Net under the names of a single file."""
    shape = UnetShape.from_diffusers_config(unet.config)
    return {UNET + compvis_path(name, shape): tensor for name, tensor in unet.state_dict().items()}


def vae_to_ldm(vae: Any) -> dict[str, Tensor]:
    """The weights of diffusers' autoencoder under the names of a single file.

    Attention has 1x1 convolutions `(c, c, 1, 1)` there, and the decoder's levels are counted from full resolution.
    """
    last = len(vae.config.block_out_channels) - 1
    found = {}
    for name, tensor in vae.state_dict().items():
        name = re.sub(r"\bup_blocks\.(\d+)", lambda match: f"up_blocks.{last - int(match[1])}", name)
        for ours, theirs in _VAE_NAMES:
            name = re.sub(ours, theirs, name)
        found[VAE + name] = tensor[:, :, None, None] if ".attn_1." in name and tensor.ndim == 2 else tensor
    return found


def text_config(config: Any) -> dict[str, Any]:
    """The fields of a CLIPTextConfig that make its architecture."""
    return {name: getattr(config, name) for name in _TEXT_FIELDS}


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
