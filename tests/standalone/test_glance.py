"""What kind a checkpoint is without its weights: the same as loading it says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lib_pivotal.errors import HostError
from lib_pivotal.ports import ModelInfo
from lib_pivotal.standalone.families import Family
from lib_pivotal.standalone.glance import checkpoint_info
from lib_pivotal.standalone.single_file import load_checkpoint
from tests.standalone.tiny_families import make, write


def _loaded(path: Path) -> tuple[str, bool, bool]:
    checkpoint = load_checkpoint(path)
    inpainting = checkpoint.unet.config.in_channels == 9
    return checkpoint.family, checkpoint.prediction_type == "v_prediction", inpainting


def _glanced(info: ModelInfo) -> tuple[str, bool, bool]:
    return info.family, info.v_prediction, info.inpainting


@pytest.mark.parametrize(
    ("family", "channels", "markers"),
    [("sd1", 4, ()), ("sd2", 4, ()), ("sdxl", 4, ()), ("sdxl", 4, ("v_pred",)), ("sd1", 9, ()), ("sdxl", 9, ())],
)
def test_a_file_as_it_is_loaded(tmp_path: Path, family: Family, channels: int, markers: tuple[str, ...]) -> None:
    path = write(tmp_path / "tiny.safetensors", make(family, channels=channels), markers=markers)
    info = checkpoint_info(path)
    assert _glanced(info) == _loaded(path) and info.name == "tiny"


@pytest.mark.parametrize(("kind", "predicts_v"), [("v", True), ("eps", False)])
def test_a_yaml_beside_says_what_sd2_predicts(tmp_path: Path, kind: str, predicts_v: bool) -> None:
    path = write(tmp_path / "tiny.safetensors", make("sd2"))
    path.with_suffix(".yaml").write_text(f"model:\n  params:\n    parameterization: {kind}\n", encoding="utf-8")
    assert _glanced(checkpoint_info(path)) == ("sd2", predicts_v, False) == _loaded(path)


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_a_folder_as_diffusers_writes_it(tmp_path: Path, family: Family) -> None:
    checkpoint = make(family)
    parts = {"unet": checkpoint.unet, "vae": checkpoint.vae, "text_encoder": checkpoint.text_model}
    parts |= {"text_encoder_2": checkpoint.text_model_2} if checkpoint.text_model_2 is not None else {}
    for name, model in parts.items():
        model.save_pretrained(tmp_path / name)
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler/scheduler_config.json").write_text('{"prediction_type": "v_prediction"}')
    assert _glanced(checkpoint_info(tmp_path)) == (family, True, False) == _loaded(tmp_path)


def test_what_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(HostError, match="cannot be read as a checkpoint"):
        checkpoint_info(path)
    save_file({"lora_unet_x.alpha": torch.ones(1)}, path)
    with pytest.raises(HostError, match="it has no U-Net"):
        checkpoint_info(path)
    name = "model.diffusion_model.x_embedder.proj.weight"
    save_file({name: torch.ones(1)}, path)
    with pytest.raises(HostError, match="SD3"):
        checkpoint_info(path)
    with pytest.raises(HostError, match="no unet/config.json"):
        checkpoint_info(tmp_path)
