"""Places that a caption takes, and what lies behind a limit."""

from __future__ import annotations

from lib_pivotal.data.tokens import TokenCounter, estimated_tokens


def test_words_count_by_their_vectors_and_weights_not_at_all() -> None:
    count = TokenCounter({"aoi": 8}, lambda text: len(text.replace(",", " , ").split()))
    assert count("aoi") == 8 and count("(aoi:1.2), red hair") == 11 and count("Aoi, aoi") == 17


def test_the_tail_is_lost_but_never_a_word() -> None:
    count = TokenCounter({"aoi": 4}, lambda text: len(text.replace(",", " , ").split()))
    assert count.divide("a, b, c, aoi", 8) == (["a", "b", "aoi"], ["c"])
    assert count.shorten("a, b, c, aoi", 8) == "a, b, aoi"
    assert count.shorten("a,b", 3) == "a,b"


def test_the_estimate_is_near_for_tags() -> None:
    assert estimated_tokens("long hair, blue eyes") == 5
