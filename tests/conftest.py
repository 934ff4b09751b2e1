"""Tiny real models (a few thousand weights but for CLIP's vocabulary) and small real pictures."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["PIVOTAL_CACHE"] = tempfile.mkdtemp(prefix="pivotal-cache-")  # no test writes into the user's own
atexit.register(shutil.rmtree, os.environ["PIVOTAL_CACHE"], ignore_errors=True)
torch.set_num_threads(1)


def make_tiny_models(seed: int = 0) -> dict:
    """U-Net, autoencoder and text model of SD1's kinds, with random weights."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from lib_pivotal.standalone.tokenizer import clip_tokenizer

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(32, 32),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=16,
            attention_head_dim=2,
            norm_num_groups=8,
        )
        vae = AutoencoderKL(
            block_out_channels=(8, 8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=4,
        )
        text_model = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, projection_dim=16
            )
        )
    return {"unet": unet, "vae": vae, "text_model": text_model, "tokenizer": clip_tokenizer()}


@pytest.fixture(scope="session")
def forks():
    """Starts processes without importing torch in each of them: see tests/forked.py."""
    from tests.forked import Forks

    if not hasattr(os, "fork"):
        pytest.skip("processes are forked here")
    with Forks() as made:
        yield made


@pytest.fixture(scope="session")
def tiny_models():
    """Shared: tests must leave the weights as they are (that is one of the promises)."""
    return make_tiny_models()


@pytest.fixture
def tiny_host(tiny_models):
    """A host over the tiny models."""
    from lib_pivotal.standalone.model import StandaloneHost

    return StandaloneHost(**tiny_models, scale_factor=1.0, name="tiny")


def write_pictures(folder: Path, captions: dict[str, str], size_px: int = 64) -> Path:
    """One simple drawing a caption: `{"aoi/1": "aoi, red"}`."""
    for number, (stem, text) in enumerate(captions.items()):
        path = folder / f"{stem}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.new("RGB", (size_px, size_px), (40 * number % 256, 90, 200 - 30 * number % 200))
        ImageDraw.Draw(picture).ellipse((8, 8 + number, 48, 48), fill=(255, 30 * number % 256, 0))
        picture.save(path)
        path.with_suffix(".txt").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def two_embeddings_folder(tmp_path):
    """Six pictures of two words."""
    return write_pictures(
        tmp_path / "pictures",
        {
            "aoi_1": "aoi, red hair, smile",
            "aoi_2": "aoi, red hair, park",
            "aoi_3": "aoi, red hair, night",
            "hana_1": "hana, blue hair, smile",
            "hana_2": "hana, blue hair, sky",
            "hana_3": "hana, blue hair, close-up",
        },
    )
