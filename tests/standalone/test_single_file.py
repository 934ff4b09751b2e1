"""Checkpoints read, and refused with a reason."""

from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file, save_file

from examples.avatars.checkpoint_file import save_checkpoint
from lib_pivotal.errors import HostError
from lib_pivotal.standalone.single_file import Checkpoint, load_checkpoint
from tests.standalone.tiny_families import odd_sd1


@pytest.fixture(scope="module")
def tiny() -> Checkpoint:
    return odd_sd1()


@pytest.fixture
def saved(tiny: Checkpoint, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_checkpoint(path, tiny, text_version="models/tiny-text", dtype=torch.float32)
    return path


@torch.no_grad()
def outputs(checkpoint: Checkpoint) -> list[torch.Tensor]:
    """What the three models make of fixed inputs."""
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    tokens = checkpoint.tokenizer(["a cat", "two dogs"], padding="max_length", max_length=77, return_tensors="pt")
    context = checkpoint.text_model(tokens.input_ids).last_hidden_state
    noise = checkpoint.unet(latents, torch.tensor([10, 900]), context).sample
    pixels = checkpoint.vae.decode(latents).sample
    return [context, noise, pixels, checkpoint.vae.encode(pixels).latent_dist.parameters]


def test_written_and_read_back(tiny: Checkpoint, saved: Path) -> None:
    loaded = load_checkpoint(saved)
    for ours, back in zip(outputs(tiny), outputs(loaded), strict=True):
        assert torch.equal(ours, back)
    assert (loaded.scale_factor, loaded.prediction_type, loaded.name) == (0.75, "v_prediction", "tiny")
    assert not any(w.requires_grad for m in (loaded.unet, loaded.vae, loaded.text_model) for w in m.parameters())


def test_half_precision_on_disk_and_in_memory(tiny: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    save_checkpoint(path, tiny, text_version="x")
    floats = [tensor for tensor in load_file(path).values() if tensor.is_floating_point()]
    assert {tensor.dtype for tensor in floats} == {torch.float16}
    assert load_checkpoint(path, dtype=torch.bfloat16).unet.dtype == torch.bfloat16


def test_without_yaml_it_is_standard_sd1(saved: Path) -> None:
    saved.with_suffix(".yaml").unlink()
    loaded = load_checkpoint(saved)
    assert (loaded.scale_factor, loaded.prediction_type) == (0.18215, "epsilon")
    assert loaded.unet.config.attention_head_dim == 8
    assert loaded.unet.config.block_out_channels == (32, 64)


def test_diffusers_folder(tiny: Checkpoint, tmp_path: Path) -> None:
    for name, part in (("unet", tiny.unet), ("vae", tiny.vae), ("text_encoder", tiny.text_model)):
        part.save_pretrained(tmp_path / name)
    DDIMScheduler(beta_start=0.001, beta_end=0.01, prediction_type="v_prediction").save_pretrained(
        tmp_path / "scheduler"
    )
    loaded = load_checkpoint(tmp_path)
    for ours, back in zip(outputs(tiny), outputs(loaded), strict=True):
        assert torch.equal(ours, back)
    assert (loaded.linear_start, loaded.prediction_type, loaded.scale_factor) == (0.001, "v_prediction", 0.75)


def test_noise_schedule_is_sds() -> None:
    alphas = Checkpoint(None, None, None, None).alphas_cumprod
    assert alphas[0].item() == pytest.approx(0.99915, abs=1e-6)
    assert alphas[-1].item() == pytest.approx(0.0046602, abs=1e-6)  # SD1.5's last value


def test_refused_with_file_key_and_remedy(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"nothing\.ckpt: not a checkpoint; give a \.safetensors"):
        load_checkpoint(tmp_path / "nothing.ckpt")
    with pytest.raises(HostError, match=r"no sub-folder vae"):
        load_checkpoint(tmp_path)
    tensors = load_file(saved)
    broken = tmp_path / "broken.safetensors"
    key = "model.diffusion_model.out.2.bias"
    save_file({name: tensor for name, tensor in tensors.items() if name != key}, broken)
    with pytest.raises(HostError, match=r"broken\.safetensors: lacks conv_out\.bias"):
        load_checkpoint(broken)
    save_file({**tensors, key: torch.zeros(7)}, broken)
    with pytest.raises(HostError, match=r"model\.diffusion_model\.conv_out\.bias has shape \(7,\), expected \(4,\)"):
        load_checkpoint(broken)
    for strange in ("model.diffusion_model.control.weight", "first_stage_model.loss.logvar"):
        save_file({**tensors, strange: torch.zeros(())}, broken)
        with pytest.raises(HostError, match=f"has {strange}, for which there is no place .0 missing, 1 too many"):
            load_checkpoint(broken)
    for lacking, told in (
        ("model.diffusion_model.input_blocks.2.0.op.bias", r"lacks down_blocks\.0\.downsamplers\.0\.conv\.bias"),
        ("model.diffusion_model.output_blocks.1.1.conv.bias", r"no tensor '.*output_blocks\.1\.1\.conv\.bias', which"),
    ):
        save_file({name: tensor for name, tensor in tensors.items() if name != lacking}, broken)
        with pytest.raises(HostError, match=told):
            load_checkpoint(broken)
    save_file({"lora.up": torch.zeros(1)}, broken)
    with pytest.raises(HostError, match=r"no tensor begins with model\.diffusion_model\."):
        load_checkpoint(broken)
    broken.write_bytes(b"not safetensors")
    with pytest.raises(HostError, match=r"broken\.safetensors"):
        load_checkpoint(broken)
