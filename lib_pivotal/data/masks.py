"""Soft masks: how much each part of a picture counts in the loss; from grey pictures, the alpha channel, or painted."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lib_pivotal.data.buckets import Placement
from lib_pivotal.data.pictures import flatten, inspect, open_rgba
from lib_pivotal.errors import DataError
from lib_pivotal.files import replacing

MaskScale = Literal["linear", "hcp", "hcp_exact", "cloneofsimo"]
"""`linear`: black 0 to white 1; `hcp`: black 0, mid-grey 1, white 5 (see `grey_to_weight`); `hcp_exact`: that, shrunk
as HCP shrinks it and never normalised; `cloneofsimo`: linear, raised to a temperature, see `with_temperature`."""

MASK_FOLDERS = ("mask", "masks", "att_mask")
MASK_SUFFIXES = ("-masklabel",)

Weights = NDArray[np.float32]


def mask_names() -> tuple[str, ...]:
    """Choices of `data.masks`."""
    return ("none", *get_args(MaskScale))


def grey_to_weight(grey: NDArray[Any], *, scale: MaskScale) -> Weights:
    """Grey 0..255 to loss weights.

    `hcp`, `hcp_exact`: v/127 up to 127, then (v - 127)/128·4 + 1, so that 0/25/50/75/100 % grey weigh 0/.5/1/3/5
    (https://github.com/IrisRainbowNeko/HCP-Diffusion, hcpdiff/data/source/text2img.py).
    """
    values = grey.astype(np.float32)
    if scale in ("linear", "cloneofsimo"):
        return (values / 255.0).astype(np.float32)
    return np.where(values <= 127.0, values / 127.0, (values - 127.0) / 128.0 * 4.0 + 1.0).astype(np.float32)


def read_mask(path: Path) -> Image.Image:
    """A mask file as grey, upright; transparent pixels are black."""
    rgb, alpha = open_rgba(path)
    return flatten(rgb, alpha, background=(0, 0, 0)).convert("L")


def to_latent_grid(weights: Weights, placement: Placement, *, factor: int = 8) -> Tensor:
    """Cut and shrink weights of a whole picture as the picture is, averaging over area -> `(1, h/factor, w/factor)`.

    A mask may have another size than its picture: it is laid over it from edge to edge. HCP goes through a cubic
    resize to the bucket and a bilinear one to the latents; the mean over each latent's own area keeps the sum. What
    lies beside a picture that does not fill its bucket weighs 0.
    """
    size = (placement.bucket.width_px // factor, placement.bucket.height_px // factor)
    if placement.covers:
        height, width = weights.shape
        across, down = width / placement.resized_px[0], height / placement.resized_px[1]
        left, top, right, bottom = placement.box_px
        box = (left * across, top * down, min(right * across, float(width)), min(bottom * down, float(height)))
        picture = _floats(weights)
    else:
        picture = Image.new("F", (placement.bucket.width_px, placement.bucket.height_px), 0.0)
        resized = _floats(weights).resize(placement.resized_px, Image.Resampling.BILINEAR)
        picture.paste(resized, (-placement.left_px, -placement.top_px))
        box = (0.0, 0.0, float(picture.width), float(picture.height))
    shrunk = picture.resize(size, Image.Resampling.BOX, box=box)
    return torch.from_numpy(np.array(shrunk, dtype=np.float32))[None].clamp_min_(0.0)


def to_latent_grid_by_nearest(weights: Weights, placement: Placement, *, factor: int = 8) -> Tensor:
    """The same by every eighth pixel, as cloneofsimo does it."""
    resized = np.array(_floats(weights).resize(placement.resized_px, Image.Resampling.BILINEAR), dtype=np.float32)
    return cut_out(torch.from_numpy(resized)[None], placement)[:, ::factor, ::factor]


def to_latent_grid_as_hcp(weights: Weights, placement: Placement, *, factor: int = 8) -> Tensor:
    """The same as HCP does it: cubic to the resized picture, cut, bilinear (of four neighbours) to the latents.

    hcpdiff/data/utils.py, `resize_crop_fix`, and crop_info_dataset.py, 404f0e8; OpenCV's two interpolations are
    torch's. What the cubic one overshoots below 0 is 0 here.
    """
    whole = torch.from_numpy(np.ascontiguousarray(weights, dtype=np.float32))[None, None]
    width, height = placement.resized_px
    if tuple(whole.shape[-2:]) != (height, width):
        whole = functional.interpolate(whole, size=(height, width), mode="bicubic", align_corners=False)
    cut = cut_out(whole[0], placement)
    size = (placement.bucket.height_px // factor, placement.bucket.width_px // factor)
    return functional.interpolate(cut[None], size=size, mode="bilinear", align_corners=False)[0].clamp_min_(0.0)


def with_temperature(weights: Tensor, temperature: float) -> Tensor:
    """cloneofsimo's masks: m = (v + 0.01)^temperature, by its largest; prediction and target are multiplied by it, so
    that a squared error weighs m².

    https://github.com/cloneofsimo/lora, lora_diffusion/cli_lora_pti.py, `loss_step`, d84074b; there by the largest of
    the batch, here of the picture, so that a picture's loss does not depend on its neighbours.
    """
    powered = (weights + 0.01).pow(temperature)
    return (powered / powered.max()).square()


def cut_out(resized: Tensor, placement: Placement, *, beside: float = 0.0) -> Tensor:
    """A resized picture `(channels, height, width)` as it lies in its bucket; `beside` where it does not reach."""
    bucket = placement.bucket
    left, top, right, bottom = placement.box_px
    if placement.covers:
        return resized[:, top:bottom, left:right]
    cut = torch.full((resized.shape[0], bucket.height_px, bucket.width_px), beside, dtype=resized.dtype)
    x0, y0, x1, y1 = placement.shown_px
    cut[:, y0:y1, x0:x1] = resized[:, y0 + top : y1 + top, x0 + left : x1 + left]
    return cut


def shown_area(placement: Placement, *, factor: int = 8) -> Tensor | None:
    """Where a picture that does not fill its bucket counts, `(1, h/factor, w/factor)` with a mean of 1; else None.

    Custom Diffusion's valid area: one latent inside the picture's border (src/diffusers_data_pipeline.py, 7c19c9a), for
    what lies beside it reaches across; where the picture ends with the bucket there is nothing beside it. Of a picture
    too small for that, every latent that it touches.
    """
    if placement.covers:
        return None
    left, top, right, bottom = placement.shown_px
    area = torch.zeros(1, placement.bucket.height_px // factor, placement.bucket.width_px // factor)
    rows = _inside(top, bottom, placement.bucket.height_px, factor)
    columns = _inside(left, right, placement.bucket.width_px, factor)
    area[:, rows, columns] = 1.0
    return area / area.mean()


def _inside(begin: int, end: int, length: int, factor: int) -> slice:
    first = 0 if begin == 0 else begin // factor + 1
    last = length // factor if end == length else end // factor - 1
    return slice(first, last) if last > first else slice(begin // factor, -(-end // factor))


def latent_mask(
    grey: Image.Image | None,
    alpha: Image.Image | None,
    *,
    placement: Placement,
    scale: MaskScale = "linear",
    minimum: float = 0.0,
    normalise: bool = True,
    temperature: float = 1.0,
    flip: bool = False,
) -> Tensor | None:
    """The weights of a picture's latents, `(1, h, w)`: mask file times alpha (always linear), within the shown area.

    None where there is nothing to weigh. `minimum` is the weight of what is masked away; `normalise` scales to a mean
    of 1, so that a picture with a small mask counts like any other. `hcp_exact` and `cloneofsimo` are as in their
    sources, without minimum and scaling.
    """
    if not 0.0 <= minimum <= 1.0:
        raise DataError(f"minimum = {minimum}: the weight of masked parts is from 0 to 1.")
    exact = grey is not None and scale in ("hcp_exact", "cloneofsimo")
    result: Tensor | None = None
    if grey is not None:
        weights = grey_to_weight(np.asarray(grey), scale=scale)
        shrink = {"hcp_exact": to_latent_grid_as_hcp, "cloneofsimo": to_latent_grid_by_nearest}
        result = shrink.get(scale, to_latent_grid)(weights, placement)
        if scale == "cloneofsimo":
            result = with_temperature(result, temperature)
    if alpha is not None:
        seen = to_latent_grid(grey_to_weight(np.asarray(alpha), scale="linear"), placement)
        result = seen if result is None else result * seen
    if result is not None and not exact:
        result = result.clamp_min(minimum)
    area = shown_area(placement)
    if area is not None:
        result = area if result is None else result * area
    if result is None:
        return None
    if normalise and not exact:
        result = normalised(result)
    return result.flip(-1).contiguous() if flip else result


def inpaint_hole(grey: Image.Image | None, *, placement: Placement) -> Tensor:
    """What an inpainting checkpoint is to paint, `(1, height, width)` of 0 and 1 in pixels: where the mask is brighter
    than mid-grey; all of it without a mask, as the web UI's txt2img has it."""
    if grey is None:
        return torch.ones(1, placement.bucket.height_px, placement.bucket.width_px)
    resized = grey.resize(placement.resized_px, Image.Resampling.LANCZOS)
    values = torch.from_numpy(np.asarray(resized, dtype=np.float32) / 255.0).round()[None]
    return cut_out(values, placement, beside=1.0)


def _floats(weights: Weights) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(weights, dtype=np.float32), mode="F")


def normalised(weights: Tensor) -> Tensor:
    """Weights scaled to a mean of 1; a mask that is black everywhere cannot be."""
    mean = float(weights.mean())
    if mean < 1e-4:
        raise DataError(
            "the mask is black wherever the picture is trained. Paint what counts in white, or delete the mask"
        )
    return weights / mean


SHAPE_TOLERANCE = 0.02
"""How far the shapes of a mask and its picture may be apart: a mask is laid over its picture from edge to edge."""


def mask_place(picture: Path) -> Path:
    """Where a picture's painted mask is: `mask/NAME.png` beside it, which comes before all other places."""
    wanted = MASK_FOLDERS[0]
    folders = (path for path in picture.parent.iterdir() if path.is_dir() and path.name.lower() == wanted)
    return next(folders, picture.parent / wanted) / f"{picture.stem}.png"


def save_mask(picture: Path, painted: Image.Image) -> Path:
    """Write `painted` (grey counts as it is, transparent is black) as the mask of `picture`; returns its place.

    The file is there whole or not at all; a mask that was there is replaced.
    Raises DataError if the shapes differ or the place cannot be written.
    """
    facts = inspect(picture)
    shape, wanted = painted.width / painted.height, facts.width_px / facts.height_px
    if abs(shape / wanted - 1.0) > SHAPE_TOLERANCE:
        raise DataError(
            f"{picture.name}: a mask of {painted.width}x{painted.height} px does not fit a picture of "
            f"{facts.width_px}x{facts.height_px} px. Paint over the full picture."
        )
    rgba = painted.convert("RGBA")
    grey = flatten(rgba.convert("RGB"), rgba.getchannel("A"), background=(0, 0, 0)).convert("L")
    place = mask_place(picture)
    try:
        place.parent.mkdir(exist_ok=True)
        with replacing(place) as temporary:
            grey.save(temporary, format="PNG")
    except OSError as error:
        raise DataError(
            f"{place}: the mask cannot be written ({error.strerror}). Fix the folder's permissions."
        ) from error
    return place


def paint(
    now: Image.Image | None, strokes: Image.Image, *, weight: float, rest: float, size: tuple[int, int]
) -> Image.Image:
    """A mask of `size` (width, height) in px: `now` where it is given, else grey of `rest`; `weight` under the strokes.

    Weights are grey from 0 (black) to 1 (white); strokes are what is brighter than mid-grey, whatever their own size.
    """
    grey = Image.new("L", size, round(255 * rest)) if now is None else now.convert("L").resize(size)
    under = strokes.convert("L").resize(size).point(lambda value: 255 if value > 127 else 0)
    grey.paste(round(255 * weight), (0, 0, *size), under)
    return grey


def heat_map(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """The picture in grey, redder where the mask is brighter."""
    weights = mask.convert("L").resize(picture.size)
    grey = picture.convert("L").convert("RGB")
    return Image.composite(Image.blend(grey, Image.new("RGB", picture.size, (255, 40, 0)), 0.6), grey, weights)


def remove_mask(picture: Path) -> bool:
    """Take a painted mask away again; False where there was none. Masks in other places stay."""
    place = mask_place(picture)
    if not place.exists():
        return False
    place.unlink()
    return True
