"""HCP's lists of layers against diffusers' own U-Net and transformers' own text encoder."""

import re

import pytest
import torch

from lib_pivotal.importing.hcp_layers import by_rank, group_pattern, meant, preset_of, text_leaves, unet_leaves

ATTENTION, FEED_FORWARD = r"re:.*\.attn.?$", r"re:.*\.ff$"


@pytest.fixture(scope="module")
def unet():
    import diffusers

    with torch.device("meta"):
        return diffusers.UNet2DConditionModel(sample_size=64, cross_attention_dim=768)


def layers(module):
    return {
        name: one.out_features if isinstance(one, torch.nn.Linear) else one.out_channels
        for name, one in module.named_modules()
        if isinstance(one, torch.nn.Linear | torch.nn.Conv2d)
    }


def hcps_own(module, entries):
    """cfg_net_tools.get_match_layers and plugin.wrap_model, written anew on the real module."""
    found = set()
    for name, one in module.named_modules():
        for entry in entries:
            fits = re.match(entry[3:], name) if entry.startswith("re:") else entry == name
            if fits:
                found |= {f"{name}.{inner}".strip(".") for inner in layers(one)}
    return found


def test_names_and_sizes_are_those_of_diffusers(unet):
    assert {leaf.path: leaf.features for leaf in unet_leaves()} == layers(unet)


def test_text_layers_are_those_of_transformers():
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        model = CLIPTextModel(CLIPTextConfig())
    config = {leaf.path for leaf in text_leaves()}
    assert config == set(layers(model))


@pytest.mark.parametrize(
    "entries",
    [
        [ATTENTION],
        [ATTENTION, FEED_FORWARD],
        [r"re:.*attn2\.to_k$", r"re:.*attn2\.to_v$"],
        [r"re:.*\.resnets$", r"re:.*\.proj_in$", r"re:.*\.proj_out$", r"re:.*\.conv$"],
        ["mid_block"],
        [""],
        [r"re:down_blocks\.[12]\..*\.to_q$"],
        ["re:.*nothing$"],
    ],
)
def test_the_same_layers_as_hcp_would_wrap(unet, entries):
    assert {leaf.path for leaf in meant(entries, unet_leaves())} == hcps_own(unet, entries)


@pytest.mark.parametrize(
    ("entries", "preset"),
    [([ATTENTION], "attention"), ([ATTENTION, FEED_FORWARD], "attention+ff"), ([r"re:.*attn2\.to_[kv]$"], "cross-kv")],
)
def test_sets_that_have_a_name(entries, preset):
    assert preset_of("unet", meant(entries, unet_leaves())) == preset


def test_a_group_reaches_the_same_layers():
    entries = [r"re:.*\.resnets$", r"re:.*\.proj_in$"]
    found = meant(entries, unet_leaves())
    pattern = re.compile(group_pattern("unet", entries, found))
    reached = {leaf.path for leaf in unet_leaves() if pattern.search(f"lora_unet_{leaf.kohya}")}
    assert reached == {leaf.path for leaf in found}
    assert not pattern.search("lora_te_text_model_encoder_layers_0_mlp_fc1")


def test_ranks_by_share_are_hcps():
    found = meant([r"re:.*\.to_k$", FEED_FORWARD, ATTENTION], unet_leaves())
    groups = [(rank, re.compile(pattern)) for rank, pattern in by_rank("unet", found, 0.01875)]
    for leaf in unet_leaves():
        ranks = [rank for rank, pattern in groups if pattern.search(f"lora_unet_{leaf.kohya}")]
        wanted = [max(round(leaf.features * 0.01875), 1)] if leaf in found else []
        assert ranks[:1] == wanted, leaf


@pytest.mark.parametrize("entry", ["re:(a+)+$", "re:.*.*.*.*x", "re:[", "re:" + "a" * 500, "re:cls(Foo):x"])
def test_patterns_that_are_none_or_too_tangled(entry):
    with pytest.raises(ValueError, match="pattern|regular|class"):
        meant([entry], unet_leaves())
