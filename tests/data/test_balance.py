"""How often each picture comes: kgrid's tree, all words alike, and draws that match."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.avatars import make
from lib_pivotal.data.balance import even_rates, tree_rates, with_embedding_weights
from lib_pivotal.data.sampler import Sampler


def test_the_tree_by_hand() -> None:
    # root: a and b, 1/2 each; a: itself and a/x, 1/4 each; per picture .25, .125, .25; the least becomes 1
    keys = ["a/1.png", "a/x/1.png", "a/x/2.png", "b/1.png", "b/2.png"]
    assert tree_rates(keys) == [2.0, 1.0, 1.0, 2.0, 2.0]
    assert tree_rates(keys, [("b", 3.0)]) == [2.0, 1.0, 1.0, 6.0, 6.0]
    assert tree_rates(keys, [("a/*", 0.0)]) == [2.0, 0.0, 0.0, 1.0, 1.0]
    assert tree_rates([f"a/{n}.png" for n in range(1000)] + ["b/1.png"])[-1] == 100.0


def test_the_tree_is_what_the_avatars_multiply_files_say(tmp_path: Path) -> None:
    make.make_dataset(tmp_path / "a", layout="kgrid", embeddings=8, styles=1, pictures=4, uneven=True)
    keys = sorted(path.relative_to(tmp_path / "a").as_posix() for path in (tmp_path / "a").rglob("*.png"))
    said = [float((tmp_path / "a" / key).parent.joinpath("multiply.txt").read_text()) for key in keys]
    assert tree_rates(keys) == pytest.approx(said, abs=0.0101)


@given(counts=st.lists(st.integers(1, 12), min_size=2, max_size=6))
def test_all_embeddings_come_alike(counts: list[int]) -> None:
    embeddings = [[str(embedding)] for embedding, count in enumerate(counts) for _ in range(count)]
    rates = even_rates([1.0] * len(embeddings), embeddings)
    totals = Counter()
    for names, rate in zip(embeddings, rates, strict=True):
        totals[names[0]] += rate
    assert sum(rates) == pytest.approx(len(embeddings))
    assert max(totals.values()) <= 1.01 * min(totals.values())


def test_weights_of_embeddings_multiply() -> None:
    assert with_embedding_weights([1.0, 2.0, 3.0], [["a"], ["a", "b"], []], {"a": 2.0, "b": 0.5}) == [2.0, 2.0, 3.0]


@given(rates=st.lists(st.floats(0.1, 5.0), min_size=2, max_size=8), seed=st.integers(0, 999))
def test_draws_match_their_weights(rates: list[float], seed: int) -> None:
    """Pearson's chi-square stays far below the 99.9 % point of chance: the order is more even than chance is."""
    sampler = Sampler(["b"] * len(rates), rates, batch_size=4, seed=seed)
    groups = 400
    counts = Counter(item for group in range(groups) for item in sampler.group(group))
    total = groups * 4
    expected = [rate / sum(rates) * total for rate in rates]
    chi_square = sum((counts[item] - want) ** 2 / want for item, want in enumerate(expected))
    assert chi_square < 24.3  # 7 degrees of freedom, p = 0.001
