"""The order of draws: complete, fair, and the same from wherever it is asked."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_pivotal.data.sampler import Sampler, Stream
from lib_pivotal.errors import DataError

RATES = st.lists(st.integers(1, 5), min_size=1, max_size=12)
WEIGHTS = st.lists(st.floats(0.05, 4.0), min_size=1, max_size=12)


@given(rates=RATES, seed=st.integers(0, 99), epochs=st.integers(1, 4))
def test_every_item_comes_exactly_as_often_as_it_repeats(rates: list[int], seed: int, epochs: int) -> None:
    stream = Stream(range(len(rates)), rates, seed=str(seed))
    for epoch in range(epochs):
        drawn = Counter(stream.at(epoch * sum(rates), sum(rates)))
        assert drawn == Counter(dict(enumerate(rates)))


@given(weights=WEIGHTS, seed=st.integers(0, 99), count=st.integers(1, 200))
def test_weighted_items_are_never_more_than_two_draws_off(weights: list[float], seed: int, count: int) -> None:
    stream = Stream(range(len(weights)), weights, seed=str(seed))
    drawn = Counter(stream.at(0, count))
    epochs = count / sum(weights)
    for item, weight in enumerate(weights):
        assert abs(drawn[item] - epochs * weight) <= 3 + 2 * weight  # the epoch under way is shuffled


@given(weights=WEIGHTS, start=st.integers(0, 300), count=st.integers(1, 30))
def test_any_position_is_the_same_from_anywhere(weights: list[float], start: int, count: int) -> None:
    def fresh() -> Stream:
        return Stream(range(len(weights)), weights, seed="s")

    whole = fresh().at(0, start + count)
    assert fresh().at(start, count) == whole[start:]
    used = fresh()
    used.at(start + 500, 3)
    assert used.at(start, count) == whole[start:]


def _sampler(batch_size: int = 4, seed: int = 0) -> Sampler:
    buckets = ["64x64"] * 9 + ["80x48"] * 5 + ["48x80"]
    return Sampler(buckets, [float(1 + item % 3) for item in range(15)], batch_size=batch_size, seed=seed)


def test_groups_are_of_one_bucket_and_full() -> None:
    sampler = _sampler()
    for index in range(200):
        group = sampler.group(index)
        assert len(group) == 4
        assert len({0 if item < 9 else 1 if item < 14 else 2 for item in group}) == 1


def test_draws_match_the_rates_over_buckets() -> None:
    """Chi-square of 14 degrees of freedom: 29.1 is passed by chance in 1 of 100; ours is far below chance."""
    sampler, groups = _sampler(), 700
    drawn = Counter(item for index in range(groups) for item in sampler.group(index))
    scale = groups * 4 / sampler.samples_per_epoch
    expected = {item: (1 + item % 3) * scale for item in range(15)}
    assert sum((drawn[item] - e) ** 2 / e for item, e in expected.items()) < 3.0


def _chi_square_of_chance(degrees: int) -> float:
    """What 1 of 1000 random orders passes (Wilson & Hilferty's approximation)."""
    part = 2 / (9 * degrees)
    return float(degrees * (1 - part + 3.0902 * part**0.5) ** 3)


@settings(max_examples=40, deadline=None)
@given(
    pictures=st.lists(st.tuples(st.floats(0.1, 6.0), st.sampled_from("abc")), min_size=2, max_size=20),
    batch_size=st.integers(1, 6),
    seed=st.integers(0, 999),
)
def test_draws_match_their_weights_whatever_the_buckets(
    pictures: list[tuple[float, str]], batch_size: int, seed: int
) -> None:
    rates, buckets = [rate for rate, _ in pictures], [bucket for _, bucket in pictures]
    sampler = Sampler(buckets, rates, batch_size=batch_size, seed=seed)
    groups = 1500 // batch_size
    drawn = Counter(item for index in range(groups) for item in sampler.group(index))
    expected = [rate / sum(rates) * groups * batch_size for rate in rates]
    chi_square = sum((drawn[item] - want) ** 2 / want for item, want in enumerate(expected))
    assert chi_square < _chi_square_of_chance(len(pictures) - 1)


@settings(max_examples=25)
@given(index=st.integers(0, 5000), seed=st.integers(0, 5), batch_size=st.integers(1, 9))
def test_groups_are_the_same_in_any_order_of_asking(index: int, seed: int, batch_size: int) -> None:
    asked = _sampler(batch_size, seed)
    for other in (index + 40, 0, index):
        found = asked.group(other)
    assert found == _sampler(batch_size, seed).group(index)


def test_seeds_differ() -> None:
    assert [_sampler(seed=0).group(i) for i in range(5)] != [_sampler(seed=1).group(i) for i in range(5)]


def test_batch_size_does_not_change_the_order_within_one_bucket() -> None:
    """So that batch 4 and 2 x 2 accumulated see the same pictures."""
    four = Sampler(["b"] * 7, [1.0] * 7, batch_size=4, seed=0)
    two = Sampler(["b"] * 7, [1.0] * 7, batch_size=2, seed=0)
    assert [i for g in range(10) for i in four.group(g)] == [i for g in range(20) for i in two.group(g)]


def test_one_picture_and_a_large_batch() -> None:
    assert Sampler(["b"], [1.0], batch_size=8, seed=0).group(3) == [0] * 8


def test_late_positions_are_quick_to_ask() -> None:
    sampler = _sampler()
    assert len(sampler.group(10**8)) == 4


def test_items_of_rate_zero_never_come() -> None:
    sampler = Sampler(["a", "a", "b"], [1.0, 0.0, 0.0], batch_size=2, seed=0)
    assert {item for index in range(50) for item in sampler.group(index)} == {0}


@pytest.mark.parametrize(
    ("buckets", "rates", "batch_size", "message"),
    [
        (["a"], [1.0, 2.0], 1, "1 buckets but 2 sampling weights"),
        (["a"], [1.0], 0, "batch_size = 0"),
        (["a"], [0.0], 1, "not all 0"),
        (["a"], [-1.0], 1, "0 or more"),
        (["a"], [float("nan")], 1, "finite"),
        ([], [], 1, "not all 0"),
    ],
)
def test_wrong_settings(buckets: list[str], rates: list[float], batch_size: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Sampler(buckets, rates, batch_size=batch_size, seed=0)
