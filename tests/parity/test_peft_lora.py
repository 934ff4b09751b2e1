"""Ours against peft 0.13's LoRA on a tiny diffusers U-Net: the same weights, the same pictures and gradients.

Source: peft, `tuners/lora/layer.py` (`result + lora_B(lora_A(dropout(x))) * scaling`).
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lib_pivotal.networks.network import Network, build_network
from lib_pivotal.networks.targets import LayerRule
from lib_pivotal.ports import Layer

peft = pytest.importorskip("peft")

TARGETS = {
    "linear": ("_to_(q|k|v|out_0)$|_ff_net_2$", ["to_q", "to_k", "to_v", "to_out.0", "ff.net.2"]),
    "conv": ("_conv[12]$|_proj_in$", ["conv1", "conv2", "proj_in"]),
}


def make_unet():
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=12,
        attention_head_dim=2,
        norm_num_groups=4,
    ).requires_grad_(False)


def kohya_layers(unet):
    return [
        Layer("lora_unet_" + name.replace(".", "_"), "unet", kind, module)
        for name, module in unet.named_modules()
        for kind, type_ in (("linear", nn.Linear), ("conv", nn.Conv2d))
        if type(module) is type_
    ]


@pytest.mark.parametrize("kind", TARGETS)
def test_the_same_output_and_gradients(kind):
    pattern, targets = TARGETS[kind]
    ours, theirs = make_unet(), make_unet()
    network = build_network(kohya_layers(ours), [LayerRule(pattern, rank=4, alpha=2.0)], seed=0, device="cpu")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    peft.inject_adapter_in_model(peft.LoraConfig(r=4, lora_alpha=2, target_modules=targets), theirs)
    tensors = network.kohya_tensors()
    pairs = {}
    for name, module in theirs.named_modules():
        if hasattr(module, "lora_A") and "default" in module.lora_A:
            key = "lora_unet_" + name.replace(".", "_")
            module.lora_A["default"].weight.data.copy_(tensors[f"{key}.lora_down.weight"])
            module.lora_B["default"].weight.data.copy_(tensors[f"{key}.lora_up.weight"])
            pairs[key] = module
    assert set(pairs) == set(network.layer_names)

    torch.manual_seed(2)
    latents, context = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 12)
    embeddings = [context.clone().requires_grad_() for _ in range(2)]
    bare = ours(latents, 10, context).sample
    with network.attach():
        a = ours(latents, 10, embeddings[0]).sample
        a.square().sum().backward()
    b = theirs(latents, 10, embeddings[1]).sample
    b.square().sum().backward()
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert (a - bare).abs().max() > 1e-2
    scale = embeddings[1].grad.abs().max()
    torch.testing.assert_close(embeddings[0].grad / scale, embeddings[1].grad / scale, rtol=1e-3, atol=1e-4)
    adapters = dict(network.adapters.items())
    for key, module in pairs.items():
        for mine, other in ((adapters[key].down, module.lora_A), (adapters[key].up, module.lora_B)):
            expected = other["default"].weight.grad
            assert (mine.grad - expected).norm() <= 1e-3 * expected.norm() + 1e-6


def test_the_file_loads_in_diffusers_with_the_same_picture(monkeypatch):
    """Through diffusers' own reader of kohya files (`load_lora_weights`' conversion) and its peft backend.

    The backend is switched on by hand: diffusers asks for a newer transformers, which only its text encoders need.
    """
    from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_lora_to_diffusers

    ours, theirs = make_unet(), make_unet()
    pattern = TARGETS["linear"][0]
    network = build_network(kohya_layers(ours), [LayerRule(pattern, rank=4, alpha=2.0)], seed=0, device="cpu")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    converted, alphas = _convert_non_diffusers_lora_to_diffusers(network.kohya_tensors())
    monkeypatch.setattr("diffusers.loaders.unet.USE_PEFT_BACKEND", True)
    theirs.load_attn_procs(converted, network_alphas=alphas)
    torch.manual_seed(2)
    latents, context = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 12)
    with network.attach():
        a = ours(latents, 10, context).sample
    b = theirs(latents, 10, context).sample
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    read = Network.from_kohya(kohya_layers(ours), network.kohya_tensors())
    with read.attach():
        assert torch.equal(ours(latents, 10, context).sample, a)
