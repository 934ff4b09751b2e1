"""Filters of pictures: parts that combine, and counts that are true."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_pivotal.data.records import Picture
from lib_pivotal.ui.picture_filter import FilterPart, PictureIndex, TagIndex, parse

CAPTIONS = [
    "aoi, blue hair, smile, park",
    "aoi, Blue_Hair, (smile:1.2), sea",
    "hana, green hair ||| smile, park",
    "aoi, hana, park",
    "nobody, park",
]
EMBEDDINGS = [("aoi",), ("aoi",), ("hana",), ("aoi", "hana"), ()]
PROBLEMS = {"layout": (), "1": (), "near_double": ("b/4.png", "b/0.png", "gone.png"), "2": ("b/4.png", "b/0.png")}


def _index() -> PictureIndex:
    pictures = [Picture(f"b/{n}.png", Path("x"), text, 64, 64, "b") for n, text in enumerate(CAPTIONS)]
    return PictureIndex(TagIndex(pictures), {f"b/{n}.png": embeddings for n, embeddings in enumerate(EMBEDDINGS)})


@pytest.mark.parametrize(
    ("query", "places"),
    [
        ("", [0, 1, 2, 3, 4]),
        ("word:aoi", [0, 1, 3]),
        ("word:aoi, word:hana", [3]),
        ("word:aoi, -word:hana", [0, 1]),
        ("word:none", [4]),
        ("tag:blue hair", [0, 1]),
        ("tag:SMILE, -word:aoi", [2]),
        ("tag:smil", []),
        ("smil", [0, 1, 2]),
        ("-park", [1]),
        ("problem:2", [0, 4]),
        ("problem:near_double", [0, 4]),
        ("problem:Near_Double, word:aoi", [0]),
        ("problem:2, word:aoi", [0]),
        ("-problem:2, tag:park", [2, 3]),
        ("problem:9", []),
        ("problem:x", []),
        ("4.png", [4]),
        ("word:unheard", []),
        (" , -, ", []),
    ],
)
def test_parts_combine(query: str, places: Sequence[int]) -> None:
    assert _index().matching(parse(query), PROBLEMS) == places


def test_counts_are_of_what_is_shown() -> None:
    facets = _index().facets([0, 1, 3], PROBLEMS)
    assert facets.embeddings == {"aoi": 3, "hana": 1, "none": 0}
    assert facets.tags == {"blue hair": 2, "smile": 2, "park": 2, "sea": 1}
    assert facets.problems == {"near_double": 1, "2": 1}


CHIPS = ("word:aoi", "word:hana", "tag:park", "tag:smile", "problem:2", "problem:near_double")


@given(st.sampled_from(CHIPS), st.booleans())
def test_each_count_is_what_a_click_shows(chip: str, without: bool) -> None:
    index = _index()
    before = index.matching(parse("-word:hana" if without else ""), PROBLEMS)
    facets = index.facets(before, PROBLEMS)
    kind, _, value = chip.partition(":")
    counts = {"word": facets.embeddings, "tag": facets.tags, "problem": facets.problems}
    query = f"{'-word:hana, ' if without else ''}{chip}"
    if value in counts[kind]:
        assert counts[kind][value] == len(index.matching(parse(query), PROBLEMS))


def test_a_part_is_written_as_it_is_read() -> None:
    for part in (
        FilterPart("word", "aoi"),
        FilterPart("tag", "blue hair", True),
        FilterPart("text", "x:y"),
        FilterPart("problem", "3"),
    ):
        assert parse(str(part)) == (part,)


def test_tags_that_a_weight_holds_together_are_found_one_by_one() -> None:
    pictures = [Picture("a.png", Path("x"), "(red hair, smile:1.2), hat", 64, 64, "b")]
    assert TagIndex(pictures).forms[0] == ("red hair", "smile", "hat")
