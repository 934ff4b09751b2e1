"""Colours, and the pen that draws in portrait units (one unit: one pixel of a 64-pixel picture at medium scale)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

HAIR: dict[str, Colour] = {
    "black": (44, 42, 56),
    "brown": (124, 76, 44),
    "blonde": (248, 212, 92),
    "red": (206, 52, 42),
    "blue": (58, 104, 222),
    "green": (56, 164, 84),
    "pink": (248, 142, 188),
}
TRAIT: dict[str, Colour] = {
    "white": (246, 246, 250),
    "orange": (255, 138, 24),
    "purple": (146, 62, 206),
    "cyan": (54, 214, 232),
    "lime": (168, 232, 40),
    "crimson": (222, 18, 68),
    "gold": (255, 206, 36),
    "navy": (28, 36, 112),
}
EYES: dict[str, Colour] = {
    "blue": (44, 118, 246),
    "green": (30, 172, 76),
    "brown": (136, 78, 30),
    "red": (222, 34, 44),
    "purple": (150, 66, 220),
    "gold": (255, 196, 20),
    "cyan": (40, 214, 232),
}
SKIN: dict[str, Colour] = {"fair": (255, 228, 208), "tan": (232, 176, 128), "dark": (146, 94, 64)}
SHIRT: dict[str, Colour] = {
    "white": (240, 240, 244),
    "red": (224, 56, 56),
    "blue": (52, 102, 210),
    "green": (54, 156, 88),
    "yellow": (250, 204, 56),
    "black": (52, 50, 62),
}
INK: Colour = (42, 30, 44)


def shade(colour: Colour, amount: float) -> Colour:
    """The colour darker (`amount` below 0, towards a cool dark) or lighter (above 0, towards white)."""
    target = (255, 255, 255) if amount > 0 else (36, 20, 60)
    return tuple(round(c + (t - c) * abs(amount)) for c, t in zip(colour, target, strict=True))  # type: ignore[return-value]


def smooth(points: Sequence[Point], steps: int = 8) -> list[Point]:
    """A closed Catmull-Rom curve through `points`."""
    count = len(points)
    curve: list[Point] = []
    for i in range(count):
        a, b, c, d = (points[(i + k) % count] for k in (-1, 0, 1, 2))
        for j in range(steps):
            t = j / steps
            curve.append(
                tuple(  # type: ignore[arg-type]
                    0.5
                    * (2 * q + (r - p) * t + (2 * p - 5 * q + 4 * r - s) * t * t + (3 * q - p - 3 * r + s) * t * t * t)
                    for p, q, r, s in zip(a, b, c, d, strict=True)
                )
            )
    return curve


def shade_towards(colour: Colour, target: Colour, amount: float) -> Colour:
    """The mixture of two colours, `amount` of it the second."""
    return tuple(round(c + (t - c) * amount) for c, t in zip(colour, target, strict=True))  # type: ignore[return-value]


def mirrored(points: Sequence[Point]) -> list[Point]:
    """The points at the other side of the face."""
    return [(-x, y) for x, y in points]


@dataclass
class Pen:
    """Draws portrait units on one canvas, colour (`RGB`) or mask (`L`)."""

    image: Image.Image
    scale: float
    origin: Point
    draw: ImageDraw.ImageDraw = field(init=False)

    def __post_init__(self) -> None:
        self.draw = ImageDraw.Draw(self.image)

    def place(self, points: Sequence[Point]) -> list[Point]:
        return [(self.origin[0] + x * self.scale, self.origin[1] + y * self.scale) for x, y in points]

    def shape(self, points: Sequence[Point], fill: Colour | int, *, curved: bool = True) -> None:
        self.draw.polygon(self.place(smooth(points) if curved else points), fill=fill)

    def oval(self, x: float, y: float, rx: float, ry: float, fill: Colour | int) -> None:
        (left, top), (right, bottom) = self.place([(x - rx, y - ry), (x + rx, y + ry)])
        self.draw.ellipse((left, top, right, bottom), fill=fill)

    def ring(self, x: float, y: float, rx: float, ry: float, width: float, fill: Colour | int) -> None:
        (left, top), (right, bottom) = self.place([(x - rx, y - ry), (x + rx, y + ry)])
        self.draw.ellipse((left, top, right, bottom), outline=fill, width=round(width * self.scale))

    def line(self, points: Sequence[Point], width: float, fill: Colour | int) -> None:
        placed = self.place(points)
        thick = width * self.scale
        self.draw.line(placed, fill=fill, width=round(thick), joint="curve")
        for x, y in (placed[0], placed[-1]):
            self.draw.ellipse((x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), fill=fill)

    def on_mask(self) -> Pen:
        """A pen with the same place on an empty mask."""
        return Pen(Image.new("L", self.image.size, 0), self.scale, self.origin)
