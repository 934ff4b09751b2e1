"""An init text of whole tags, and vectors for all of it."""

import pytest

from lib_pivotal.data.init_texts import VECTORS, begin


def letters(tag):
    """So many tokens as words."""
    return len(tag.split())


def test_vectors_follow_from_the_tokens_of_the_tags_and_the_random_ones():
    assert begin(["blue hair", "cat ears"], letters) == ("blue hair, cat ears, *[0.017,4]", 8)
    assert begin(["blue hair", "cat ears"], letters, random=2, std=0.1) == ("blue hair, cat ears, *[0.1,2]", 6)
    assert begin(["blue hair", "cat ears"], letters, random=0) == ("blue hair, cat ears", 4)


@pytest.mark.parametrize(
    ("most", "text", "vectors"),
    [(16, "a b c, d e, f", 10), (9, "a b c, d e", 9), (8, "a b c", 7), (7, "a b c", 7)],
)
def test_what_is_beyond_the_most_is_left_out_as_a_whole(most, text, vectors):
    assert begin(["a b c", "d e", "f"], letters, most=most) == (f"{text}, *[0.017,4]", vectors)


def test_a_tag_that_ends_another_is_said_once_and_nothing_begins_nothing():
    assert begin(["very long hair", "long hair"], letters) == ("very long hair, *[0.017,4]", 7)
    assert begin([], letters) == begin(["a b c"], letters, most=6) == ("", VECTORS)
