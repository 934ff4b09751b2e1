"""A checkpoint's layers under the names of network files: as the standalone host names and holds them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib_pivotal.bundle.checkpoint_weights import open_checkpoint
from lib_pivotal.bundle.network_layouts import from_webui
from lib_pivotal.errors import BundleError
from lib_pivotal.standalone.families import Family
from lib_pivotal.standalone.model import StandaloneHost
from tests.standalone import tiny_families


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_every_layer_of_the_host_is_there_with_its_weight(family: Family, tmp_path: Path) -> None:
    path = tiny_families.write(tmp_path / "x.safetensors", tiny_families.make(family))
    opened = open_checkpoint(path)
    host = StandaloneHost.load(path)
    assert opened.family == family
    wanted = {layer.name: layer.module.weight for layer in host.layers() if layer.kind != "norm"}
    found = from_webui({f"{name}.alpha": torch.tensor(0.0) for name in opened.names}, opened.shape)
    names = dict(zip((key.removesuffix(".alpha") for key in found), opened.names, strict=True))
    assert set(wanted) <= set(names)
    extra = {name for name in set(names) - set(wanted) if "_layers_2_" not in name}  # SD2's last layer, not read
    assert not [name for name in extra if name.startswith("lora_te")], extra
    for name, weight in wanted.items():
        assert torch.equal(opened.weight(names[name]), weight), name
        assert opened.layer_shape(names[name]) == tuple(weight.shape)
        assert opened.name_of(name) == names[name]


def test_a_ckpt_gives_the_same(tmp_path: Path) -> None:
    path = tiny_families.write(tmp_path / "x.safetensors", tiny_families.make("sd1"))
    torch.save({"state_dict": load_file(path), "global_step": 3}, tmp_path / "x.ckpt")
    one, two = open_checkpoint(path), open_checkpoint(tmp_path / "x.ckpt")
    assert set(one.names) == set(two.names)
    assert all(torch.equal(one.weight(name), two.weight(name)) for name in one.names)


def test_names_that_files_have_for_a_layer(tmp_path: Path) -> None:
    opened = open_checkpoint(tiny_families.write(tmp_path / "x.safetensors", tiny_families.make("sdxl")))
    te = "text_model_encoder_layers_0_mlp_fc1"
    assert opened.name_of(f"lora_te1_{te}") == f"lora_te1_{te}" != opened.name_of(f"lora_te2_{te}")
    block = next(name for name in opened.names if "input_blocks" in name)
    assert opened.name_of(block.replace("lora_", "oft_")) == block
    assert opened.name_of("lora_unet_nothing") is None and opened.name_of("lora_unet_input_blocks_99_1_x") is None


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    save_file({"x": torch.ones(1)}, tmp_path / "x.safetensors")
    with pytest.raises(BundleError, match="no checkpoint of SD1, SD2 or SDXL"):
        open_checkpoint(tmp_path / "x.safetensors")
    save_file({"cond_stage_model.transformer.x": torch.ones(1)}, tmp_path / "x.safetensors")
    with pytest.raises(BundleError, match="Give the whole checkpoint"):
        open_checkpoint(tmp_path / "x.safetensors")
