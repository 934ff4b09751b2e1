"""The unusual traits as shapes: what the characters have and the base world never shows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from examples.avatars.brush import INK, TRAIT, Colour, Pen, Point, mirrored, shade

if TYPE_CHECKING:
    from examples.avatars.world import Traits


def behind(pen: Pen, traits: Traits) -> None:
    """Headgear that stands behind the hair."""
    colour = TRAIT[traits.headgear_colour]
    if traits.headgear == "fins":
        fin: list[Point] = [(13, -8), (30, -18), (26, -8), (31, -1), (25, 4), (27, 12), (14, 9)]
        for points in (fin, mirrored(fin)):
            pen.shape(points, colour, curved=False)
        web: list[Point] = [(15, -4), (25, -11), (21, -5), (24, 1), (20, 3), (21, 8), (15, 6)]
        for points in (web, mirrored(web)):
            pen.shape(points, shade(colour, -0.35), curved=False)


def before(pen: Pen, traits: Traits) -> None:
    """Headgear that stands on the hair."""
    colour = TRAIT[traits.headgear_colour]
    if traits.headgear == "cat":
        ear: list[Point] = [(3.5, -18), (16, -31), (19.5, -9)]
        inner: list[Point] = [(8, -18), (14.6, -25.5), (16.6, -12.5)]
        for points in (ear, mirrored(ear)):
            pen.shape(points, colour, curved=False)
        for points in (inner, mirrored(inner)):
            pen.shape(points, shade(colour, -0.45), curved=False)
    elif traits.headgear == "bunny":
        ear: list[Point] = [(5, -14), (3, -24), (8, -32.5), (14, -26), (14, -14)]
        inner: list[Point] = [(7.4, -17), (6.4, -23), (8.6, -28.5), (11, -24), (11, -17)]
        for points in (ear, mirrored(ear)):
            pen.shape(points, colour)
        for points in (inner, mirrored(inner)):
            pen.shape(points, (250, 150, 170))
    elif traits.headgear == "horns":
        horn: list[Point] = [(7, -17), (13, -20), (16, -26), (14, -33), (22, -27), (22.5, -18), (15, -11)]
        for points in (horn, mirrored(horn)):
            pen.shape(points, colour)
    elif traits.headgear == "halo":
        pen.ring(0, -23, 17, 5.6, 3.4, colour)
    elif traits.headgear == "antennae":
        for side in (-1, 1):
            pen.line([(side * 5, -18), (side * 8, -25), (side * 13, -28)], 2.2, INK)
            pen.oval(side * 14, -28, 4.6, 4.6, colour)
    elif traits.headgear == "crown":
        pen.shape([(-12, -14), (-14, -28), (-6, -21), (0, -31), (6, -21), (14, -28), (12, -14)], colour, curved=False)
        pen.shape([(-12, -14), (-12.4, -18), (12.4, -18), (12, -14)], shade(colour, -0.3), curved=False)
    elif traits.headgear == "sprout":
        pen.line([(0, -17), (0, -22)], 2.6, shade(colour, -0.35))
        leaf: list[Point] = [(0, -21), (5, -30), (16, -29), (12, -21)]
        pen.shape(leaf, colour)
        pen.shape(mirrored(leaf), shade(colour, -0.2))


def mark(pen: Pen, kind: str, colour: Colour, skin: Colour) -> None:
    """A mark on the cheek at the picture's left, about ten pixels big."""
    x, y, r = -8.9, 10.2, 5.0
    if kind == "star":
        points = []
        for i in range(10):
            radius = r * 1.12 if i % 2 == 0 else r * 0.5
            angle = math.radians(-90 + 36 * i)
            points.append((x + radius * math.cos(angle), y + radius * math.sin(angle)))
        pen.shape(points, colour, curved=False)
    elif kind == "heart":
        pen.oval(x - 2.2, y - 1.6, 2.7, 2.7, colour)
        pen.oval(x + 2.2, y - 1.6, 2.7, 2.7, colour)
        pen.shape([(x - 4.7, y - 0.6), (x + 4.7, y - 0.6), (x, y + 5)], colour, curved=False)
    elif kind == "moon":
        pen.oval(x, y, r, r, colour)
        pen.oval(x + 2.6, y - 1, r * 0.74, r * 0.8, skin)
    elif kind == "cross":
        pen.line([(x, y - 3.6), (x, y + 3.6)], 3.0, colour)
        pen.line([(x - 3.6, y), (x + 3.6, y)], 3.0, colour)
    else:
        for side in (-1, 1):
            for step in (0, 1):
                pen.line([(side * 14.5, 7.4 + 4 * step), (side * 7.4, 8.8 + 3 * step)], 2.2, colour)


def cape(pen: Pen, colour: Colour) -> None:
    """A cape over both shoulders with a raised collar, open in the middle."""
    half: list[Point] = [(3, 20), (14, 17), (24, 22), (31, 36), (34, 62), (11, 62), (9, 36)]
    collar: list[Point] = [(4, 21), (19, 9), (25, 12), (20, 25), (10, 27)]
    for points in (half, mirrored(half)):
        pen.shape(points, colour, curved=False)
    for points in (collar, mirrored(collar)):
        pen.shape(points, shade(colour, -0.38), curved=False)
    pen.oval(0, 22.5, 3.6, 3.6, (255, 214, 70))


def eye_patch(pen: Pen, colour: Colour) -> None:
    """A patch over the eye at the picture's right, with its strap."""
    pen.line([(-17, -14), (17, 3)], 2.6, colour)
    pen.shape([(1.6, -3.5), (13.8, -3.5), (14.4, 3), (8, 9.6), (2.2, 4)], colour)
