"""A DyLoRA's file, cut: the change of the first ranks as they were trained, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lib_pivotal.bundle.deltas import layer_delta
from lib_pivotal.bundle.first_ranks import cut_to_first_ranks
from lib_pivotal.bundle.network_layouts import group_layers
from lib_pivotal.bundle.reader import read_bundle
from lib_pivotal.bundle.writer import write_bundle
from lib_pivotal.errors import BundleError
from lib_pivotal.networks.network import build_network
from lib_pivotal.networks.registry import kohya_module
from lib_pivotal.networks.targets import LayerRule
from lib_pivotal.ports import Layer

LAYERS = {
    "lora_unet_mid_block_attentions_0_proj_in": lambda: nn.Linear(12, 10),
    "lora_unet_down_blocks_0_resnets_0_conv1": lambda: nn.Conv2d(6, 8, 3),
}


@pytest.fixture
def dylora():
    torch.manual_seed(0)
    kinds = {nn.Linear: "linear", nn.Conv2d: "conv"}
    layers = []
    for name, make in LAYERS.items():
        module = make().requires_grad_(False)
        layers.append(Layer(name, "unet", kinds[type(module)], module))
    options = {"unit": 2}
    network = build_network(
        layers, [LayerRule("", rank=6, alpha=3.0)], algorithm="dylora", options=options, seed=0, device="cpu"
    )
    for adapter in network.adapters.values():
        nn.init.normal_(adapter.up)
    return network


def written(network, path, *, dtype=torch.float32, **metadata):
    module, arguments = kohya_module("dylora", {"unit": 2})
    told = {"ss_network_module": module, "ss_network_args": str(arguments).replace("'", '"')}
    return write_bundle(
        path, network=network.kohya_tensors(dtype), embeddings={}, metadata={**told, **metadata}, dtype=dtype
    )


def test_the_first_ranks_have_the_scale_that_they_were_trained_with(dylora, tmp_path):
    whole = written(dylora, tmp_path / "whole.safetensors")
    cut = read_bundle(cut_to_first_ranks(whole, tmp_path / "cut.safetensors", rank=4))
    assert cut.metadata["ss_network_dim"] == "4" and cut.metadata["ss_network_alpha"] == "3.0"
    assert "the first 4 of 6 ranks" in cut.metadata["ss_training_comment"]
    for name, layer in group_layers(cut.network).items():
        adapter = dylora.adapters[name]
        trained = (adapter.up[:, :4].flatten(1) @ adapter.down[:4].flatten(1)) * (3.0 / 4)
        found = layer_delta(layer).weight
        torch.testing.assert_close(found.flatten(1), trained.detach(), rtol=1e-5, atol=1e-6)
        assert torch.equal(layer["lora_down.weight"], adapter.down[:4])
        assert torch.equal(layer["lora_up.weight"], adapter.up[:, :4])


def test_bits_stay_in_their_type(dylora, tmp_path):
    whole = written(dylora, tmp_path / "whole.safetensors", dtype=torch.float16)
    before = group_layers(read_bundle(whole).network)
    after = group_layers(read_bundle(cut_to_first_ranks(whole, tmp_path / "cut.safetensors", rank=2)).network)
    for name, layer in before.items():
        assert after[name]["lora_down.weight"].dtype == torch.float16
        assert torch.equal(after[name]["lora_down.weight"], layer["lora_down.weight"][:2])


def test_what_is_refused(dylora, tmp_path):
    whole, out = written(dylora, tmp_path / "whole.safetensors"), tmp_path / "cut.safetensors"
    with pytest.raises(BundleError, match="2 ranks were trained together. Give 2 or 4"):
        cut_to_first_ranks(whole, out, rank=3)
    with pytest.raises(BundleError, match="rank = 6: the file's ranks are 6 at most"):
        cut_to_first_ranks(whole, out, rank=6)
    with pytest.raises(BundleError, match="rank = 0: must be 1 or more"):
        cut_to_first_ranks(whole, out, rank=0)
    with pytest.raises(BundleError, match="cannot take the place"):
        cut_to_first_ranks(whole, whole, rank=2, overwrite=True)
    plain = written(dylora, tmp_path / "plain.safetensors", ss_network_args="{}", ss_network_module="networks.lora")
    with pytest.raises(BundleError, match="does not say that it is a DyLoRA"):
        cut_to_first_ranks(plain, out, rank=2)
    assert not out.exists()
