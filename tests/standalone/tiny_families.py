"""Small checkpoints of every family: real architectures, few and narrow layers, random weights.

The single files have ldm's and sgm's names, written by the reverse of the loader's renaming; that files which ldm's and
sgm's own classes write are read, is for the live checkpoints (tests/live/tiny_families.py) to show.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from lib_pivotal.standalone import compvis, openclip, shapes
from lib_pivotal.standalone.families import TEXT_PARTS, Family
from lib_pivotal.standalone.single_file import Checkpoint
from lib_pivotal.standalone.tokenizer import clip_tokenizer

FIRST, SECOND, SD2_WIDTH = 64, 128, 128
"""Widths of SDXL's text encoders and of SD2's: whole heads of 64, as the loader takes them to be."""

SIZE_WIDTH = 256


def text_model(width: int, *, layers: int = 2, openclip_kind: bool = False, projected: bool = False) -> Any:
    kind = CLIPTextModelWithProjection if projected else CLIPTextModel
    return kind(
        CLIPTextConfig(
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=layers,
            num_attention_heads=width // 64,
            projection_dim=width,
            hidden_act="gelu" if openclip_kind else "quick_gelu",
        )
    )


def unet(family: Family, *, channels: int = 4) -> Any:
    if family == "sdxl":
        return UNet2DConditionModel(
            sample_size=8,
            in_channels=channels,
            block_out_channels=(64, 64, 128),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            transformer_layers_per_block=(1, 1, 2),
            cross_attention_dim=FIRST + SECOND,
            attention_head_dim=(1, 1, 2),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=SIZE_WIDTH,
            projection_class_embeddings_input_dim=SECOND + 6 * SIZE_WIDTH,
        )
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=channels,
        block_out_channels=(64, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=SD2_WIDTH if family == "sd2" else FIRST,
        attention_head_dim=(1, 1) if family == "sd2" else 8,
        use_linear_projection=family == "sd2",
    )


def autoencoder(family: Family) -> Any:
    return AutoencoderKL(
        block_out_channels=(32, 32, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        scaling_factor=0.13025 if family == "sdxl" else 0.18215,
    )


def make(family: Family, *, channels: int = 4, seed: int = 0) -> Checkpoint:
    """A checkpoint in memory; norms and biases are random, too, so that nothing is hidden behind zeros and ones."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        second = None
        if family == "sd2":
            first = text_model(SD2_WIDTH, openclip_kind=True)
        else:
            first = text_model(FIRST)
            if family == "sdxl":
                second = text_model(SECOND, openclip_kind=True, projected=True)
        found = Checkpoint(
            first,
            unet(family, channels=channels),
            autoencoder(family),
            clip_tokenizer(),
            scale_factor=0.13025 if family == "sdxl" else 0.18215,
            family=family,
            text_model_2=second,
        )
        for model in found.models():
            _shake(model)
            model.eval().requires_grad_(False)
    return found


def _shake(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            parameter.data += 0.1 * torch.randn(parameter.shape) - (0.1 if "final_layer_norm.bias" in name else 0)


def write(path: Path, checkpoint: Checkpoint, *, markers: tuple[str, ...] = ()) -> Path:
    """The checkpoint as ldm or sgm would save it, fp32, without a yaml."""
    tensors: dict[str, Tensor] = {}
    for prefix, model, names in (
        (compvis.UNET, checkpoint.unet, shapes.unet_names(checkpoint.unet.config)),
        (compvis.VAE, checkpoint.vae, shapes.vae_names(checkpoint.vae.config)),
    ):
        tensors |= {prefix + name: w for name, w in compvis.to_compvis(model.state_dict(), names).items()}
    texts = [model for model in (checkpoint.text_model, checkpoint.text_model_2) if model is not None]
    for part, model in zip(TEXT_PARTS[checkpoint.family], texts, strict=True):
        weights = model.state_dict()
        if part.layout == "openclip":
            weights = openclip.from_transformers_weights(weights)
        tensors |= {part.prefix + name: w for name, w in weights.items()}
    if checkpoint.family == "sd2":
        _with_the_layer_that_is_left_out(tensors)
    tensors |= {marker: torch.zeros(0) for marker in markers}
    save_file({name: w.contiguous().clone() for name, w in tensors.items()}, path)
    return path


def _with_the_layer_that_is_left_out(tensors: dict[str, Tensor]) -> None:
    """SD2's files hold a last layer and a projection that nothing reads."""
    last = "cond_stage_model.model.transformer.resblocks.1."
    tensors |= {
        name.replace("resblocks.1.", "resblocks.2."): 7 * w for name, w in tensors.items() if name.startswith(last)
    }
    tensors["cond_stage_model.model.text_projection"] = torch.eye(SD2_WIDTH)
    tensors["cond_stage_model.model.logit_scale"] = torch.tensor(4.6)
