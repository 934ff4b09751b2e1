"""Architectures seen from tensors, and ldm's yaml."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from examples.avatars.checkpoint_file import unet_to_ldm, vae_to_ldm
from lib_pivotal.standalone import shapes
from lib_pivotal.standalone.families import UNET, VAE

UNETS = {
    "sd1": ((32, 64, 128, 128), (True, True, True, False), 2),
    "shallow": ((32, 64), (True, True), 1),
}


@pytest.mark.parametrize(("channels", "attention", "resnets"), UNETS.values(), ids=UNETS)
def test_unet_is_recognised(channels, attention, resnets) -> None:
    unet = UNet2DConditionModel(
        block_out_channels=channels,
        down_block_types=["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attention],
        up_block_types=["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)],
        layers_per_block=resnets,
        cross_attention_dim=24,
        attention_head_dim=8,
    )
    weights = {name.removeprefix(UNET): tensor for name, tensor in unet_to_ldm(unet).items()}
    found = shapes.unet_config(weights, {})
    assert found["block_out_channels"] == channels
    assert found["layers_per_block"] == resnets
    assert found["cross_attention_dim"] == 24
    again = UNet2DConditionModel(**found)
    assert {n: t.shape for n, t in again.state_dict().items()} == {n: t.shape for n, t in unet.state_dict().items()}


def test_vae_is_recognised() -> None:
    vae = AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=2,
    )
    weights = {name.removeprefix(VAE): tensor for name, tensor in vae_to_ldm(vae).items()}
    found = shapes.vae_config(weights, {"scale_factor": 0.5})
    again = AutoencoderKL(**found)
    assert {n: t.shape for n, t in again.state_dict().items()} == {n: t.shape for n, t in vae.state_dict().items()}
    assert again.config.scaling_factor == 0.5


def test_clip_l_is_the_default_text_model() -> None:
    weights = {
        "text_model.embeddings.token_embedding.weight": torch.empty(49408, 768, device="meta"),
        "text_model.embeddings.position_embedding.weight": torch.empty(77, 768, device="meta"),
        **{f"text_model.encoder.layers.{i}.mlp.fc1.weight": torch.empty(3072, 768, device="meta") for i in range(12)},
    }
    config = shapes.clip_config(weights, Path("model.safetensors"))
    assert (config["num_hidden_layers"], config["num_attention_heads"], config["intermediate_size"]) == (12, 12, 3072)
