"""How a tag spells what is done to an embedding."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_pivotal.embeddings.adjustment import EmbeddingAdjustment, read_adjustment, spelled
from lib_pivotal.errors import EmbeddingNameError


@pytest.mark.parametrize(
    ("text", "name", "norm", "share"),
    [
        ("hana*0.8~0.2", "hana", 0.8, 0.2),
        ("hana*0.8", "hana", 0.8, 0),
        ("hana~.2", "hana", 1, 0.2),
        (" v1.5-girl*2~1 ", "v1.5-girl", 2, 1),
        ("a*2*0.5~0", "a*2", 0.5, 0),
        ("a~1*1~0.3", "a~1", 1, 0.3),
        ("two words*0", "two words", 0, 0),
    ],
)
def test_read(text, name, norm, share):
    assert read_adjustment(text) == (name, EmbeddingAdjustment(norm, share))


@pytest.mark.parametrize("text", ["", "hana", "*0.5", "hana*", "hana*x", "hana*-1", "hana~1.5", "hana*nan", "a:b*1"])
def test_what_says_nothing_is_refused(text):
    with pytest.raises(EmbeddingNameError):
        read_adjustment(text)


@given(
    st.text(st.characters(exclude_characters=":=<>#", exclude_categories=["Z", "C"]), min_size=1),
    st.integers(0, 2000),
    st.integers(0, 1000),
)
def test_what_is_spelled_is_read_back(name, norm, share):
    adjustment = EmbeddingAdjustment(norm / 1000, share / 1000)
    assert read_adjustment(spelled(name, adjustment)) == (name, adjustment)


@pytest.mark.parametrize("name", ["a:b", "a=b", "<a>", "a#b"])
def test_a_name_that_a_tag_takes_apart_is_not_spelled(name):
    with pytest.raises(EmbeddingNameError, match="rename it"):
        spelled(name, EmbeddingAdjustment(0.5))


@pytest.mark.parametrize(("norm", "share"), [(-0.1, 0), (float("inf"), 0), (1, 1.1), (1, -0.1), (1, float("nan"))])
def test_numbers_out_of_range_are_refused(norm, share):
    with pytest.raises(EmbeddingNameError):
        EmbeddingAdjustment(norm, share)


def test_only_one_adjustment_changes_nothing():
    assert EmbeddingAdjustment().changes_nothing
    assert not EmbeddingAdjustment(0.999).changes_nothing and not EmbeddingAdjustment(1, 0.001).changes_nothing
