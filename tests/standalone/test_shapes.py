"""Architectures seen from tensors, and ldm's yaml."""

from pathlib import Path

import pytest
import torch
import yaml
from diffusers import AutoencoderKL, UNet2DConditionModel

from lib_pivotal.errors import HostError
from lib_pivotal.standalone import compvis, shapes

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
    weights = compvis.to_compvis(unet.state_dict(), shapes.unet_names(unet.config))
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
    found = shapes.vae_config(compvis.to_compvis(vae.state_dict(), shapes.vae_names(vae.config)), {"scale_factor": 0.5})
    again = AutoencoderKL(**found)
    assert {n: t.shape for n, t in again.state_dict().items()} == {n: t.shape for n, t in vae.state_dict().items()}
    assert again.config.scaling_factor == 0.5


def test_clip_l_is_the_default_text_model() -> None:
    weights = {
        "text_model.embeddings.token_embedding.weight": torch.empty(49408, 768, device="meta"),
        "text_model.embeddings.position_embedding.weight": torch.empty(77, 768, device="meta"),
        **{f"text_model.encoder.layers.{i}.mlp.fc1.weight": torch.empty(3072, 768, device="meta") for i in range(12)},
    }
    config = shapes.infer_text_config(weights, Path("model.safetensors"))
    assert (config["num_hidden_layers"], config["num_attention_heads"], config["intermediate_size"]) == (12, 12, 3072)


def test_a_yaml_of_something_else_is_named(tmp_path) -> None:
    path = tmp_path / "model.yaml"
    path.write_text("learning_rate: 1\n", encoding="utf-8")
    with pytest.raises(HostError, match=r"model\.yaml: no model\.params"):
        shapes.read_yaml(path)
    path.write_text(yaml.safe_dump({"model": {"params": {"scale_factor": 1.5}}}), encoding="utf-8")
    assert shapes.read_yaml(path) == {"scale_factor": 1.5}
    assert shapes.read_yaml(tmp_path / "none.yaml") == {}
