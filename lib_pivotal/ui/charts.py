"""Curves as SVG that follows the page's theme: no plotting package, sharp at any size, no flicker."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 360, 150
LEFT, RIGHT, TOP, BOTTOM = 42, 8, 8, 24
POINTS = 260
"""A curve is drawn with at most so many points."""

COLOURS = ("#f97316", "#3b82f6", "#22a06b", "#a855f7", "#e11d48", "#0891b2", "#ca8a04", "#64748b", "#db2777", "#65a30d")


@dataclass(frozen=True)
class ChartLine:
    """A curve: steps, values, and how it looks (`thin` lies behind, without a place in the legend)."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]
    colour: str
    thin: bool = False


@dataclass(frozen=True)
class Mark:
    """A step that a chart points out."""

    step: float
    text: str


def loss_chart(steps: Sequence[int], values: Sequence[float], *, last_step: int) -> str:
    """The loss of each step, thin, and its smoothed course."""
    good = [(s, v) for s, v in zip(steps, values, strict=True) if math.isfinite(v)]
    x, y = [s for s, _ in good], [v for _, v in good]
    smooth = smoothed(y)
    lines = [
        ChartLine("loss of a step", x, y, "var(--pivotal-raw)", thin=True),
        ChartLine("loss", x, smooth, COLOURS[0]),
    ]
    now = f"{smooth[-1]:.4f}" if smooth else ""
    ceiling = percentile(y, 0.98)
    return chart("Loss", lines, last_step=last_step, figure=now, ceiling=ceiling)


def lines_chart(
    title: str, curves: Mapping[str, Mapping[str, Sequence[float]]], *, last_step: int, percent: bool = False
) -> str:
    """One line an embedding; the legend carries its last value."""
    lines = [
        ChartLine(name, curve["steps"], curve["values"], COLOURS[number % len(COLOURS)])
        for number, (name, curve) in enumerate(curves.items())
    ]
    return chart(title, lines, last_step=last_step, percent=percent, legend=True)


def validation_chart(
    held_out: Mapping[str, Sequence[float]],
    trained: Mapping[str, Sequence[float]] | None,
    *,
    mark: Mark,
    last_step: int,
) -> str:
    """The loss of held-out pictures and of as many trained ones: where they part, the run overfits."""
    lines = [ChartLine("held-out pictures", held_out["steps"], held_out["values"], COLOURS[0])]
    if trained is not None:
        lines.append(ChartLine("trained pictures", trained["steps"], trained["values"], COLOURS[1]))
    return chart("Validation loss", lines, last_step=last_step, legend=True, digits=4, mark=mark)


def paired_chart(
    title: str,
    curves: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    behind: Mapping[str, Mapping[str, Sequence[float]]],
    last_step: int,
) -> str:
    """One line an embedding, and thin and in its colour the line of the same name `behind` it."""
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(curves)}
    thin = [
        ChartLine(f"{name}, trained", curve["steps"], curve["values"], colours[name], thin=True)
        for name, curve in behind.items()
        if name in colours
    ]
    bold = [ChartLine(name, curve["steps"], curve["values"], colours[name]) for name, curve in curves.items()]
    return chart(title, [*thin, *bold], last_step=last_step, legend=True, digits=4)


def chart(
    title: str,
    lines: Sequence[ChartLine],
    *,
    last_step: int,
    figure: str = "",
    ceiling: float | None = None,
    percent: bool = False,
    legend: bool = False,
    digits: int = 2,
    mark: Mark | None = None,
) -> str:
    """Axes in words, lines, a marked step, a title for screen readers, and a legend below where there are several."""
    values = [value for line in lines for value in line.values if math.isfinite(value)]
    low, high = (0.0, 1.0) if percent else _range(values, ceiling)  # a share beyond its axis lies on the axis
    scale = _Scale(max(last_step, 1), low, high)
    body = [_axes(scale, percent=percent)] if values else []
    if mark is not None and values:
        body.append(_mark(mark, scale))
    for line in lines:
        body.append(_path(line, scale))
    if not values:
        body.append(f'<text class="pivotal-none" x="{WIDTH / 2}" y="{HEIGHT / 2 - 12}">nothing measured yet</text>')
    head = f'<div class="pivotal-chart-head"><b>{escape(title)}</b><span>{escape(figure)}</span></div>'
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)} by step">{"".join(body)}</svg>'
    below = _legend(lines, percent=percent, digits=digits) if legend else ""
    return f'<div class="pivotal-chart">{head}{svg}{below}</div>'


def smoothed(values: Sequence[float]) -> list[float]:
    """An exponential mean over about a twentieth of what there is, without the bias of its start."""
    keep = 1 - 1 / max(1.0, min(50.0, len(values) / 20))
    mean, weight, result = 0.0, 0.0, []
    for value in values:
        mean, weight = keep * mean + (1 - keep) * value, keep * weight + (1 - keep)
        result.append(mean / weight)
    return result


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value below which this share lies; None of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


@dataclass(frozen=True)
class _Scale:
    last_step: float
    low: float
    high: float

    def x(self, step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / self.last_step

    def y(self, value: float) -> float:
        share = (min(value, self.high) - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * max(0.0, share)


def _range(values: Sequence[float], ceiling: float | None) -> tuple[float, float]:
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values) if ceiling is None else max(ceiling, min(values))
    room = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    return (0.0 if low >= 0 and low - room < 0 else low - room), high + room


def _axes(scale: _Scale, *, percent: bool) -> str:
    parts = []
    for share in (0.0, 0.5, 1.0):
        value = scale.low + share * (scale.high - scale.low)
        y = scale.y(value)
        text = f"{value:.0%}" if percent else f"{value:.3g}"
        parts.append(f'<line class="pivotal-grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="pivotal-tick end" x="{LEFT - 6}" y="{y + 3.5:.1f}">{text}</text>')
    for share, anchor in ((0.0, ""), (0.5, "mid"), (1.0, "end")):
        step = round(scale.last_step * share)
        text = f"step {step}" if share == 0.5 else str(step)
        x, y = f"{scale.x(scale.last_step * share):.1f}", HEIGHT - BOTTOM + 16
        parts.append(f'<text class="pivotal-tick {anchor}" x="{x}" y="{y}">{text}</text>')
    return "".join(parts)


def _mark(mark: Mark, scale: _Scale) -> str:
    """A dashed line from top to bottom, with its text on the side that has room."""
    x = scale.x(mark.step)
    left = x < LEFT + (WIDTH - LEFT - RIGHT) / 2
    side, anchor = (x + 4, "") if left else (x - 4, "end")
    text = f"{mark.text} (step {mark.step:.0f})"
    return (
        f'<line class="pivotal-mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        f'<text class="pivotal-tick pivotal-mark-text {anchor}" x="{side:.1f}" y="{TOP + 9}">{escape(text)}</text>'
    )


def _path(line: ChartLine, scale: _Scale) -> str:
    pairs = [(s, v) for s, v in zip(line.steps, line.values, strict=True) if math.isfinite(v)]
    every = max(1, math.ceil(len(pairs) / POINTS))
    pairs = [*pairs[::every], *(pairs[-1:] if (len(pairs) - 1) % every else [])]
    if not pairs:
        return ""
    points = " ".join(f"{scale.x(step):.1f},{scale.y(value):.1f}" for step, value in pairs)
    step, value = pairs[-1]
    title = f"<title>{escape(line.name)}: {value:.4g} at step {step:.0f}</title>"
    kind = "thin" if line.thin else "bold"
    dot = (
        ""
        if line.thin
        else f'<circle cx="{scale.x(step):.1f}" cy="{scale.y(value):.1f}" r="2.6" fill="{line.colour}"/>'
    )
    return f'<g class="pivotal-line {kind}">{title}<polyline points="{points}" stroke="{line.colour}"/>{dot}</g>'


def _legend(lines: Sequence[ChartLine], *, percent: bool, digits: int) -> str:
    items = []
    for line in lines:
        if line.thin:
            continue
        value = line.values[-1] if line.values else math.nan
        shown = (f"{value:.0%}" if percent else f"{value:.{digits}f}") if math.isfinite(value) else ""
        items.append(f'<span><i style="background:{line.colour}"></i>{escape(line.name)} <b>{shown}</b></span>')
    return f'<div class="pivotal-legend">{"".join(items)}</div>'
