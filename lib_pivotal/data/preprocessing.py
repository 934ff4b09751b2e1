"""A picture as it is trained: opened, laid over its background, resized, cut, mirrored, with its mask."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from PIL import Image
from torch import Tensor

from lib_pivotal.data.buckets import Placement
from lib_pivotal.data.masks import MaskScale, cut_out, inpaint_hole, latent_mask, read_mask
from lib_pivotal.data.pictures import Colour, Transparency, background, file_sha256, flatten, open_rgba
from lib_pivotal.data.records import Picture
from lib_pivotal.errors import DataError


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """`pixels` `(3, height, width)` in [-1, 1]; `mask` `(1, h/8, w/8)` weights of the latents or None; `hole`
    `(1, height, width)` of 0 and 1, for inpainting checkpoints only."""

    pixels: Tensor
    mask: Tensor | None = None
    hole: Tensor | None = None

    def holed(self) -> Tensor:
        """The pixels with mid-grey in the hole."""
        assert self.hole is not None
        return self.pixels * (1.0 - self.hole)

    def inpaint(self, latents: Tensor) -> Tensor:
        """The hole at the latents' size (nearest, as the web UI has it), then `latents` of the holed picture."""
        assert self.hole is not None
        hole = functional.interpolate(self.hole[None], size=latents.shape[-2:])[0]
        return torch.cat([hole.to(latents), latents])


class ImagePreprocessor:
    """Makes frames, and tells what each depends on.

    `own` says by key what stands behind transparent pixels and how masks are read, where that is not as for all.
    """

    def __init__(
        self,
        *,
        transparency: Transparency = "white",
        masks: MaskScale | None = None,
        mask_minimum: float = 0.0,
        mask_normalise: bool = True,
        mask_temperature: float = 1.0,
        inpainting: bool = False,
        own: Mapping[str, tuple[Transparency, MaskScale | None]] | None = None,
        seed: int = 0,
    ) -> None:
        self._common, self._own = (transparency, masks), dict(own or {})
        self._mask_minimum, self._mask_normalise, self._mask_temperature = (
            mask_minimum,
            mask_normalise,
            mask_temperature,
        )
        self._inpainting, self._seed = inpainting, seed

    @property
    def inpainting(self) -> bool:
        """Whether frames have holes."""
        return self._inpainting

    def content(self, picture: Picture) -> dict[str, Any]:
        """What a frame depends on but for its place: files, hashed as they are now, not as they were scanned."""
        transparency, masks = self._own.get(picture.key, self._common)
        facts: dict[str, Any] = {"picture": file_sha256(picture.path)}
        if picture.has_alpha:
            facts["background"] = self._background(picture.key)
            facts["alpha_mask"] = transparency == "mask"
        if masks is not None and picture.mask_path is not None:
            facts["mask"] = [file_sha256(picture.mask_path), masks]
        facts["mask_weights"] = [self._mask_minimum, self._mask_normalise, self._mask_temperature]
        if self._inpainting:
            facts["hole"] = "" if picture.mask_path is None else file_sha256(picture.mask_path)
        return facts

    @staticmethod
    def facts(content: Mapping[str, Any], placement: Placement, *, flip: bool) -> dict[str, Any]:
        """All that a frame depends on, as plain values."""
        facts = {**content, "resized": placement.resized_px, "box": placement.box_px, "flip": flip}
        if not ("mask" in facts or facts.get("alpha_mask") or not placement.covers):
            facts.pop("mask_weights", None)  # nothing is weighed
        return facts

    def frame(self, picture: Picture, placement: Placement, *, flip: bool) -> PreparedImage:
        """The picture as it lies in its bucket.

        Raises:
            DataError: it cannot be read, is not as it was scanned, or its mask is black.
        """
        rgb, alpha = open_rgba(picture.path)
        if rgb.size != (picture.width_px, picture.height_px):
            raise DataError(
                f"its size is now {rgb.size[0]}x{rgb.size[1]} px, not {picture.width_px}x"
                f"{picture.height_px} px as scanned. Scan the folder again"
            )
        transparency, masks = self._own.get(picture.key, self._common)
        wanted = (masks is not None or self._inpainting) and picture.mask_path is not None
        grey = read_mask(picture.mask_path) if wanted and picture.mask_path is not None else None
        mask = latent_mask(
            grey if masks is not None else None,
            alpha if transparency == "mask" else None,
            placement=placement,
            scale=masks or "linear",
            minimum=self._mask_minimum,
            normalise=self._mask_normalise,
            temperature=self._mask_temperature,
            flip=flip,
        )
        hole = inpaint_hole(grey, placement=placement) if self._inpainting else None
        pixels = _pixels(flatten(rgb, alpha, background=self._background(picture.key)), placement)
        if flip:
            pixels, hole = pixels.flip(-1), None if hole is None else hole.flip(-1)
        return PreparedImage(pixels, mask, hole)

    def _background(self, key: str) -> Colour:
        return background(self._own.get(key, self._common)[0], random.Random(f"{self._seed}/background/{key}"))


def _pixels(rgb: Image.Image, placement: Placement) -> Tensor:
    """Resized and cut; mid-grey, which is 0, where the picture does not reach."""
    resized = rgb.resize(placement.resized_px, Image.Resampling.LANCZOS)
    if placement.covers:
        resized = resized.crop(placement.box_px)
        return _scaled(resized)
    return cut_out(_scaled(resized), placement)


def _scaled(rgb: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1).float().div_(127.5).sub_(1.0)
