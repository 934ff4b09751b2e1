"""Names, yaml and text folder of a checkpoint file for the web UI; that it is read back, tests/standalone shows."""

from pathlib import Path

import pytest
import torch
import yaml
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from transformers import CLIPTextConfig

from examples.avatars.checkpoint_file import save_checkpoint, unet_to_ldm, vae_to_ldm
from examples.avatars.install import write_text_folder
from lib_pivotal.standalone.single_file import Checkpoint
from tests.standalone.tiny_families import ODD_WIDTH, odd_sd1


@pytest.fixture(scope="module")
def tiny() -> Checkpoint:
    return odd_sd1()


@pytest.fixture(scope="module")
def sd1_unet() -> UNet2DConditionModel:
    with torch.device("meta"):
        return UNet2DConditionModel(block_out_channels=(32, 64, 128, 128), cross_attention_dim=24)


@pytest.fixture(scope="module")
def sd1_vae() -> AutoencoderKL:
    widths = (32, 64, 128, 128)
    kinds = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
    return AutoencoderKL(
        block_out_channels=widths, down_block_types=kinds[0], up_block_types=kinds[1], layers_per_block=2
    )


def test_sd1_unet_names(sd1_unet: UNet2DConditionModel) -> None:
    names = set(unet_to_ldm(sd1_unet))
    assert len(names) == len(sd1_unet.state_dict()) == 686  # as in every SD1.5 checkpoint
    for name in ("3.0.op", "4.1.norm", "11.0.out_layers.3"):
        assert f"model.diffusion_model.input_blocks.{name}.weight" in names
    for name in ("2.1.conv", "5.2.conv", "11.1.norm"):
        assert f"model.diffusion_model.output_blocks.{name}.weight" in names
    assert not any("input_blocks.10.1" in name or "output_blocks.12" in name for name in names)
    back = convert_ldm_unet_checkpoint(dict.fromkeys(names), sd1_unet.config)
    assert back.keys() == sd1_unet.state_dict().keys()


def test_vae_there_and_back(sd1_vae: AutoencoderKL) -> None:
    theirs = vae_to_ldm(sd1_vae)
    assert len(theirs) == 248  # as in every SD1.5 checkpoint
    for name in ("decoder.up.3.upsample.conv", "decoder.up.0.block.2.conv1", "decoder.up.1.block.0.nin_shortcut"):
        assert f"first_stage_model.{name}.weight" in theirs
    assert theirs["first_stage_model.encoder.mid.attn_1.proj_out.weight"].shape == (128, 128, 1, 1)
    back = convert_ldm_vae_checkpoint(theirs, sd1_vae.config)
    weights = sd1_vae.state_dict()
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) for name in weights)


def test_yaml_is_what_ldm_reads(tiny: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "tiny.safetensors", tiny, text_version="models/tiny-text")
    params = yaml.safe_load((tmp_path / "tiny.yaml").read_text(encoding="utf-8"))["model"]["params"]
    assert params["parameterization"] == "v"
    assert params["unet_config"]["params"]["channel_mult"] == [1, 2]
    assert params["unet_config"]["params"]["attention_resolutions"] == [1]
    assert params["first_stage_config"]["params"]["ddconfig"]["ch_mult"] == [1, 1, 1, 1]
    assert params["cond_stage_config"]["params"]["version"] == "models/tiny-text"


def test_text_folder_is_read_by_transformers(tiny: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "tiny.safetensors", tiny, text_version="text")
    write_text_folder(tmp_path / "text", tmp_path / "tiny.safetensors")
    config = CLIPTextConfig.from_pretrained(str(tmp_path / "text"), local_files_only=True)
    assert (config.hidden_size, config.num_attention_heads, config.num_hidden_layers) == (ODD_WIDTH, 4, 2)
