"""What is done to files of other layouts: converted rightly, or refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from lib_pivotal.bundle.edits import convert, join, strip
from lib_pivotal.bundle.layer_names import SD1_SHAPE, SDXL_SHAPE, UnetShape, fits
from lib_pivotal.bundle.network_layouts import is_kohya
from lib_pivotal.bundle.reader import read_bundle
from lib_pivotal.bundle.verify import verify
from lib_pivotal.bundle.writer import write_bundle
from lib_pivotal.errors import BundleError, PivotalError
from lib_pivotal.standalone.cli import main

from .test_network_places import REFUSED

T = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
KOHYA = f"lora_unet_{T.replace('.', '_')}"


def pair(name: str, down: str, up: str) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    return {
        f"{name}.{down}": torch.randn(4, 640, generator=g).half(),
        f"{name}.{up}": torch.randn(640, 4, generator=g).half(),
    }


READ = {
    "attention processors": pair(f"{T.replace('.to_q', '.processor')}.to_q_lora", "x", "y"),
    "comfyui": pair(
        "diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q", "lora_A.weight", "lora_B.weight"
    ),
    "mixed": pair(KOHYA, "lora_A.weight", "lora_B.weight"),
    "peft": pair(f"base_model.model.{T}", "lora_A.weight", "lora_B.weight"),
    "diffusers": pair(f"unet.{T}", "lora.down.weight", "lora.up.weight"),
    "onetrainer": pair(f"unet.{T}", "lora_down.weight", "lora_up.weight"),
    "lycoris": pair(f"lycoris_{T.replace('.', '_')}", "lora_down.weight", "lora_up.weight"),
}
READ["attention processors"] = {
    key.replace("_lora.x", "_lora.down.weight").replace("_lora.y", "_lora.up.weight"): tensor
    for key, tensor in READ["attention processors"].items()
}


@pytest.mark.parametrize("name", READ)
def test_the_same_layer_out_of_every_layout(name: str, tmp_path: Path) -> None:
    """With an attn2 beside it, by which the file is known to be of SD1."""
    path, out = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    family = {f"{key.replace('attn1', 'attn2').replace('to_q', 'to_k')}": t for key, t in READ[name].items()}
    family = {
        key: tensor.clone() if tensor.shape[0] != 4 else torch.ones(4, 768).half() for key, tensor in family.items()
    }
    safetensors.torch.save_file({**READ[name], **family}, path)
    (problem,) = [problem for problem in verify(path) if "layout" in problem.what]
    assert problem.remedy == "Convert it to kohya's."
    found = read_bundle(convert(path, out, layout="kohya")).network
    down, up = READ[name].values()
    assert torch.equal(found[f"{KOHYA}.lora_down.weight"], down) and torch.equal(found[f"{KOHYA}.lora_up.weight"], up)
    assert float(found[f"{KOHYA}.alpha"]) == 4.0 and is_kohya(found)
    assert not [problem for problem in verify(out) if "layout" in problem.what]
    with pytest.raises(BundleError, match="neither a network nor an embedding"):
        strip(path, ["unet"], out=tmp_path / "s.safetensors")


@pytest.mark.parametrize("layout", ["kohya", "diffusers", "peft"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_layout_is_not_written(name: str, layout: str, tmp_path: Path) -> None:
    shapes, told = REFUSED[name]
    path, out = tmp_path / "in.safetensors", tmp_path / ("out" if layout == "peft" else "out.safetensors")
    safetensors.torch.save_file({key: torch.ones(shape) for key, shape in shapes.items()}, path)
    with pytest.raises(PivotalError) as caught:
        convert(path, out, layout=layout)  # type: ignore[arg-type]
    assert told in str(caught.value) and "in.safetensors" in str(caught.value)
    assert not out.exists()
    problems = verify(path)
    assert problems[0].severity == "error" and not any("onvert it to" in str(problem) for problem in problems)
    good = tmp_path / "good.safetensors"
    safetensors.torch.save_file(pair(KOHYA, "lora_down.weight", "lora_up.weight"), good)
    with pytest.raises(PivotalError, match=r"in\.safetensors"):
        join([good, path], tmp_path / "j.safetensors")
    assert main(["bundle", "convert", str(path), "--layout", layout, "--out", str(out)]) == 2


def test_nothing_is_stripped_from_what_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "in.safetensors"
    safetensors.torch.save_file({"0.attn1.to_q.lora_down.weight": torch.ones(2, 4)}, path)
    with pytest.raises(BundleError, match="layers are numbered, not named"):
        strip(path, ["te"], out=tmp_path / "out.safetensors")
    safetensors.torch.save_file({"unet:0:up": torch.ones(4, 2), "text_encoder:0:up": torch.ones(4, 2)}, path)
    assert set(read_bundle(strip(path, ["te"], out=tmp_path / "out.safetensors")).network) == {"unet:0:up"}


def test_a_file_of_both_numberings_needs_its_checkpoint(tmp_path: Path) -> None:
    """Our own bundles of a U-Net that is not SD1's have both: SD1's places would be a guess."""
    network = {
        **pair("lora_unet_down_blocks_0_attentions_0_proj_in", "lora_down.weight", "lora_up.weight"),
        **pair("lora_unet_input_blocks_4_1_proj_in", "lora_down.weight", "lora_up.weight"),
    }
    meta = {"ss_base_model_version": "sd_v1"}
    path = write_bundle(tmp_path / "b.safetensors", network=network, embeddings={}, metadata=meta)
    with pytest.raises(PivotalError, match="--checkpoint FILE"):
        convert(path, tmp_path / "d.safetensors", layout="diffusers")
    found = read_bundle(convert(path, tmp_path / "d.safetensors", layout="diffusers", shape=SD1_SHAPE)).network
    assert any("down_blocks.1.attentions.0" in key for key in found)


@pytest.mark.parametrize(
    ("path", "shape", "expected"),
    [
        ("down_blocks.3.resnets.1.conv1", SD1_SHAPE, True),
        ("down_blocks.3.attentions.0.proj_in", SD1_SHAPE, False),
        ("up_blocks.0.attentions.0.proj_in", SD1_SHAPE, False),
        ("up_blocks.0.resnets.2.conv1", SD1_SHAPE, True),
        ("up_blocks.0.resnets.3.conv1", SD1_SHAPE, False),
        ("down_blocks.3.downsamplers.0.conv", SD1_SHAPE, False),
        ("up_blocks.3.upsamplers.0.conv", SD1_SHAPE, False),
        ("down_blocks.0.attentions.0.proj_in", SDXL_SHAPE, False),
        ("up_blocks.0.attentions.2.proj_in", SDXL_SHAPE, True),
        ("down_blocks.3.resnets.0.conv1", SDXL_SHAPE, False),
        ("down_blocks.0.resnets.1.conv1", UnetShape(1, (True, True)), False),
        ("input_blocks.4.1.proj_in", SD1_SHAPE, True),
        ("output_blocks.12.0.in_layers.2", SD1_SHAPE, False),
        ("mid_block.attentions.0.proj_in", SDXL_SHAPE, True),
        ("conv_in", SD1_SHAPE, True),
        ("nowhere.at.all", SD1_SHAPE, False),
    ],
)
def test_which_layers_fit_a_shape(path: str, shape: UnetShape, expected: bool) -> None:
    assert fits(path, shape) == expected


def test_a_peft_file_without_its_config_says_what_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "adapter_model.safetensors"
    safetensors.torch.save_file(READ["peft"], path)
    convert(path, tmp_path / "k.safetensors", layout="kohya")
    assert "no adapter_config.json beside it" in caplog.text
