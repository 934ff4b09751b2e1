"""The second checkpoint is put together from the base and its own U-Net."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from examples.avatars.checkpoints import BASE, RETRO, RETRO_UNET, WEIGHTS, checkpoint
from lib_pivotal.standalone.model import StandaloneHost


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    whole = {"model.diffusion_model.w": torch.zeros(2), "cond_stage_model.w": torch.ones(2)}
    save_file(whole, folder / f"{BASE}.safetensors", metadata={"about": "text"})
    (folder / f"{BASE}.yaml").write_text("model: {}\n", encoding="utf-8")
    save_file({"model.diffusion_model.w": torch.full((2,), 5.0)}, folder / RETRO_UNET)
    return folder


def test_the_base_is_what_is_stored(weights: Path, tmp_path: Path) -> None:
    assert checkpoint(BASE, weights=weights, made=tmp_path / "made") == weights / f"{BASE}.safetensors"
    assert not (tmp_path / "made").exists()


def test_the_second_is_the_base_with_another_unet(weights: Path, tmp_path: Path) -> None:
    path = checkpoint(RETRO, weights=weights, made=tmp_path / "made")
    found = load_file(path)
    assert found["model.diffusion_model.w"].tolist() == [5, 5] and found["cond_stage_model.w"].tolist() == [1, 1]
    assert path.with_suffix(".yaml").read_text(encoding="utf-8") == "model: {}\n"
    with safe_open(str(path), framework="pt") as file:
        assert file.metadata()["about"] == "text"


def test_it_is_made_once_and_again_when_a_part_changed(weights: Path, tmp_path: Path) -> None:
    path = checkpoint(RETRO, weights=weights, made=tmp_path / "made")
    made = path.stat().st_mtime_ns
    assert checkpoint(RETRO, weights=weights, made=tmp_path / "made").stat().st_mtime_ns == made
    save_file({"model.diffusion_model.w": torch.full((2,), 7.0)}, weights / RETRO_UNET)
    assert load_file(checkpoint(RETRO, weights=weights, made=tmp_path / "made"))["model.diffusion_model.w"][0] == 7


def test_faults_are_named(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="checkpoint is 'x'; it must be one of avatars, avatars-retro"):
        checkpoint("x")
    save_file({"other": torch.zeros(1)}, weights / RETRO_UNET)
    with pytest.raises(ValueError, match="is no part of"):
        checkpoint(RETRO, weights=weights, made=tmp_path / "made")


def test_what_is_shipped_loads() -> None:
    size = sum(path.stat().st_size for path in WEIGHTS.iterdir())
    assert size < 27_500_000
    assert StandaloneHost.load(checkpoint(RETRO)).info.family == "sd1"
