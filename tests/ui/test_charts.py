"""Curves: numbers become places, whatever the numbers are."""

import math
import re
from xml.etree import ElementTree

import pytest

from lib_pivotal.ui.charts import (
    COLOURS,
    HEIGHT,
    POINTS,
    WIDTH,
    Mark,
    lines_chart,
    loss_chart,
    paired_chart,
    percentile,
    smoothed,
    validation_chart,
)


def svg(html):
    return ElementTree.fromstring(re.search(r"<svg.*</svg>", html, re.DOTALL).group())


def points(html):
    return [
        [tuple(map(float, pair.split(","))) for pair in line.get("points").split()]
        for line in svg(html).iter("polyline")
    ]


def test_the_loss_has_a_thin_and_a_smooth_line_within_the_frame():
    html = loss_chart(list(range(1, 101)), [1 / n for n in range(1, 101)], last_step=200)
    raw, smooth = points(html)
    assert len(raw) == 100
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in (*raw, *smooth))
    assert raw[-1][0] < WIDTH * 0.6  # half of the run is still to come


def test_long_curves_are_thinned_and_keep_their_end():
    html = loss_chart(list(range(1, 2001)), [1.0] * 2000, last_step=2000)
    assert all(len(line) <= POINTS + 1 for line in points(html))
    assert "at step 2000" in html


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf, 0.5], [0.0, 0.0], [-1.0, 1.0], [1e-9, 1e9]])
def test_odd_values_make_a_chart(values):
    html = loss_chart(list(range(len(values))), values, last_step=max(len(values), 1))
    svg(html)
    assert "nan" not in html and "inf" not in html


def test_an_outlier_does_not_flatten_the_curve():
    html = loss_chart(list(range(100)), [0.5] * 50 + [900.0] + [0.4] * 49, last_step=100)
    _, ys = zip(*points(html)[1], strict=True)
    assert max(ys) - min(ys) > 20


def test_names_are_escaped():
    html = lines_chart("a<b", {"<x>": {"steps": [1], "values": [0.5]}}, last_step=2)
    assert "<x>" not in html and "&lt;x&gt;" in html and "a&lt;b" in html


def test_shares_are_percent():
    assert "62%" in lines_chart("share", {"aoi": {"steps": [1, 2], "values": [0.1, 0.62]}}, last_step=2, percent=True)


def test_smoothing_keeps_a_constant():
    assert smoothed([2.0] * 300) == pytest.approx([2.0] * 300)
    assert smoothed([]) == []


def test_percentile():
    assert percentile([], 0.9) is None
    assert percentile([1, 2, 3, 4], 0.98) == 4


CURVE = {"steps": [10, 20, 30], "values": [0.5, 0.4, 0.45]}


@pytest.mark.parametrize(("step", "anchor"), [(10, '"pivotal-tick pivotal-mark-text "'), (90, "end")])
def test_a_marked_step_has_its_text_on_the_side_that_has_room(step, anchor):
    html = validation_chart(CURVE, CURVE, mark=Mark(step, "lowest"), last_step=100)
    assert f"lowest (step {step})" in html and anchor in html and "0.4500" in html
    assert html.count("<polyline") == 2


def test_lines_behind_have_the_colour_and_no_place_in_the_legend():
    html = paired_chart("x", {"aoi": CURVE}, behind={"aoi": CURVE, "other": CURVE}, last_step=100)
    assert html.count("<polyline") == 2 and html.count(f'stroke="{COLOURS[0]}"') == 2
    assert html.count("<span><i") == 1
