"""What the loaded checkpoint's kind wants of a run: the size that it draws best, settings that mean nothing to it."""

from __future__ import annotations

from lib_pivotal.config import Run
from lib_pivotal.ports import ModelInfo

TITLES = {"sd1": "SD1", "sd2": "SD2", "sdxl": "SDXL"}
PLAIN_PX = 512
"""Of SD1 and of SD2's base, and where nothing is known of the checkpoint."""
V2_PX, XL_PX = 768, 1024
"""Of SD2's 768-v, which predicts v, and of SDXL (arXiv 2307.01952, section 2.3)."""

TOO_LARGE = 1.5
"""So many times the checkpoint's own size a picture begins to hold things twice."""


def native_px(model: ModelInfo | None) -> int:
    """Side of the square that the checkpoint was trained to draw."""
    if model is None or model.family == "sd1":
        return PLAIN_PX
    if model.family == "sdxl":
        return XL_PX
    return V2_PX if model.v_prediction else PLAIN_PX


SECOND_ENCODER = ("network.te2_targets", "network.te2_lr")
"""Settings that mean something to SDXL alone."""


def idle_settings(model: ModelInfo | None) -> tuple[str, ...]:
    """Paths of the settings that mean nothing to this checkpoint; none where nothing is known of it."""
    return () if model is None or model.family == "sdxl" else SECOND_ENCODER


def suitability_remarks(run: Run, model: ModelInfo | None, *, fitting_px: int | None = None) -> tuple[str, ...]:
    """What to know of `run` on this checkpoint; `fitting_px` is the training size that the pictures allow, if known."""
    if model is None:
        return ()
    title, native = TITLES[model.family], native_px(model)
    size, found = run.data.resolution_px, []
    if size > TOO_LARGE * native:
        found.append(
            f"Resolution (px): {size}, but {model.name} ({title}) is made for {native}: larger pictures repeat "
            "their content."
        )
    elif fitting_px is not None and size < fitting_px:
        found.append(
            f"Resolution (px): {size}, but {model.name} ({title}) is made for {native}, "
            f"and the pictures allow {fitting_px}."
        )
    if run.clip_skip > 1 and model.family != "sd1":
        found.append(f"Clip skip: {run.clip_skip} has no effect on {title}, unless the web UI's settings say so.")
    network = run.network
    if model.family != "sdxl" and (network.te2_targets not in ("same", "none") or network.te2_lr):
        found.append(f"Second text encoder: {title} has only one; layers and lr of a second have no effect.")
    if model.family == "sdxl" and network.te_targets != "none" and network.te2_targets == "same" and not network.te2_lr:
        both = (
            "Text encoder: rank and lr are those of both encoders of SDXL, lora_te1_ (CLIP-L) and lora_te2_ (OpenCLIP)."
        )
        found.append(f"{both} Second text encoder gives that one its own lr and layers; groups of layers give ranks.")
    return tuple(found)
