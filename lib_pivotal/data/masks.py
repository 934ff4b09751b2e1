"""Soft masks: how much each part of a picture counts in the loss, from grey pictures or the alpha channel."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lib_pivotal.data.buckets import Placement
from lib_pivotal.data.pictures import flatten, open_rgba
from lib_pivotal.errors import DataError

MaskScale = Literal["linear", "hcp"]
"""`linear`: black 0 to white 1; `hcp`: black 0, mid-grey 1, white 5 (see `grey_to_weight`)."""

MASK_FOLDERS = ("mask", "masks", "att_mask")
MASK_SUFFIXES = ("-masklabel",)

Weights = NDArray[np.float32]


def grey_to_weight(grey: NDArray[Any], *, scale: MaskScale) -> Weights:
    """Grey 0..255 to loss weights.

    `hcp`: v/127 up to 127, then (v - 127)/128·4 + 1, so that 0/25/50/75/100 % grey weigh 0/.5/1/3/5
    (https://github.com/IrisRainbowNeko/HCP-Diffusion, hcpdiff/data/source/text2img.py).
    """
    values = grey.astype(np.float32)
    if scale == "linear":
        return (values / 255.0).astype(np.float32)
    return np.where(values <= 127.0, values / 127.0, (values - 127.0) / 128.0 * 4.0 + 1.0).astype(np.float32)


def read_mask(path: Path) -> Image.Image:
    """A mask file as grey, upright; transparent pixels are black."""
    rgb, alpha = open_rgba(path)
    return flatten(rgb, alpha, background=(0, 0, 0)).convert("L")


def to_latent_grid(weights: Weights, placement: Placement, *, factor: int = 8) -> Tensor:
    """Cut and shrink weights of a whole picture as the picture is, averaging over area -> `(1, h/factor, w/factor)`.

    A mask may have another size than its picture: it is laid over it from edge to edge. HCP goes through a cubic
    resize to the bucket and a bilinear one to the latents; the mean over each latent's own area keeps the sum.
    """
    height, width = weights.shape
    across, down = width / placement.resized_px[0], height / placement.resized_px[1]
    left, top, right, bottom = placement.box_px
    box = (left * across, top * down, min(right * across, float(width)), min(bottom * down, float(height)))
    size = (placement.bucket.width_px // factor, placement.bucket.height_px // factor)
    picture = Image.fromarray(np.ascontiguousarray(weights, dtype=np.float32), mode="F")
    shrunk = picture.resize(size, Image.Resampling.BOX, box=box)
    return torch.from_numpy(np.array(shrunk, dtype=np.float32))[None].clamp_min_(0.0)


def latent_mask(
    grey: Image.Image | None,
    alpha: Image.Image | None,
    *,
    placement: Placement,
    scale: MaskScale = "linear",
    minimum: float = 0.0,
    normalise: bool = True,
    flip: bool = False,
) -> Tensor | None:
    """The weights of a picture's latents, `(1, h, w)`: mask file times alpha (always linear), or None without both.

    `minimum` is the weight of what is masked away; `normalise` scales to a mean of 1, so that a picture with a small
    mask counts like any other ("exact HCP" is `scale="hcp"`, `normalise=False`).
    """
    if not 0.0 <= minimum <= 1.0:
        raise DataError(f"minimum = {minimum}: the weight of masked parts is from 0 to 1.")
    result: Tensor | None = None
    sources: tuple[tuple[Image.Image | None, MaskScale], ...] = ((grey, scale), (alpha, "linear"))
    for image, how in sources:
        if image is not None:
            part = to_latent_grid(grey_to_weight(np.asarray(image), scale=how), placement)
            result = part if result is None else result * part
    if result is None:
        return None
    result = result.clamp_min(minimum)
    if normalise:
        result = normalised(result)
    return result.flip(-1).contiguous() if flip else result


def inpaint_hole(grey: Image.Image | None, *, placement: Placement) -> Tensor:
    """What an inpainting checkpoint is to paint, `(1, height, width)` of 0 and 1 in pixels: where the mask is brighter
    than mid-grey; all of it without a mask, as the web UI's txt2img has it."""
    size = (placement.bucket.width_px, placement.bucket.height_px)
    if grey is None:
        return torch.ones(1, size[1], size[0])
    cut = grey.resize(placement.resized_px, Image.Resampling.LANCZOS).crop(placement.box_px)
    return torch.from_numpy(np.asarray(cut, dtype=np.float32) / 255.0).round()[None]


def normalised(weights: Tensor) -> Tensor:
    """Weights scaled to a mean of 1; a mask that is black everywhere cannot be."""
    mean = float(weights.mean())
    if mean < 1e-4:
        raise DataError(
            "the mask is black wherever the picture is trained. Paint what counts in white, or delete the mask"
        )
    return weights / mean
