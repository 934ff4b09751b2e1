"""Which kind of checkpoint a file or folder is, seen from the names and shapes of its tensors, as the web UI does.

Follows `guess_model_config_from_state_dict` (modules/sd_models_config.py) and the renaming of older layouts
(modules/sd_models.py) of the web UI v1.10.1; what this version does not train is refused in one sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lib_pivotal.errors import HostError

Family = Literal["sd1", "sd2", "sdxl"]
Shapes = Mapping[str, Sequence[int]]

TITLES: dict[Family, str] = {"sd1": "SD1", "sd2": "SD2", "sdxl": "SDXL"}

PLAIN_CHANNELS, INPAINTING_CHANNELS = 4, 9
"""What a U-Net takes: noisy latents; and beside them the hole and the latents of the picture with the hole."""

V_MARKER, ZERO_SNR_MARKER = "v_pred", "ztsnr"
"""Tensors by which SDXL checkpoints say that they predict v, and on a schedule of zero terminal SNR."""

CLIP, OPENCLIP = "clip", "openclip"


@dataclass(frozen=True)
class TextPart:
    """Where a text encoder's weights are in a single file, and whose names they have there."""

    prefix: str
    layout: Literal["clip", "openclip"]


TEXT_PARTS: dict[Family, tuple[TextPart, ...]] = {
    "sd1": (TextPart("cond_stage_model.transformer.", "clip"),),
    "sd2": (TextPart("cond_stage_model.model.", "openclip"),),
    "sdxl": (
        TextPart("conditioner.embedders.0.transformer.", "clip"),
        TextPart("conditioner.embedders.1.model.", "openclip"),
    ),
}

SCALE_FACTORS: dict[Family, float] = {"sd1": 0.18215, "sd2": 0.18215, "sdxl": 0.13025}
"""Of latents; a yaml beside the file may say otherwise."""

_INPUT = "model.diffusion_model.input_blocks.0.0.weight"
_INSTEAD = "Choose an SD1, SD2 or SDXL checkpoint."
_FOREIGN = (
    ("model.diffusion_model.x_embedder.proj.weight", "an SD3 checkpoint"),
    ("model.diffusion_model.double_blocks.0.img_attn.qkv.weight", "a Flux checkpoint"),
    ("double_blocks.0.img_attn.qkv.weight", "a Flux checkpoint"),
    ("depth_model.model.pretrained.act_postprocess3.0.project.0.bias", "a depth-to-image checkpoint"),
    ("embedder.model.ln_final.weight", "an unCLIP checkpoint, made for variations of pictures"),
    ("embedder.model.visual.proj", "an unCLIP checkpoint, made for variations of pictures"),
    ("cond_stage_model.roberta.embeddings.word_embeddings.weight", "an AltDiffusion checkpoint"),
)
_CHANNEL_KINDS = {8: "instruct-pix2pix", 5: "depth-to-image"}

_OLD_NAMES = (
    ("cond_stage_model.transformer.embeddings.", "cond_stage_model.transformer.text_model.embeddings."),
    ("cond_stage_model.transformer.encoder.", "cond_stage_model.transformer.text_model.encoder."),
    ("cond_stage_model.transformer.final_layer_norm.", "cond_stage_model.transformer.text_model.final_layer_norm."),
)
_TURBO = ("conditioner.embedders.0.", "cond_stage_model.")
_TURBO_MARK = "conditioner.embedders.0.model.ln_final.weight"
SD2_WIDTH, REFINER_WIDTH = 1024, 1280


def renaming(shapes: Shapes) -> tuple[tuple[str, str], ...]:
    """(old prefix, prefix) pairs of a file in an older layout; SD2 Turbo is SD2 in SDXL's clothes."""
    if (
        tuple(shapes.get(_TURBO_MARK, ())) == (SD2_WIDTH,)
        and "conditioner.embedders.1.model.ln_final.weight" not in shapes
    ):
        return (_TURBO,)
    return _OLD_NAMES


def renamed(name: str, pairs: Sequence[tuple[str, str]]) -> str:
    """The name with the first prefix that fits exchanged."""
    for old, new in pairs:
        if name.startswith(old):
            return new + name[len(old) :]
    return name


def family_of(shapes: Shapes, path: Path) -> Family:
    """The family of a single file, from the shapes of its tensors under today's names.

    Raises:
        HostError: SD3, Flux, a refiner and other kinds that are not trained here, or no checkpoint at all.
    """
    for name, kind in _FOREIGN:
        if name in shapes:
            raise HostError(f"{path}: this is {kind}, which this version does not train. {_INSTEAD}")
    if "conditioner.embedders.1.model.ln_final.weight" in shapes:
        family: Family = "sdxl"
    elif _TURBO_MARK in shapes:
        raise HostError(
            f"{path}: this is SDXL's refiner, which only finishes pictures. Choose the base checkpoint to train."
        )
    elif "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight" in shapes:
        family = "sd2"
    else:
        family = "sd1"
    check_channels(shapes.get(_INPUT, (0, PLAIN_CHANNELS))[1], path)
    return family


def check_channels(channels: int, path: Path) -> None:
    """HostError where the U-Net takes something that is not known here."""
    if channels not in (PLAIN_CHANNELS, INPAINTING_CHANNELS):
        kind = _CHANNEL_KINDS.get(channels, "another kind of picture")
        raise HostError(
            f"{path}: this is made for {kind} (its U-Net takes {channels} channels). "
            "Choose the plain checkpoint that it came from."
        )
