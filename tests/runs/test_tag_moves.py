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
from lib_pivotal.training.pruned_captions import embedding_use

CAPTIONS = ["aoi, 1girl, red hair, horns, hat, smile"] * 3 + ["aoi, 1girl, red hair, coat, park"] * 3
TAGS = ("red hair", "horns", "hat", "smile", "coat")
FATES: tuple[Decision, ...] = ("kept", "absorbed", "init")


def _tag(embedding: EmbeddingConfig, tag: str) -> TagDecision:
    pictures = [Picture(f"{n}.png", Path("x"), text, 64, 64, "aoi") for n, text in enumerate(CAPTIONS)]
    tags = PrunedCaptions(pictures, [embedding_use(embedding)], TagRules()).embeddings[embedding.name].tags
    return next(one for one in tags if one.tag == tag)


@given(st.lists(st.tuples(st.sampled_from(TAGS), st.sampled_from(FATES)), min_size=1, max_size=6))
def test_the_last_move_decides(moves: list[tuple[str, Decision]]) -> None:
    embedding = EmbeddingConfig("aoi", init_text="red hair, *[0.1,2]", vectors=6)
    for tag, to in moves:
        embedding = moved(embedding, _tag(embedding, tag), to)
    last = dict(moves)
    for tag, to in last.items():
        found = _tag(embedding, tag)
        assert found.fate == to or (to == "kept" and not embedding.prune)
        assert not (tag in embedding.absorb and found.by_rule) and not (tag in embedding.keep and not found.by_rule)
    assert embedding.init_text.endswith("*[0.1,2]")
    assert not check_run(run_to_dict(Run(embeddings=(embedding,))))[1]


@pytest.mark.parametrize("to", FATES)
def test_moving_where_it_is_already_changes_nothing(to: Decision) -> None:
    embedding = moved(EmbeddingConfig("aoi", prune=True, vectors=6), _tag(EmbeddingConfig("aoi"), "hat"), to)
    assert moved(embedding, _tag(embedding, "hat"), to) == embedding


def test_a_beginning_stands_before_the_random_rows_and_brings_its_vectors() -> None:
    embedding = EmbeddingConfig("aoi", init_text="red hair, *[0.1,2]", vectors=4, prune=True)
    begun = moved(embedding, _tag(embedding, "horns"), "init")
    assert begun.init_text == "red hair, horns, *[0.1,2]" and begun.vectors == 5
    assert moved(begun, _tag(begun, "horns"), "absorbed").init_text == embedding.init_text
    empty = moved(EmbeddingConfig("aoi", vectors=4), _tag(EmbeddingConfig("aoi"), "horns"), "init")
    assert empty.init_text == "horns" and empty.vectors == 4


def test_a_beginning_brings_as_many_vectors_as_the_tokenizer_says() -> None:
    embedding = EmbeddingConfig("aoi", init_text="red hair, *[0.1,2]", vectors=4, prune=True)
    assert moved(embedding, _tag(embedding, "horns"), "init", count=lambda tag: 3 * (tag == "horns")).vectors == 7
    assert moved(embedding, _tag(embedding, "horns"), "init", count=lambda tag: 99).vectors == 75


def test_a_tag_moved_by_hand_goes_back_to_the_rule() -> None:
    embedding = EmbeddingConfig("aoi", prune=True, absorb=("Hat",), keep=("red_hair",))
    assert as_the_rule_says(embedding, _tag(embedding, "hat")).absorb == ()
    back = as_the_rule_says(embedding, _tag(embedding, "red hair"))
    assert back.keep == () and _tag(back, "red hair").fate == "absorbed"
