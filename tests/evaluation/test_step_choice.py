"""Ranking, by the formula by hand."""

import math
from pathlib import Path

import pytest

from lib_pivotal.evaluation.step_choice import FIGURES, StepRecord, common_figures, figure_kind, rank


def records(**figures):
    """One record a value: steps 100, 200, ..."""
    count = len(next(iter(figures.values()))) if figures else 3
    return [
        StepRecord(100 * (n + 1), Path(f"{n}"), figures={name: values[n] for name, values in figures.items()})
        for n in range(count)
    ]


def order(found):
    return [one.record.step for one in found]


def test_one_figure_orders_by_it():
    assert order(rank(records(separation=[0.2, 0.9, 0.5]))) == [200, 300, 100]
    assert order(rank(records(validation=[0.20, 0.10, 0.15]))) == [200, 300, 100], "less of a loss is better"


def test_the_score_is_the_weighted_mean_of_scaled_figures():
    found = {one.record.step: one.score for one in rank(records(validation=[0.10, 0.12], separation=[0.3, 0.7]))}
    weights = FIGURES["validation"].weight, FIGURES["separation"].weight
    assert found[100] == pytest.approx((weights[0] * 1 + weights[1] * 0) / sum(weights))
    assert found[200] == pytest.approx((weights[0] * 0 + weights[1] * 1) / sum(weights))


def test_what_means_nothing_does_not_decide():
    least = FIGURES["separation"].least
    found = {one.record.step: one.score for one in rank(records(separation=[0.5, 0.5 + least / 10]))}
    assert found == {200: 1.0, 100: pytest.approx(0.9)}
    assert order(rank(records(separation=[0.5, 0.5, 0.5]))) == [300, 200, 100], "of equal ones the later"


def test_pictures_count_most():
    found = rank(records(**{"pictures judge": [0.9, 0.2], "validation": [0.2, 0.1]}))
    assert order(found) == [100, 200] and figure_kind("pictures judge").title == "judge"


def test_a_figure_of_some_steps_is_not_used():
    some = records(separation=[0.9, 0.1, 0.2])
    some[2].figures.pop("separation")
    assert common_figures(some) == [] and order(rank(some)) == [300, 200, 100]
    assert rank(some)[0].score is None
    broken = records(separation=[0.9, math.nan])
    assert common_figures(broken) == []
    assert rank([]) == []
