"""Which step of a run to use: its kept steps, ranked by whatever figures are known of them.

Each figure is brought to 0..1 over the run's steps, best = 1:

    x' = (x - worst) / max(best - worst, least)

`least` is the difference that means something: where all steps are alike, the figure hardly counts. A step's score is
the mean of its figures by their weights; a figure that only some steps have is not used. Of equal scores the later step
is first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

PICTURES = "pictures "
"""What the figure of a picture scorer begins with, before the scorer's name."""


@dataclass(frozen=True)
class FigureKind:
    """A figure: what people read, whether more is better, how much it counts, and which difference means something."""

    title: str
    more_is_better: bool
    weight: float
    least: float


FIGURES: Mapping[str, FigureKind] = MappingProxyType(
    {
        "validation": FigureKind("validation loss", False, 2.0, 0.002),
        "separation": FigureKind("share in the embeddings", True, 1.0, 0.1),
        "drift": FigureKind("drift", False, 1.0, 0.01),
        "obedience": FigureKind("obedience of other tags", True, 1.0, 0.05),
        "diversity": FigureKind("diversity between seeds", True, 0.5, 0.05),
    }
)
"""By name. A step has those that were measured; whoever measures one puts it under its name."""
OF_SCORERS = FigureKind("", True, 3.0, 0.05)
"""Scores of pictures, 0 to 1: they look at what people want, so they count most."""


@dataclass(frozen=True)
class StepRecord:
    """A kept step: its file, a picture of it, and figures by name."""

    step: int
    file: Path
    picture: Path | None = None
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RankedStep:
    """A step at its place; `score` is 0 to 1, None where nothing is known of the steps."""

    record: StepRecord
    score: float | None


def figure_kind(name: str) -> FigureKind:
    """What is known of a figure by its name; one that is not listed is a picture scorer's, more is better."""
    if name in FIGURES:
        return FIGURES[name]
    return FigureKind(name.removeprefix(PICTURES), True, OF_SCORERS.weight, OF_SCORERS.least)


def rank(records: Sequence[StepRecord]) -> list[RankedStep]:
    """The steps, best first; without any figure that all of them have, the later before the earlier."""
    names = common_figures(records)
    scaled = {name: _scaled([record.figures[name] for record in records], figure_kind(name)) for name in names}
    total = sum(figure_kind(name).weight for name in names)
    ranked = [
        RankedStep(
            record,
            sum(figure_kind(name).weight * scaled[name][place] for name in names) / total if names else None,
        )
        for place, record in enumerate(records)
    ]
    return sorted(ranked, key=lambda one: (one.score or 0.0, one.record.step), reverse=True)


def common_figures(records: Sequence[StepRecord]) -> list[str]:
    """Names of figures that every step has, as finite numbers."""
    if not records:
        return []
    found = (name for name in records[0].figures)
    return [name for name in found if all(math.isfinite(record.figures.get(name, math.nan)) for record in records)]


def _scaled(values: Sequence[float], kind: FigureKind) -> list[float]:
    low, high = min(values), max(values)
    span = max(high - low, kind.least)
    return [1 - (high - value) / span if kind.more_is_better else 1 - (value - low) / span for value in values]
