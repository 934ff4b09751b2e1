"""At the end of a run: its curves as PNG files in its folder, drawn with Pillow alone."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from lib_pivotal.evaluation.parts_grid import label_font
from lib_pivotal.runs.view import Curve
from lib_pivotal.training.events import Event, RunEnded, SeparationMeasured, StepDone, Validated

logger = logging.getLogger(__name__)

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 1200, 600, 90, 30, 60, 60
COLOURS = ("#e8590c", "#1c7ed6", "#2b8a3e", "#9c36b5", "#c92a2a", "#0c8599", "#a07000", "#495057")
SMOOTHED_OVER = 50

Points = list[tuple[int, float]]


class PlotsAtEnd:
    """A listener that gathers curves and writes `<name>.loss.png`, `.norms.png`, `.shares.png` and `.validation.png`
    when a run ends."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._loss: Points = []
        self._norms: dict[str, Curve] = {}  # thinned: hundreds of embeddings over a long run are millions of points
        self._shares: dict[str, Curve] = {}
        self._validation: dict[str, Curve] = {}

    def __call__(self, event: Event) -> None:
        """Take one event."""
        if isinstance(event, StepDone):
            self._loss.append((event.step, event.losses["loss"]))
            for embedding, norm in event.embedding_norms.items():
                self._norms.setdefault(embedding, Curve()).add(event.step, norm)
        elif isinstance(event, SeparationMeasured):
            for embedding, share in event.shares.items():
                self._shares.setdefault(embedding, Curve()).add(event.step, share)
        elif isinstance(event, Validated):
            for name, loss in (("held-out pictures", event.held_out_mean), ("trained pictures", event.trained_mean)):
                self._validation.setdefault(name, Curve()).add(event.step, loss)
        elif isinstance(event, RunEnded):
            self._write()

    def _write(self) -> None:
        loss = {"each step": self._loss, "smoothed": smoothed(self._loss)} if self._loss else {}
        sheets = {"loss": ("Loss", loss), "norms": ("Embedding norm", _points(self._norms))}
        sheets["shares"] = ("Separation: share in the embeddings", _points(self._shares))
        sheets["validation"] = ("Validation loss", _points(self._validation))
        for key, (title, curves) in sheets.items():
            if not curves:
                continue
            try:
                plot(title, curves).save(self._folder / f"{self._name}.{key}.png")
            except OSError as error:
                logger.warning("the plot of %s could not be written: %s", key, error)


def _points(curves: Mapping[str, Curve]) -> dict[str, Points]:
    return {name: list(zip(curve.steps, curve.values, strict=True)) for name, curve in curves.items()}


def smoothed(points: Points, over: int = SMOOTHED_OVER) -> Points:
    """The mean of the last `over` values at each step; what is no number (a skipped step) does not count."""
    result: Points = []
    window: deque[float] = deque(maxlen=over)
    for step, value in points:
        if math.isfinite(value):
            window.append(value)
        if window:
            result.append((step, sum(window) / len(window)))
    return result


def plot(title: str, curves: Mapping[str, Sequence[tuple[int, float]]]) -> Image.Image:
    """Curves over steps with axes, on white."""
    found = [(s, v) for points in curves.values() for s, v in points if math.isfinite(v)]
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    small = label_font(16)
    draw.text((LEFT, 16), title, fill="black", font=label_font(22))
    if not found:
        return image
    last = max(1, *(step for step, _ in found))
    low, high = min(value for _, value in found), max(value for _, value in found)
    high = high if high > low else low + 1.0
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
        x = LEFT + share * (WIDTH - LEFT - RIGHT)
        draw.line([(LEFT, y), (WIDTH - RIGHT, y)], fill="#dddddd")
        draw.text((12, y - 9), f"{low + share * (high - low):.3g}", fill="#555555", font=small)
        draw.text((x - 12, HEIGHT - BOTTOM + 10), f"{last * share:.0f}", fill="#555555", font=small)
    draw.text((WIDTH // 2, HEIGHT - 26), "step", fill="#555555", font=small)
    legend_x = LEFT
    for number, (name, points) in enumerate(curves.items()):
        colour = "#f3c7a8" if name == "each step" else COLOURS[number % len(COLOURS)]
        places = [
            (
                LEFT + step / last * (WIDTH - LEFT - RIGHT),
                HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM),
            )
            for step, value in points
            if math.isfinite(value)
        ]
        if len(places) > 1:
            draw.line(places, fill=colour, width=1 if name == "each step" else 3)
        draw.text((legend_x, 40), name, fill=colour, font=small)
        legend_x += 24 + int(small.getbbox(name)[2])
    return image
