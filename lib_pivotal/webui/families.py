"""Which kind of checkpoint the web UI has loaded, and whether that kind can be trained. Line numbers are of v1.10.1."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from modules import sd_hijack_clip, sd_hijack_open_clip, sd_hijack_xlmr

from lib_pivotal.bundle.safetensors_file import read_header
from lib_pivotal.errors import BundleError, HostError
from lib_pivotal.ports import ModelInfo

PLAIN_CHANNELS, INPAINTING_CHANNELS = 4, 9
"""What a U-Net takes: noisy latents; and beside them the hole and the latents of the picture with the hole."""

MARKERS = ("v_pred", "ztsnr")
"""Empty tensors by which SDXL checkpoints say that they predict v, and on a schedule of zero terminal SNR. v1.10.1 does
not know them; its successors do."""

_KNOWN_TOWERS = (
    sd_hijack_clip.FrozenCLIPEmbedderWithCustomWords,
    sd_hijack_open_clip.FrozenOpenCLIPEmbedderWithCustomWords,
    sd_hijack_open_clip.FrozenOpenCLIPEmbedder2WithCustomWords,
)


_BARE_TOWERS = ("FrozenCLIPEmbedder", "FrozenOpenCLIPEmbedder", "BertSeriesModelWithTransformation")


def is_taken_apart(model: Any) -> bool:
    """Whether the text encoder is not as the web UI uses it: it unwraps it before it reads another file into the model,
    and leaves it so where the file cannot be read (sd_models.py:943, `reload_model_weights`)."""
    encoder = getattr(model, "cond_stage_model", None)
    return encoder is None or type(encoder).__name__ in _BARE_TOWERS


def family_of(model: Any) -> Literal["sd1", "sd2", "sdxl"]:
    """Of a checkpoint that `check_kind` lets pass; SSD-1B and its like are SDXL with fewer layers."""
    if getattr(model, "is_sdxl", False):
        return "sdxl"
    return "sd2" if getattr(model, "is_sd2", False) else "sd1"


def text_towers(model: Any) -> list[Any]:
    """The text encoders as the web UI has wrapped them, in the order of an embedding's tensors: one, or SDXL's two."""
    conditioner = getattr(model, "conditioner", None)
    if conditioner is None:
        return [model.cond_stage_model]
    return [embedder for embedder in conditioner.embedders if hasattr(embedder, "wrapped")]


def input_channels(model: Any) -> int:
    """Of the U-Net."""
    return int(model.model.diffusion_model.input_blocks[0][0].weight.shape[1])


def is_inpainting(model: Any) -> bool:
    """Whether the U-Net takes the hole and the holed picture beside the noise."""
    return input_channels(model) == INPAINTING_CHANNELS


def predicts_v(model: Any) -> bool:
    """As the web UI draws pictures: by the checkpoint's configuration (sd_models_xl.py:99, ldm's ddpm.py)."""
    return getattr(model, "parameterization", "eps") == "v"


def plain_info(model: Any) -> ModelInfo:
    """Name and kind, without hashes, of a checkpoint that `check_kind` lets pass."""
    name = model.sd_checkpoint_info.name_for_extra
    return ModelInfo(name, family_of(model), v_prediction=predicts_v(model), inpainting=is_inpainting(model))


def markers(model: Any) -> frozenset[str]:
    """The `MARKERS` that the checkpoint's file holds; none where it is no safetensors file."""
    path = Path(model.sd_checkpoint_info.filename)
    if path.suffix != ".safetensors":
        return frozenset()
    try:
        tensors = read_header(path).tensors
    except (BundleError, OSError):
        return frozenset()
    return frozenset(name for name in MARKERS if name in tensors)


def check_kind(model: Any) -> None:
    """Refuse checkpoints that this version cannot train.

    Raises:
        HostError: what it is, and what to choose instead.
    """
    name = model.sd_checkpoint_info.name_for_extra
    instead = "Choose an SD1, SD2 or SDXL checkpoint."
    if getattr(model, "is_sd3", False):
        raise HostError(f"{name} is an SD3 checkpoint, which this version does not train. {instead}")
    towers = text_towers(model)
    sdxl = getattr(model, "is_sdxl", False)
    if sdxl and len(towers) == 1:
        raise HostError(f"{name} is SDXL's refiner, which only finishes pictures. Choose the base checkpoint to train.")
    if isinstance(towers[0], sd_hijack_xlmr.FrozenXLMREmbedderWithCustomWords):  # a kind of CLIP's for the web UI
        kind = "an AltDiffusion checkpoint, whose text encoder (XLM-RoBERTa) this version does not train"
        raise HostError(f"{name} is {kind}. {instead}")
    if len(towers) != (2 if sdxl else 1) or not isinstance(towers[0], _KNOWN_TOWERS):
        kinds = ", ".join(type(getattr(tower, "wrapped", tower)).__name__ for tower in towers)
        raise HostError(f"{name} has a text encoder that this version does not train ({kinds}). {instead}")
    _check_unet(model, name)
    if not predicts_v(model) and "v_pred" in markers(model):
        raise HostError(
            f"{name} says by its tensor `v_pred` that it predicts v, but the web UI has loaded it as predicting noise, "
            f"and samples it wrongly. Put a {Path(model.sd_checkpoint_info.filename).stem}.yaml with VScaling "
            "beside it "
            "(docs/training-tab.md has the lines), and load it again."
        )


def _check_unet(model: Any, name: str) -> None:
    channels = input_channels(model)
    plain = "Choose the plain checkpoint that it came from."
    if channels not in (PLAIN_CHANNELS, INPAINTING_CHANNELS):
        kinds = {8: "instruct-pix2pix", 5: "depth-to-image"}
        kind = kinds.get(channels, "another kind of picture")
        raise HostError(f"{name} is made for {kind} (its U-Net takes {channels} channels). {plain}")
    if getattr(model.model, "conditioning_key", "crossattn") == "crossattn-adm":
        raise HostError(f"{name} is an unCLIP checkpoint, which is made for variations of pictures. {plain}")
