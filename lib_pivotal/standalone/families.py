"""Which kind of checkpoint a file or folder is: from its header and the settings beside it, without its weights.

Told apart as in the web UI v1.10.1: `guess_model_config_from_state_dict` (modules/sd_models_config.py) and the renaming
of older layouts (modules/sd_models.py). What this version does not train is refused in one sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from lib_pivotal.bundle.safetensors_file import read_header
from lib_pivotal.errors import BundleError, HostError
from lib_pivotal.plain_json import parse_json
from lib_pivotal.ports import ModelInfo

Family = Literal["sd1", "sd2", "sdxl"]
Shapes = Mapping[str, Sequence[int]]

TITLES: dict[Family, str] = {"sd1": "SD1", "sd2": "SD2", "sdxl": "SDXL"}

PLAIN_CHANNELS, INPAINTING_CHANNELS = 4, 9
"""What a U-Net takes: noisy latents; and beside them the hole and the latents of the picture with the hole."""

V_MARKER, ZERO_SNR_MARKER = "v_pred", "ztsnr"
"""Tensors by which SDXL checkpoints say that they predict v, and on a schedule of zero terminal SNR."""

UNET, VAE = "model.diffusion_model.", "first_stage_model."
"""How the names of the U-Net's and the autoencoder's tensors begin in a single file."""


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

_INPUT = f"{UNET}input_blocks.0.0.weight"
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
_SD2_WIDTH = 1024


def renaming(shapes: Shapes) -> tuple[tuple[str, str], ...]:
    """(old prefix, prefix) pairs of a file in an older layout; SD2 Turbo is SD2 in SDXL's clothes."""
    if (
        tuple(shapes.get(_TURBO_MARK, ())) == (_SD2_WIDTH,)
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


def family_of_folder(unet: Mapping[str, Any], text_encoder: Mapping[str, Any]) -> Family:
    """The family of a folder that diffusers saved, from the configurations of its U-Net and (first) text encoder."""
    if unet.get("addition_embed_type") == "text_time":
        return "sdxl"
    return "sd2" if text_encoder.get("hidden_act") == "gelu" else "sd1"  # OpenCLIP's; CLIP-L has quick_gelu


def read_yaml(path: Path) -> dict[str, Any]:
    """`model.params` of an ldm yaml; empty where there is no file."""
    if not path.is_file():
        return {}
    try:
        settings: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["model"]["params"]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        reason = f"no model.params can be read from it ({error!r}); remove it or write it as ldm does"
        raise HostError(f"{path}: {reason}") from error
    return settings


def params_of(settings: Mapping[str, Any], *parts: str) -> Mapping[str, Any]:
    """`params` of the first of these parts of a yaml that is there (ldm and sgm call them differently); or empty."""
    for part in parts:
        if settings.get(part):
            return settings[part].get("params") or {}
    return {}


def says_v(family: Family, settings: Mapping[str, Any], *, marked: bool) -> bool:
    """Whether the yaml, or SDXL's marker among the tensors, says that the checkpoint predicts v."""
    if family == "sdxl":
        scaling = params_of(settings, "denoiser_config").get("scaling_config") or {}
        return marked or str(scaling.get("target", "")).endswith(".VScaling")
    return bool(settings.get("parameterization") == "v")


def checkpoint_info(path: Path) -> ModelInfo:
    """Name, family and, as far as it is written down, what the checkpoint predicts.

    Of SD2 only a yaml beside the file says that it predicts v; loading it finds that out without one.

    Raises:
        HostError: no checkpoint, or one that is not trained here.
    """
    if path.is_dir():
        return _folder_info(path)
    try:
        entries = read_header(path).tensors
    except (BundleError, OSError) as error:
        raise HostError(f"{path}: cannot be read as a checkpoint ({error}). Give a .safetensors file.") from error
    pairs = renaming({name: entry.shape for name, entry in entries.items()})
    tensors = {renamed(name, pairs): entry.shape for name, entry in entries.items()}
    if not any(name.startswith(UNET) for name in tensors):
        raise HostError(f"{path}: no checkpoint, it has no U-Net. Give an SD1, SD2 or SDXL checkpoint.")
    family = family_of(tensors, path)
    predicts_v = says_v(family, read_yaml(path.with_suffix(".yaml")), marked=V_MARKER in tensors)
    inpainting = tuple(tensors.get(_INPUT, ()))[1:2] == (INPAINTING_CHANNELS,)
    return ModelInfo(path.stem, family, v_prediction=predicts_v, inpainting=inpainting)


def _folder_info(path: Path) -> ModelInfo:
    """As diffusers writes it."""
    unet, text = _json(path / "unet" / "config.json"), _json(path / "text_encoder" / "config.json")
    if not unet:
        raise HostError(f"{path}: no unet/config.json; give a .safetensors file or a folder that diffusers saved.")
    predicts = _json(path / "scheduler" / "scheduler_config.json").get("prediction_type")
    return ModelInfo(
        path.name,
        family_of_folder(unet, text),
        v_prediction=predicts == "v_prediction",
        inpainting=unet.get("in_channels") == INPAINTING_CHANNELS,
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise HostError(f"{path}: cannot be read as JSON ({error}). Save the pipeline again.") from error
    return found if isinstance(found, dict) else {}
