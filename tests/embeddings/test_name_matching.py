from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_pivotal.embeddings.name_matching import NameMatcher, folded, qualified


def names(text, *embeddings):
    return [match.name for match in NameMatcher({embedding: embedding for embedding in embeddings}).matches(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a <embedding> b", ["<embedding>"]),
        ("a, <embedding>, b", ["<embedding>"]),
        ('"<embedding>".', ["<embedding>"]),
        ("<embedding>'s hat", ["<embedding>"]),
        ("(<EMBEDDING>:1.2)", ["<embedding>"]),
        ("mychar-v1 and mychar-v12", ["mychar-v1"]),
        ("mychar-v1, smile", ["mychar-v1"]),
        ("xmy_char", []),
        ("my_char", ["my_char"]),
        ("a my_char's hat, my_char2", ["my_char", "my_char"]),
        ("hana  blue", ["hana blue"]),
        ("hana", ["hana"]),
        ("hanako", []),
        ("hana@gekidol and hana", ["hana@gekidol", "hana"]),
        ("hana-chan", ["hana"]),
        ("[hana:dog:10] hana|cat", ["hana", "hana"]),
        ("花子が", []),
        ("花子 が", ["花子"]),
    ],
)
def test_where_a_name_counts(text, expected):
    embeddings = ("<embedding>", "mychar-v1", "my_char", "hana", "hana blue", qualified("hana", "gekidol"), "花子")
    assert names(text, *embeddings) == expected


def test_nothing_to_find():
    assert NameMatcher({}).matches("hana") == []
    assert len(NameMatcher({"": 1, " ": 2})) == 0


def test_one_name_in_two_cases_is_one():
    assert len(NameMatcher({"Hana": 1, "hana": 2})) == 1
    assert folded(" Hana \n Blue ") == "hana blue"


@given(st.text(max_size=30), st.lists(st.text(min_size=1, max_size=6), max_size=5))
def test_spots_never_overlap_and_are_what_they_say(text, embeddings):
    reached = 0
    for match in NameMatcher({embedding: embedding for embedding in embeddings}).matches(text):
        assert match.start >= reached
        assert folded(text[match.start : match.stop]) == folded(match.name)
        reached = match.stop
