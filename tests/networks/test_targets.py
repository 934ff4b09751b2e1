"""Presets choose the documented layers of the real U-Net and text encoder; groups, blocks and parts."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from lib_pivotal.errors import NetworkError
from lib_pivotal.networks.targets import (
    SD1_BLOCKS,
    SDXL_BLOCKS,
    LayerRule,
    block_patterns,
    part_rules,
)

# kohya's get_block_index at 48d368fa, written out for some layers
KOHYA_BLOCKS = {
    "lora_unet_down_blocks_0_attentions_0_proj_in": 1,
    "lora_unet_down_blocks_0_resnets_1_conv1": 2,
    "lora_unet_down_blocks_0_downsamplers_0_conv": 3,
    "lora_unet_down_blocks_2_attentions_1_transformer_blocks_0_attn1_to_q": 8,
    "lora_unet_down_blocks_3_resnets_1_conv2": 11,
    "lora_unet_mid_block_attentions_0_proj_in": 12,
    "lora_unet_up_blocks_0_resnets_0_conv1": 13,
    "lora_unet_up_blocks_0_upsamplers_0_conv": 15,
    "lora_unet_up_blocks_1_attentions_2_transformer_blocks_0_ff_net_2": 18,
    "lora_unet_up_blocks_3_attentions_2_proj_out": 24,
}


@pytest.fixture(scope="module")
def names():
    """Kohya names of every linear layer and convolution of SD1.5's U-Net and text encoder, made without memory."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, block_out_channels=(320, 640, 1280, 1280))
        text = CLIPTextModel(CLIPTextConfig(hidden_size=768, num_hidden_layers=12, num_attention_heads=12))
    return [
        prefix + name.replace(".", "_")
        for prefix, model in (("lora_unet_", unet), ("lora_te_", text))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]


def chosen(rules, names):
    found = {}
    for name in names:
        rule = next((rule for rule in rules if rule.matches(name)), None)
        if rule is not None and rule.rank:
            found[name] = rule
    return found


@pytest.mark.parametrize(
    ("part", "preset", "count"),
    [
        ("unet", "none", 0),
        ("unet", "cross-kv", 32),
        ("unet", "attention", 128),
        ("unet", "diffusers", 128),
        ("unet", "attention+ff", 160),
        ("unet", "kohya", 192),
        ("unet", "all", 278),
        ("te", "attention", 48),
        ("te", "attention+mlp", 72),
    ],
)
def test_presets_on_the_real_model(names, part, preset, count):
    found = chosen(part_rules(part, preset, rank=4, alpha=2.0), names)
    assert len(found) == count
    assert all(name.startswith(f"lora_{part}_") for name in found)


def test_part_prefixes():
    te, te2 = (part_rules(part, "attention", rank=1, alpha=1.0)[0] for part in ("te", "te2"))
    tail = "text_model_encoder_layers_0_self_attn_q_proj"
    assert te.matches(f"lora_te_{tail}")
    assert te.matches(f"lora_te1_{tail}")
    assert not te.matches(f"lora_te2_{tail}")
    assert te2.matches(f"lora_te2_{tail}")


def test_groups_come_first_and_may_go_beyond_the_preset(names):
    groups = [
        LayerRule("attn2_to_k$", rank=0, alpha=0.0),
        LayerRule("conv_in$", rank=2, alpha=2.0, lr_factor=0.5, group="first"),
    ]
    found = chosen(part_rules("unet", "cross-kv", rank=4, alpha=4.0, groups=groups), names)
    assert len(found) == 17
    assert found["lora_unet_conv_in"].group == "first"
    assert found["lora_unet_conv_in"].lr_factor == 0.5
    assert not any("attn2_to_k" in name for name in found)


def test_blocks_are_kohyas(names):
    assert (len(SD1_BLOCKS), len(SDXL_BLOCKS)) == (25, 23)
    for name, block in KOHYA_BLOCKS.items():
        assert [i for i, pattern in enumerate(SD1_BLOCKS) if re.search(pattern, name)] == [block]
    for name in names:
        if name.startswith("lora_unet_") and "conv_out" not in name and "conv_norm" not in name:
            assert sum(re.search(pattern, name) is not None for pattern in SD1_BLOCKS) == 1
    assert re.search(SDXL_BLOCKS[12], "lora_unet_middle_block_2_out_layers_3")
    assert re.search(SDXL_BLOCKS[5], "lora_unet_input_blocks_4_1_proj_in")
    assert re.search(SDXL_BLOCKS[22], "lora_unet_out_2")


def test_faults_are_told():
    with pytest.raises(NetworkError, match="cross-kv, attention"):
        part_rules("unet", "everything", rank=1, alpha=1.0)
    with pytest.raises(NetworkError, match="a list of 17 values"):
        block_patterns("unet", 17)
    with pytest.raises(NetworkError, match="not a regular expression"):
        LayerRule("(", rank=1, alpha=1.0)
    with pytest.raises(NetworkError, match="rank = -1"):
        LayerRule("", rank=-1, alpha=1.0)
    with pytest.raises(NetworkError, match="rank_dropout = 1.0"):
        LayerRule("", rank=1, alpha=1.0, rank_dropout=1.0)
