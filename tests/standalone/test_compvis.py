"""Names of the compvis layout against the ones that SD1.5 checkpoints are known to have."""

import torch

from lib_pivotal.standalone import compvis

SD1_UNET = compvis.unet_prefixes([True, True, True, False], 2)
SD1_VAE = compvis.vae_prefixes(4, 2)


def test_sd1_unet_names() -> None:
    # the same pairs as in diffusers' convert_original_stable_diffusion_to_diffusers.py
    assert SD1_UNET["input_blocks.3.0.op"] == "down_blocks.0.downsamplers.0.conv"
    assert SD1_UNET["input_blocks.4.1"] == "down_blocks.1.attentions.0"
    assert "input_blocks.10.1" not in SD1_UNET
    assert SD1_UNET["input_blocks.11.0.out_layers.3"] == "down_blocks.3.resnets.1.conv2"
    assert SD1_UNET["output_blocks.2.1.conv"] == "up_blocks.0.upsamplers.0.conv"
    assert SD1_UNET["output_blocks.5.2.conv"] == "up_blocks.1.upsamplers.0.conv"
    assert SD1_UNET["output_blocks.11.1"] == "up_blocks.3.attentions.2"
    assert not any(name.startswith("output_blocks.12") for name in SD1_UNET)


def test_sd1_vae_names() -> None:
    assert SD1_VAE["decoder.up.3.upsample.conv"] == "decoder.up_blocks.0.upsamplers.0.conv"
    assert SD1_VAE["decoder.up.0.block.2.conv1"] == "decoder.up_blocks.3.resnets.2.conv1"
    assert SD1_VAE["encoder.mid.attn_1.proj_out"] == "encoder.mid_block.attentions.0.to_out.0"


def test_names_are_one_to_one() -> None:
    for names in (SD1_UNET, SD1_VAE):
        assert len(set(names.values())) == len(names)


def test_there_and_back() -> None:
    weights = {
        "encoder.mid_block.attentions.0.to_q.weight": torch.randn(8, 8),
        "encoder.mid_block.attentions.0.to_q.bias": torch.randn(8),
        "encoder.mid_block.attentions.0.group_norm.weight": torch.randn(8),
        "quant_conv.weight": torch.randn(8, 8, 1, 1),
    }
    theirs = compvis.to_compvis(weights, SD1_VAE)
    assert theirs["encoder.mid.attn_1.q.weight"].shape == (8, 8, 1, 1)
    back, strange = compvis.to_diffusers({**theirs, "loss.logvar": torch.zeros(())}, SD1_VAE)
    assert strange == ["loss.logvar"]
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) for name in weights)
