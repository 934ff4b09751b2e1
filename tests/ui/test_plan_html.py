"""Bars, rectangles and lengths: right proportions, and text that cannot run."""

from __future__ import annotations

import re

from lib_pivotal.data.lint import Length
from lib_pivotal.data.tokens import TokenCounter
from lib_pivotal.runs.plan import BucketPlan, PicturePlan, Plan, WordPlan
from lib_pivotal.ui.plan_html import MOST_SIZES, plan_html


def _plan(words=(), buckets=(), tokens=(10, 80)) -> Plan:
    lengths = [Length(f"{n}.png", "", count, TokenCounter({})) for n, count in enumerate(tokens)]
    pictures = tuple(PicturePlan(one.key, 1.0, (), 64, 64, 0.0, False, False, one, "") for one in lengths)
    return Plan("f", 1000, 4, 2, 8000, 2.0, tuple(words), pictures, tuple(buckets), (), False)


def _word(name: str, draws: float, pictures: int = 3) -> WordPlan:
    return WordPlan(name, pictures, draws, 0.5, False, 4, "", ())


def test_bars_are_in_proportion_and_the_advised_line_is_in_sight() -> None:
    shown = plan_html(_plan([_word("aoi", 2000), _word("hana", 200), _word("none", 0, 0)]), max_tokens=0)
    assert [float(w) for w in re.findall(r'<b style="width:([\d.]+)%', shown)] == [100.0, 10.0, 0.0]
    assert shown.count("left:40.00%") == 4  # three rows and the axis
    assert re.findall('class="row (\\w+)"', shown) == ["ok", "low", "none"]
    few = plan_html(_plan([_word("aoi", 10)]), max_tokens=0)
    assert "left:80.00%" in few


def test_sizes_have_their_shape_count_and_cut() -> None:
    buckets = [BucketPlan(640, 320, 30, 1.0, 0.12, 0.3), BucketPlan(512, 512, 10, 1.0, 0.0, 0.0)]
    shown = plan_html(_plan(buckets=buckets), max_tokens=0)
    assert "width:46px;height:23px" in shown and "width:37px;height:37px" in shown
    assert "12% cut" in shown and "uncut" in shown and "30.0% at most" in shown
    many = [BucketPlan(64 * n, 64, 2, 1.0, 0.0, 0.0) for n in range(1, MOST_SIZES + 4)]
    assert "3 more sizes, 6 pictures" in plan_html(_plan(buckets=many), max_tokens=0)


def test_lengths_over_the_limit_are_counted() -> None:
    assert "longest 80 tokens (estimated), 1 over 75" in plan_html(_plan(), max_tokens=0)
    assert "all within 90" in plan_html(_plan(), max_tokens=90)


def test_nothing_and_nonsense() -> None:
    assert "No embeddings yet" in plan_html(_plan(tokens=()), max_tokens=0)
    assert "<script>" not in plan_html(_plan([_word("<script>", 5)]), max_tokens=0)
