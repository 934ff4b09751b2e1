"""Avatars as pictures: flat, outline-free portraits, drawn with Pillow at four times the size.

Figures are drawn in *portrait units*: one unit is one pixel of a 64-pixel picture at medium scale, the origin is the
middle of the face, y goes down. `brush.Pen` turns them into canvas pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL import Image, ImageChops

from examples.avatars import looks, oddities
from examples.avatars.brush import (
    EYES,
    HAIR,
    INK,
    SHIRT,
    SKIN,
    TRAIT,
    Colour,
    Pen,
    Point,
    mirrored,
    shade,
    shade_towards,
    smooth,
)

if TYPE_CHECKING:
    from examples.avatars.world import Avatar, Traits

OVERSAMPLING = 4
LOOKS = ("plain", "outlined", "watercolour", "retro")

SCALE = {"medium": 1.0, "close": 1.22, "far": 0.76}
SHIFT = {"centre": 0.0, "left": -10.0, "right": 10.0}
MIDDLE_Y = {"medium": 32.5, "close": 36.5, "far": 36.0}


# --- backgrounds ------------------------------------------------------------------------------------------------------


def background(kind: str, size: int) -> Image.Image:
    """The scene behind the portrait, `size` pixels square."""
    image = Image.new("RGB", (size, size), {"white": (248, 247, 244), "purple": (196, 170, 236)}.get(kind, (0, 0, 0)))
    pen = Pen(image, size / 64, (0, 0))
    if kind == "sky":
        bands(pen, [(104, 182, 246), (132, 200, 250), (168, 220, 252)])
        for x, y, r in ((8, 14, 6), (16, 11, 8), (24, 15, 6), (48, 26, 7), (56, 23, 8), (63, 27, 7)):
            pen.oval(x, y, r, r * 0.8, (255, 255, 255))
    elif kind == "park":
        bands(pen, [(196, 234, 240), (196, 234, 240), (112, 192, 88)])
        for x, y in ((6, 26), (58, 24), (32, 22)):
            pen.shape([(x - 2, y), (x + 2, y), (x + 2, y + 24), (x - 2, y + 24)], (118, 82, 56), curved=False)
            pen.oval(x, y - 6, 12, 13, (64, 150, 72))
            pen.oval(x - 3, y - 10, 6, 6, (88, 176, 88))
        pen.oval(32, 62, 60, 20, (112, 192, 88))
    elif kind == "night":
        bands(pen, [(24, 26, 66), (34, 36, 88), (50, 50, 112)])
        pen.oval(53, 11, 7.5, 7.5, (255, 240, 176))
        pen.oval(49.5, 9, 6.5, 6.5, (24, 26, 66))
        for x, y in ((7, 8), (20, 5), (35, 8), (5, 27), (60, 32), (12, 42), (57, 48)):
            pen.shape([(x, y - 3), (x + 1, y), (x, y + 3), (x - 1, y)], (255, 246, 204), curved=False)
            pen.shape([(x - 3, y), (x, y + 1), (x + 3, y), (x, y - 1)], (255, 246, 204), curved=False)
    elif kind == "sunset":
        bands(pen, [(196, 76, 120), (236, 110, 84), (250, 162, 72), (255, 208, 96)])
        pen.oval(32, 50, 26, 26, (255, 232, 140))
        pen.shape([(-1, 54), (20, 50), (44, 53), (65, 49), (65, 65), (-1, 65)], (122, 52, 96), curved=False)
    return image


def bands(pen: Pen, colours: Sequence[Colour]) -> None:
    """Horizontal bands from top to bottom, equally high, over the whole picture."""
    for i, colour in enumerate(colours):
        top = 64 * i / len(colours)
        pen.shape([(-1, top), (65, top), (65, 65), (-1, 65)], colour, curved=False)


# --- hair -------------------------------------------------------------------------------------------------------------

CAP: list[Point] = [(-17.5, 2), (-18.5, -8), (-12.5, -18), (0, -21.5), (12.5, -18), (18.5, -8), (17.5, 2)]


def back_hair(pen: Pen, style: str) -> None:
    """What lies behind the face."""
    if style == "long":
        pen.shape(
            [
                (0, -21),
                (14, -18),
                (20, -6),
                (21, 12),
                (25, 34),
                (12, 38),
                (-12, 38),
                (-25, 34),
                (-21, 12),
                (-20, -6),
                (-14, -18),
            ],
            255,
        )
    elif style == "bob":
        pen.shape(
            [
                (0, -22),
                (14, -19),
                (21, -6),
                (23, 8),
                (20, 15),
                (10, 15),
                (-10, 15),
                (-20, 15),
                (-23, 8),
                (-21, -6),
                (-14, -19),
            ],
            255,
        )
    elif style == "twintails":
        tail = [(14, -11), (20, -15), (27, -8), (30, 6), (27, 20), (21, 29), (20, 18), (19, 4), (15, -4)]
        pen.shape(tail, 255)
        pen.shape(mirrored(tail), 255)
    elif style == "spiky":
        spikes: list[Point] = []
        for i in range(11):
            angle = math.radians(-212 + i * 24.4)
            near = math.radians(-212 + (i + 0.5) * 24.4)
            spikes.append((27 * math.cos(angle), -3 + 27 * math.sin(angle)))
            if i < 10:
                spikes.append((18 * math.cos(near), -3 + 18 * math.sin(near)))
        pen.shape([*spikes, (14, 8), (-14, 8)], 255, curved=False)
    else:
        pen.oval(0, -4, 18, 16, 255)


def front_hair(pen: Pen, style: str) -> None:
    """The fringe, the top of the head and what hangs before the ears."""
    if style == "long":
        lock = [
            (0, -21.5),
            (12.5, -18),
            (19, -8),
            (19.5, 8),
            (17, 19),
            (14.5, 8),
            (12.5, -1),
            (7, -5.5),
            (1, -12),
            (-1, -17),
        ]
        pen.shape(lock, 255)
        pen.shape(mirrored(lock), 255)
    elif style == "bob":
        pen.shape(
            [*CAP, (17.5, 9), (13.5, 8), (13, -4), (6, -3.2), (0, -3), (-6, -3.2), (-13, -4), (-13.5, 8), (-17.5, 9)],
            255,
        )
    elif style == "twintails":
        fringe = [(14.5, 5), (12.5, -5), (8, -8), (5, -2.5), (1, -8), (-4, -2.5), (-8, -8), (-12.5, -5), (-14.5, 5)]
        pen.shape(smooth(CAP)[:-8] + fringe, 255, curved=False)
        for side in (-1, 1):
            pen.oval(side * 16.5, -10, 3.2, 3.2, 255)
    elif style == "spiky":
        pen.shape(
            [*CAP, (15, -2), (11, -9), (8, -1), (3, -10), (-2, -2), (-6, -10), (-11, -2), (-14, -8)], 255, curved=False
        )
    else:
        fringe = [
            (16.5, 7),
            (14, 6),
            (13.5, -3),
            (9, -8),
            (5, -4),
            (0, -9),
            (-5, -3),
            (-9, -7),
            (-13, -1),
            (-14, 6),
            (-16.5, 7),
        ]
        pen.shape(smooth(CAP)[:-8] + fringe, 255, curved=False)


def hair_paint(pen: Pen, hair: str, traits: Traits) -> Image.Image:
    """The colours of all hair on the whole canvas, to be seen through a mask of hair shapes."""
    base = HAIR[hair]
    paint = Pen(Image.new("RGB", pen.image.size, base), pen.scale, pen.origin)
    second = TRAIT[traits.hair_second]
    if traits.hair_split == "half":
        paint.shape([(0, -60), (80, -60), (80, 90), (0, 90)], second, curved=False)
    elif traits.hair_split == "tips":
        paint.shape([(-80, 2), (80, 2), (80, 90), (-80, 90)], second, curved=False)
        paint.shape([(-80, -7), (80, -7), (80, 90), (-80, 90)], second, curved=False)
    elif traits.hair_split == "streak":
        paint.shape([(-13, -40), (-4, -40), (-5, -10), (-4, 2), (-13, 2), (-14, -10)], second, curved=False)
    return paint.image


# --- the figure -------------------------------------------------------------------------------------------------------


def body(pen: Pen, avatar: Avatar) -> None:
    """Shoulders, shirt and neck."""
    shirt, skin = SHIRT[avatar.shirt], SKIN[avatar.skin]
    pen.shape([(-7, 17), (7, 17), (18, 20), (24, 28), (26, 60), (-26, 60), (-24, 28), (-18, 20)], shirt)
    for side in (-1, 1):
        pen.shape(
            [(side * 15, 29), (side * 17.5, 29), (side * 18.5, 62), (side * 16, 62)], shade(shirt, -0.3), curved=False
        )
    pen.shape([(-6, 10), (6, 10), (8, 18.5), (0, 25), (-8, 18.5)], shade(skin, -0.22), curved=False)


def face(pen: Pen, avatar: Avatar) -> Image.Image:
    """Ears and head; the mask of the head."""
    skin = SKIN[avatar.skin]
    for side in (-1, 1):
        pen.oval(side * 15.5, 2, 3.5, 4.5, shade(skin, -0.14))
    outline = [
        (-15.5, -4),
        (-15, 5),
        (-10.5, 12),
        (0, 16),
        (10.5, 12),
        (15, 5),
        (15.5, -4),
        (11, -15),
        (0, -18),
        (-11, -15),
    ]
    pen.shape(outline, skin)
    mask = pen.on_mask()
    mask.shape(outline, 255)
    return mask.image


def eye(pen: Pen, x: float, colour: Colour, *, stern: bool) -> None:
    """One big eye: lash, iris, pupil, light."""
    y = 2.6
    pen.oval(x, y, 4.7, 6.3, INK)
    pen.oval(x, y + 0.9, 4.1, 5.2, colour)
    pen.oval(x, y + 3.2, 2.8, 2.6, shade(colour, 0.45))
    pen.oval(x, y + 0.4, 1.7, 2.4, shade(colour, -0.75))
    pen.oval(x - 1.7, y - 1.9, 1.7, 1.9, (255, 255, 255))
    if stern:
        pen.shape([(x - 5.5, y - 7), (x + 5.5, y - 7), (x + 5.2, y - 3), (x - 5.2, y - 3)], INK, curved=False)


def expression(pen: Pen, avatar: Avatar) -> None:
    """Mouth, brows and cheeks."""
    skin = SKIN[avatar.skin]
    if avatar.expression == "smile":
        for side in (-1, 1):
            pen.oval(side * 10.8, 9, 3.4, 2.2, shade_towards(skin, (255, 96, 110), 0.5))
        pen.line([(-4.6, 9.4), (-2.6, 11.3), (0, 12), (2.6, 11.3), (4.6, 9.4)], 1.7, INK)
    elif avatar.expression == "open":
        pen.shape([(-4.8, 8.6), (4.8, 8.6), (3.8, 12.6), (0, 14.6), (-3.8, 12.6)], (128, 22, 40), curved=True)
        pen.oval(0, 13, 2.8, 1.5, (250, 122, 128))
    else:
        pen.line([(-4.4, 12.6), (-2.2, 10.9), (0, 10.4), (2.2, 10.9), (4.4, 12.6)], 1.7, INK)


def brows(pen: Pen, avatar: Avatar) -> None:
    """Frowning brows, drawn over the fringe as comics do."""
    if avatar.expression == "serious":
        for side in (-1, 1):
            pen.line([(side * 11.5, -7.2), (side * 3.2, -3.4)], 2.3, INK)


def accessory(pen: Pen, kind: str) -> None:
    """Hat, glasses or scarf."""
    if kind == "hat":
        straw = (236, 190, 104)
        pen.shape([(-14, -14), (-12, -25), (0, -29), (12, -25), (14, -14)], straw)
        pen.shape([(-14.2, -15), (-13.6, -20), (0, -22), (13.6, -20), (14.2, -15)], (190, 48, 62), curved=False)
        pen.oval(0, -13, 26, 4.6, shade(straw, -0.12))
        pen.oval(0, -14, 26, 4.2, straw)
    elif kind == "glasses":
        for side in (-1, 1):
            pen.ring(side * 7.6, 2.8, 7.2, 7.6, 2.0, (20, 20, 26))
        pen.line([(-1.4, 1.5), (1.4, 1.5)], 2.0, (20, 20, 26))
    elif kind == "scarf":
        wool = (255, 128, 40)
        pen.shape([(5, 18), (12, 17), (14, 34), (6, 35)], shade(wool, -0.2), curved=False)
        pen.shape([(-15, 15), (-6, 17.5), (6, 17.5), (15, 15), (16, 20), (8, 24), (-8, 24), (-16, 20)], wool)
        for x in (-9, 0, 9):
            pen.line([(x - 1, 18.5), (x + 1, 22.5)], 1.8, shade(wool, 0.6))


def render(avatar: Avatar, size_px: int = 64, style: str = "plain") -> Image.Image:
    """The portrait as an RGB picture, `size_px` square; the same avatar and look give the same bytes."""
    if style not in LOOKS:
        raise ValueError(f"style is {style!r}; it must be one of {', '.join(LOOKS)}")
    size = size_px * OVERSAMPLING
    unit = size / 64
    scene = background(avatar.background, size)
    origin = ((32 + SHIFT[avatar.position]) * unit, MIDDLE_Y[avatar.scale] * unit)
    pen = Pen(scene.copy(), SCALE[avatar.scale] * unit, origin)
    features = figure(pen, avatar, flat=style == "outlined")
    if style == "plain":
        return pen.image.resize((size_px, size_px), Image.Resampling.BOX)
    mask = ImageChops.difference(pen.image, scene).convert("L").point(lambda v: 255 if v else 0)
    half = (size // 2, size // 2)
    drawing, mask, features = (image.resize(half, Image.Resampling.BOX) for image in (pen.image, mask, features))
    drawn = looks.apply(style, drawing, mask, features, avatar)
    return drawn.resize((size_px, size_px), Image.Resampling.BOX)


def figure(pen: Pen, avatar: Avatar, *, flat: bool = False) -> Image.Image:
    """Everything but the background, from back to front; the mask of the eyes, mouth and glasses.

    `flat` leaves out lights and shadows.
    """
    traits = avatar.traits
    paint = hair_paint(pen, avatar.hair, traits)
    oddities.behind(pen, traits)
    behind = pen.on_mask()
    back_hair(behind, avatar.hair_style)
    pen.image.paste(Image.blend(paint, Image.new("RGB", paint.size, (36, 20, 60)), 0.16), (0, 0), behind.image)
    body(pen, avatar)
    if traits.cape:
        oddities.cape(pen, TRAIT[traits.cape])
    if avatar.accessory == "scarf":
        accessory(pen, "scarf")
    head = face(pen, avatar)
    expression(pen, avatar)
    stern = avatar.expression == "serious"
    eye(pen, -7.4, EYES[avatar.eyes], stern=stern)
    eye(pen, 7.4, EYES[traits.odd_eye or avatar.eyes], stern=stern)
    if traits.mark:
        oddities.mark(pen, traits.mark, TRAIT[traits.mark_colour], SKIN[avatar.skin])
    fringe(pen, avatar, paint, head, flat=flat)
    brows(pen, avatar)
    if avatar.accessory in ("glasses", "hat"):
        accessory(pen, avatar.accessory)
    if traits.eye_patch:
        oddities.eye_patch(pen, TRAIT[traits.eye_patch])
    oddities.before(pen, traits)
    return feature_mask(pen, avatar)


def feature_mask(pen: Pen, avatar: Avatar) -> Image.Image:
    """Where the face's own lines are: a contour there would only blacken them."""
    mask = pen.on_mask()
    wide = 9.6 if avatar.accessory == "glasses" else 5.6
    for side in (-1, 1):
        if side < 0 or not avatar.traits.eye_patch:
            mask.oval(side * 7.5, 2.6, wide, wide + 0.4, 255)
    mask.oval(0, 11.2, 6.4, 4, 255)
    return mask.image


def fringe(pen: Pen, avatar: Avatar, paint: Image.Image, head: Image.Image, *, flat: bool) -> None:
    """The front hair, and unless `flat` its shadow on the face and its light."""
    mask = pen.on_mask()
    front_hair(mask, avatar.hair_style)
    if flat:
        pen.image.paste(paint, (0, 0), mask.image)
        return
    shadow = ImageChops.multiply(ImageChops.offset(mask.image, 0, round(1.5 * pen.scale)), head)
    brow = pen.on_mask()
    brow.shape([(-20, -20), (20, -20), (20, 1), (-20, 1)], 255, curved=False)
    shadow = ImageChops.multiply(shadow, brow.image).point(lambda v: v // 5)
    pen.image.paste(INK, (0, 0), shadow)
    pen.image.paste(paint, (0, 0), mask.image)
    light = pen.on_mask()
    light.ring(0, -6, 14, 10.5, 2.6, 110)
    top = pen.on_mask()
    top.shape([(-11, -30), (11, -30), (11, -11.5), (-11, -11.5)], 255, curved=False)
    gleam = ImageChops.multiply(ImageChops.multiply(light.image, mask.image), top.image)
    pen.image.paste((255, 255, 255), (0, 0), gleam)
