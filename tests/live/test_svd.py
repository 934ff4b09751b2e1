"""A LoRA extracted from a checkpoint, read by the stock web UI: base and LoRA give the checkpoint's own pictures."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lib_pivotal.bundle.low_rank import RankCut
from lib_pivotal.bundle.svd import extract
from tests.live.conftest import Family, WebUI

pytestmark = [pytest.mark.webui, pytest.mark.slow]

PROMPT = "a face, red hair, smile"
NEARLY = 3
"""Of 255: the web UI adds up in another order when a LoRA is merged."""


def is_layer(key: str, tensor: torch.Tensor) -> bool:
    """Whether fine-tuning may move it here: what a LoRA has a place for."""
    if key.startswith("model.diffusion_model."):
        return key.endswith(".weight") and tensor.dim() > 1
    text = key.startswith(("cond_stage_model.", "conditioner.embedders."))
    return text and any(inner in key for inner in (".mlp.", "attn.")) and tensor.dim() > 1


def test_base_and_lora_are_the_checkpoint(stock_webui: WebUI, family: Family) -> None:
    models = stock_webui.data / "models" / "Stable-diffusion"
    base = models / family.checkpoint.name
    tuned = models / f"{base.stem}-tuned.safetensors"
    generator = torch.Generator().manual_seed(0)
    weights = {
        key: tensor + 0.1 * tensor.std() * torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
        if is_layer(key, tensor)
        else tensor
        for key, tensor in load_file(base).items()
    }
    save_file({key: tensor.contiguous() for key, tensor in weights.items()}, tuned)
    shutil.copyfile(base.with_suffix(".yaml"), tuned.with_suffix(".yaml"))
    lora = stock_webui.lora_folder / "extracted.safetensors"
    extract(tuned, base, lora, cut=RankCut(10_000), dtype="fp32", overwrite=True)
    stock_webui.call("/sdapi/v1/refresh-checkpoints", {})
    stock_webui.reload_files()
    pictures = {}
    for name, prompt in ((base.stem, PROMPT), (base.stem, f"{PROMPT} <lora:extracted:1>"), (tuned.stem, PROMPT)):
        stock_webui.use(name)
        pictures[name, prompt] = np.asarray(stock_webui.txt2img(prompt, seed=1).image, dtype=int)
    plain, with_lora, wanted = pictures.values()
    assert np.abs(plain - wanted).max() > 30
    assert np.abs(with_lora - wanted).max() <= NEARLY
    stock_webui.use(base.stem)
    assert "extracted.safetensors didn't match keys" not in stock_webui.log_text()
