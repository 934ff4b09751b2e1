"""Small checkpoints of every family: real architectures, few and narrow layers, random weights.

The single files have ldm's and sgm's names. That what ldm's and sgm's own classes write is read, is for the live
checkpoints (tests/live/tiny_families.py) to show.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from examples.avatars.checkpoint_file import unet_to_ldm, vae_to_ldm
from lib_pivotal.standalone.families import TEXT_PARTS, Family
from lib_pivotal.standalone.single_file import Checkpoint
from lib_pivotal.standalone.tokenizer import clip_tokenizer
from tests.standalone.openclip_names import to_openclip

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


ODD_WIDTH = 32


def odd_sd1() -> Checkpoint:
    """An SD1 whose heads, scale of latents and prediction are not SD1's own."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=ODD_WIDTH,
        attention_head_dim=4,
    )
    vae = AutoencoderKL(
        block_out_channels=(32, 32, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        sample_size=64,
        scaling_factor=0.75,
    )
    text_model = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=ODD_WIDTH, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=49408
        )
    )
    return Checkpoint(
        text_model.eval(), unet.eval(), vae.eval(), clip_tokenizer(), scale_factor=0.75, prediction_type="v_prediction"
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
    tensors = unet_to_ldm(checkpoint.unet) | vae_to_ldm(checkpoint.vae)
    texts = [model for model in (checkpoint.text_model, checkpoint.text_model_2) if model is not None]
    for part, model in zip(TEXT_PARTS[checkpoint.family], texts, strict=True):
        weights = model.state_dict()
        if part.layout == "openclip":
            weights = from_transformers(weights)
        tensors |= {part.prefix + name: w for name, w in weights.items()}
    if checkpoint.family == "sd2":
        _with_the_layer_that_is_left_out(tensors)
    tensors |= {marker: torch.zeros(0) for marker in markers}
    save_file({name: w.contiguous().clone() for name, w in tensors.items()}, path)
    return path


def from_transformers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A text model's weights as OpenCLIP has them: q, k and v in one matrix, the projection from the other side."""
    top = {
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "text_model.final_layer_norm.weight": "ln_final.weight",
        "text_model.final_layer_norm.bias": "ln_final.bias",
    }
    found: dict[str, Tensor] = {}
    thirds: dict[str, list[Tensor]] = {}
    for name, tensor in weights.items():
        stem, _, leaf = name.rpartition(".")
        if name in top:
            found[top[name]] = tensor
        elif name == "text_projection.weight":
            found["text_projection"] = tensor.t().contiguous()
        elif not name.endswith("position_ids"):
            layer = to_openclip(stem)
            if layer.third is None:
                found[f"{layer.path}.{leaf}"] = tensor
            else:
                thirds.setdefault(f"{layer.path}.in_proj_{leaf}", [tensor] * 3)[layer.third] = tensor
    return found | {name: torch.cat(parts) for name, parts in thirds.items()}


def _with_the_layer_that_is_left_out(tensors: dict[str, Tensor]) -> None:
    """SD2's files hold a last layer and a projection that nothing reads."""
    last = "cond_stage_model.model.transformer.resblocks.1."
    tensors |= {
        name.replace("resblocks.1.", "resblocks.2."): 7 * w for name, w in tensors.items() if name.startswith(last)
    }
    tensors["cond_stage_model.model.text_projection"] = torch.eye(SD2_WIDTH)
    tensors["cond_stage_model.model.logit_scale"] = torch.tensor(4.6)
