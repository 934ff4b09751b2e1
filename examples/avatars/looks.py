"""Looks: what a drawing style makes of a plain drawing. All work on the oversampled canvas and are deterministic."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter

if TYPE_CHECKING:
    from examples.avatars.world import Avatar

PAPER = (246, 234, 206)


def apply(look: str, drawing: Image.Image, figure: Image.Image, features: Image.Image, avatar: Avatar) -> Image.Image:
    """The drawing in another look.

    `figure` is the mask of all that is not background, `features` of eyes and mouth, which have lines of their own.
    """
    if look == "outlined":
        return outlined(drawing, figure, features)
    if look == "watercolour":
        return watercolour(drawing, figure, seed=zlib.crc32(repr(avatar).encode()))
    if look == "retro":
        return retro(drawing, figure)
    return drawing


def outlined(drawing: Image.Image, figure: Image.Image, features: Image.Image) -> Image.Image:
    """Thick dark contours around flat colours on tinted paper."""
    paper = Image.new("RGB", drawing.size, PAPER)
    flat = Image.composite(Image.blend(drawing, paper, 0.2), Image.blend(drawing, paper, 0.68), figure)
    flat.paste(drawing, (0, 0), features)
    edges = ImageChops.subtract(drawing.filter(ImageFilter.MaxFilter(3)), drawing.filter(ImageFilter.MinFilter(3)))
    red, green, blue = edges.split()
    strongest = ImageChops.lighter(red, ImageChops.lighter(green, blue)).point(lambda v: 255 if v > 48 else 0)
    inside = ImageChops.subtract(ImageChops.multiply(strongest, figure), features)
    rim = ImageChops.subtract(figure.filter(ImageFilter.MaxFilter(5)), figure.filter(ImageFilter.MinFilter(3)))
    flat.paste((26, 20, 30), (0, 0), ImageChops.lighter(inside, rim))
    return flat


def watercolour(drawing: Image.Image, figure: Image.Image, *, seed: int) -> Image.Image:
    """A soft blotchy pastel wash that leaves the paper white at the borders."""
    size = drawing.width
    rng = np.random.default_rng(seed)
    wet = drawing.filter(ImageFilter.GaussianBlur(size / 160))
    pastel = np.asarray(Image.blend(wet, Image.new("RGB", drawing.size, (255, 252, 246)), 0.36), np.float32)
    blotches = _clouds(rng, size, 9)[..., None]
    tint = np.stack([_clouds(rng, size, 5) for _ in range(3)], -1)
    washed = pastel + 34 * blotches + 16 * tint
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    ragged = np.clip((0.5 - np.maximum(np.abs(x), np.abs(y)) + 0.05 * _clouds(rng, size, 12)) / 0.11, 0, 1)[..., None]
    inside = np.asarray(figure, np.float32)[..., None] / 255
    keep = np.maximum(ragged, 0.55 * inside)
    out = washed * keep + 253 * (1 - keep)
    return Image.fromarray(np.clip(out, 0, 255).astype(np.uint8), "RGB")


def _clouds(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Smooth noise in -1..1, `(size, size)`, with `cells` blotches a side."""
    seed = Image.fromarray(rng.integers(0, 256, (cells, cells), dtype=np.uint8), "L")
    return np.asarray(seed.resize((size, size), Image.Resampling.BICUBIC), np.float32) / 127.5 - 1


def retro(drawing: Image.Image, figure: Image.Image) -> Image.Image:
    """An old poster: rays behind a hard shadow, muted warm inks, a cream border."""
    size = drawing.width
    muted = np.asarray(ImageEnhance.Color(drawing).enhance(0.72), np.float32)
    warm = (muted * 0.88 + 18) * np.array([1.0, 0.93, 0.78], np.float32)
    poster = Image.fromarray((np.round(warm / 17) * 17).clip(0, 255).astype(np.uint8), "RGB")
    rays = Image.new("L", drawing.size, 0)
    pen = ImageDraw.Draw(rays)
    for i in range(12):
        pen.pieslice((-size, -size * 0.9, size * 2, size * 2.1), i * 30, i * 30 + 15, fill=110)
    scene = poster.copy()
    scene.paste((70, 40, 30), (0, 0), rays)
    shadow = ImageChops.offset(figure, round(size * 0.05), round(size * 0.03))
    scene.paste((52, 34, 44), (0, 0), shadow)
    out = Image.composite(poster, scene, figure)
    pen = ImageDraw.Draw(out)
    pen.rectangle((0, 0, size - 1, size - 1), outline=(250, 236, 204), width=round(size * 0.045))
    return out
