"""The avatars checkpoint's networks: SD1's architecture, all small, as diffusers and transformers classes."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

WIDTH = 64
"""Width of the text model, and so of the U-Net's cross attention."""


def autoencoder() -> AutoencoderKL:
    """SD's autoencoder, f = 8, four latent channels; ldm's `ch: 32, ch_mult: [1, 1, 2, 2], num_res_blocks: 1`."""
    channels = (32, 32, 64, 64)
    return AutoencoderKL(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=32,
        sample_size=64,
    )


def unet() -> UNet2DConditionModel:
    """SD1's U-Net on 8x8 latents; ldm's `model_channels: 64, channel_mult: [1, 2], num_res_blocks: 1, num_heads: 4`."""
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(64, 128),
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,  # diffusers' name for the number of heads
    )


def text_model() -> CLIPTextModel:
    """CLIP's text model as in SD1 (49,408 tokens, 77 positions, quick GELU), of width 64 and 4 layers."""
    return CLIPTextModel(
        CLIPTextConfig(
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=4,
            num_attention_heads=4,
            projection_dim=WIDTH,
            pad_token_id=49407,
            bos_token_id=49406,
            eos_token_id=49407,
        )
    )


def alphas_cumprod() -> torch.Tensor:
    """SD's noise schedule ("scaled linear" from 0.00085 to 0.012), `(1000,)`."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()
