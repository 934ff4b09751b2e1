"""The command line converts a bundle whose U-Net has other blocks than SD1's, if it is told a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from lib_pivotal.bundle.checkpoint_shape import checkpoint_shape
from lib_pivotal.bundle.layer_names import SD1_SHAPE, UnetShape, compvis_path, kohya_name
from lib_pivotal.bundle.network_layouts import for_webui, group_layers
from lib_pivotal.bundle.reader import read_bundle
from lib_pivotal.bundle.writer import write_bundle
from lib_pivotal.errors import BundleError
from lib_pivotal.standalone.cli import main

diffusers = pytest.importorskip("diffusers")
SHAPE = UnetShape(1, (True, True))


@pytest.fixture(scope="module")
def unet() -> nn.Module:
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
    )


def layers_of(unet: nn.Module) -> dict[str, nn.Module]:
    return {path: module for path, module in unet.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}


@pytest.fixture
def bundle(unet: nn.Module, tmp_path: Path) -> Path:
    """As a run writes it: under the names by which the stock web UI finds this U-Net's layers."""
    network: dict[str, Tensor] = {}
    for path, module in layers_of(unet).items():
        out, into, *kernel = module.weight.shape  # type: ignore[union-attr, misc]
        network[f"{kohya_name(path, 'unet')}.lora_down.weight"] = torch.ones(2, into, *kernel)
        network[f"{kohya_name(path, 'unet')}.lora_up.weight"] = torch.ones(out, 2, *[1] * len(kernel))
    words = {"aoi": (torch.ones(1, 16),)}
    metadata = {"ss_base_model_version": "sd_v1", "ss_v2": "False"}
    return write_bundle(tmp_path / "b.safetensors", network=for_webui(network, SHAPE), words=words, metadata=metadata)


@pytest.fixture(params=["checkpoint", "U-Net", "folder"])
def told(request: pytest.FixtureRequest, unet: nn.Module, tmp_path: Path) -> Path:
    weights = {key: tensor.contiguous() for key, tensor in unet.state_dict().items()}
    if request.param == "folder":
        unet.save_pretrained(tmp_path / "model" / "unet")  # type: ignore[operator]
        return tmp_path / "model"
    if request.param == "checkpoint":
        weights = {f"model.diffusion_model.{compvis_path(key, SHAPE)}": tensor for key, tensor in weights.items()}
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_the_shape_is_read_from_names_alone(told: Path) -> None:
    assert checkpoint_shape(told) == SHAPE != SD1_SHAPE


@pytest.mark.parametrize("layout", ["diffusers", "peft"])
def test_every_layer_goes_where_the_checkpoint_has_it(
    layout: str, told: Path, bundle: Path, unet: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / ("out" if layout == "peft" else "out.safetensors")
    command = ["bundle", "convert", str(bundle), "--layout", layout, "--out", str(out)]
    assert main(command) == 2
    assert "--checkpoint FILE" in capsys.readouterr().err and not out.exists()
    assert main([*command, "--checkpoint", str(told)]) == 0
    file = out if layout == "diffusers" else out / "unet" / "adapter_model.safetensors"
    found = {key.rpartition(".lora_")[0] for key in read_bundle(file).network}
    prefix = "unet." if layout == "diffusers" else "base_model.model."
    assert found == {prefix + path for path in layers_of(unet)}


def test_to_kohya_and_back_with_the_checkpoint(told: Path, bundle: Path, tmp_path: Path) -> None:
    names = set(group_layers(read_bundle(bundle).network))
    for layout, file in (("diffusers", "d.safetensors"), ("kohya", "k.safetensors")):
        source = bundle if layout == "diffusers" else tmp_path / "d.safetensors"
        arguments = ["--layout", layout, "--out", str(tmp_path / file), "--checkpoint", str(told)]
        assert main(["bundle", "convert", str(source), *arguments]) == 0
    assert set(group_layers(read_bundle(tmp_path / "k.safetensors").network)) == names


def test_what_is_no_checkpoint(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_text(json.dumps({"layers_per_block": [1, 2]}))
    for path, reason in (
        (bundle, "no U-Net"),
        (tmp_path / "none.safetensors", "cannot be opened"),
        (tmp_path / "empty", r"no unet/config\.json"),
        (tmp_path / "bad", "only one number for all levels"),
    ):
        with pytest.raises(BundleError, match=reason):
            checkpoint_shape(path)
