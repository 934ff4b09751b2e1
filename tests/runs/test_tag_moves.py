"""Moving tags by hand: the tag's fate becomes what was asked, and lists say no more than they must."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_pivotal.config import EmbeddingConfig, Run, check_run, run_to_dict
from lib_pivotal.data.pruning import Decision, PrunedCaptions, TagDecision, TagRules
from lib_pivotal.data.records import Picture
from lib_pivotal.runs.tag_moves import as_the_rule_says, moved
from lib_pivotal.training.pruned_captions import word_use

CAPTIONS = ["aoi, 1girl, red hair, horns, hat, smile"] * 3 + ["aoi, 1girl, red hair, coat, park"] * 3
TAGS = ("red hair", "horns", "hat", "smile", "coat")
FATES: tuple[Decision, ...] = ("kept", "absorbed", "init")


def _tag(word: EmbeddingConfig, tag: str) -> TagDecision:
    pictures = [Picture(f"{n}.png", Path("x"), text, 64, 64, "aoi") for n, text in enumerate(CAPTIONS)]
    tags = PrunedCaptions(pictures, [word_use(word)], TagRules()).words[word.name].tags
    return next(one for one in tags if one.tag == tag)


@given(st.lists(st.tuples(st.sampled_from(TAGS), st.sampled_from(FATES)), min_size=1, max_size=6))
def test_the_last_move_decides(moves: list[tuple[str, Decision]]) -> None:
    word = EmbeddingConfig("aoi", init_text="red hair, *[0.1,2]", vectors=6)
    for tag, to in moves:
        word = moved(word, _tag(word, tag), to)
    last = dict(moves)
    for tag, to in last.items():
        found = _tag(word, tag)
        assert found.fate == to or (to == "kept" and not word.prune)
        assert not (tag in word.absorb and found.by_rule) and not (tag in word.keep and not found.by_rule)
    assert word.init_text.endswith("*[0.1,2]")
    assert not check_run(run_to_dict(Run(words=(word,))))[1]


@pytest.mark.parametrize("to", FATES)
def test_moving_where_it_is_already_changes_nothing(to: Decision) -> None:
    word = moved(EmbeddingConfig("aoi", prune=True, vectors=6), _tag(EmbeddingConfig("aoi"), "hat"), to)
    assert moved(word, _tag(word, "hat"), to) == word


def test_a_beginning_stands_before_the_random_rows_and_brings_its_vectors() -> None:
    word = EmbeddingConfig("aoi", init_text="red hair, *[0.1,2]", vectors=4, prune=True)
    begun = moved(word, _tag(word, "horns"), "init")
    assert begun.init_text == "red hair, horns, *[0.1,2]" and begun.vectors == 5
    assert moved(begun, _tag(begun, "horns"), "absorbed").init_text == word.init_text
    empty = moved(EmbeddingConfig("aoi", vectors=4), _tag(EmbeddingConfig("aoi"), "horns"), "init")
    assert empty.init_text == "horns" and empty.vectors == 4


def test_a_beginning_brings_as_many_vectors_as_the_tokenizer_says() -> None:
    word = EmbeddingConfig("aoi", init_text="red hair, *[0.1,2]", vectors=4, prune=True)
    assert moved(word, _tag(word, "horns"), "init", count=lambda tag: 3 * (tag == "horns")).vectors == 7
    assert moved(word, _tag(word, "horns"), "init", count=lambda tag: 99).vectors == 75


def test_a_tag_moved_by_hand_goes_back_to_the_rule() -> None:
    word = EmbeddingConfig("aoi", prune=True, absorb=("Hat",), keep=("red_hair",))
    assert as_the_rule_says(word, _tag(word, "hat")).absorb == ()
    back = as_the_rule_says(word, _tag(word, "red hair"))
    assert back.keep == () and _tag(back, "red hair").fate == "absorbed"
