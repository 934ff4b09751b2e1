"""Tiny checkpoints of SD1, SD2 and SDXL for the fake web UI: real text models, U-Nets and autoencoders, random weights.

The name of a file up to its first `-` is its kind, in the real web UI its configuration: `sd1`, `sd2`, `sd2v` (predicts
v), `sdxl`, `sdxlv`, `refiner`, `sd1inpaint`, `sdxlinpaint`. `sd1-second` is another file of SD1's kind.
"""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from lib_pivotal.standalone.tokenizer import clip_tokenizer

WIDTH_L, WIDTH_G = 16, 24
"""Of the text models: SD1's and SDXL's first; SD2's and SDXL's second."""

SIZES = ("original_size_as_tuple", "crop_coords_top_left", "target_size_as_tuple")
SIZE_WIDTH = 4


def kind_of(name: str) -> str:
    """The configuration of a checkpoint's name."""
    return name.split("-")[0]


def build_checkpoint(kind: str) -> Any:
    """A model of this kind as the web UI makes it from a configuration: not hijacked, weights by chance."""
    plain = kind.removesuffix("inpaint").removesuffix("v")
    with torch.random.fork_rng():
        torch.manual_seed(sum(map(ord, kind)))
        model = _build_sdxl(kind) if plain in ("sdxl", "refiner") else _build_ldm(kind)
        for module in model.modules():
            if isinstance(module, nn.LayerNorm | nn.GroupNorm):  # else every mean is nothing, by which emphasis divides
                nn.init.normal_(module.weight, 1.0, 0.1)
                nn.init.normal_(module.bias, 0.2, 0.1)
    for name in ("sd1", "sd2", "sdxl", "sd3", "ssd"):
        setattr(model, f"is_{name}", name == ("sdxl" if plain == "refiner" else plain))
    return model


def _build_ldm(kind: str) -> Any:
    from ldm.models.ddpm import LatentDiffusion
    from ldm.modules.encoders.modules import FrozenCLIPEmbedder, FrozenOpenCLIPEmbedder
    from ldm.modules.openaimodel import UNetModel

    first, inpainting = kind.startswith("sd1"), kind.endswith("inpaint")
    text = FrozenCLIPEmbedder(clip_tokenizer(), WIDTH_L) if first else FrozenOpenCLIPEmbedder(WIDTH_G)
    unet = UNetModel(WIDTH_L if first else WIDTH_G, in_channels=9 if inpainting else 4, use_linear=not first)
    return LatentDiffusion(unet, text, v=kind.endswith("v"), conditioning_key="hybrid" if inpainting else "crossattn")


def _build_sdxl(kind: str) -> Any:
    import sgm.modules.attention
    from ldm.modules.encoders.modules import FrozenCLIPEmbedder, FrozenOpenCLIPEmbedder2
    from ldm.modules.openaimodel import UNetModel
    from sgm.models.diffusion import ConcatTimestepEmbedderND, DiffusionEngine

    towers: list[Any] = [FrozenOpenCLIPEmbedder2(WIDTH_G)]
    if kind != "refiner":
        towers.insert(0, FrozenCLIPEmbedder(clip_tokenizer(), WIDTH_L, layer="hidden", layer_idx=-2))
    sizes = [ConcatTimestepEmbedderND(name, SIZE_WIDTH) for name in SIZES]
    inpainting = kind.endswith("inpaint")
    unet = UNetModel(
        WIDTH_G if kind == "refiner" else WIDTH_L + WIDTH_G,
        in_channels=9 if inpainting else 4,
        adm_in_channels=WIDTH_G + 2 * SIZE_WIDTH * len(SIZES),
        use_linear=True,
        attention=sgm.modules.attention.CrossAttention,
    )
    model = DiffusionEngine(unet, [*towers, *sizes], v=kind.endswith("v"))
    model.is_sdxl_inpaint = inpainting
    return model


@lru_cache(maxsize=1)
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="pivotal-fake-")


def checkpoint_file(kind: str) -> Path:
    """Its weights, made once a session. Needs the fake's `ldm` and `sgm` in place."""
    path = Path(_folder().name) / f"{kind}.safetensors"
    if not path.exists():
        tensors = build_checkpoint(kind).state_dict()
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path
