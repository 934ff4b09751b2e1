"""Which names an embedding may have in a file."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib_pivotal.embedding_names import check_embedding_name, warn_embedding_name

LEGAL = re.compile(r"[a-z]([a-z0-9_-]*[a-z])?")
letters = st.sampled_from(string.ascii_lowercase)
middles = st.text(string.ascii_lowercase + string.digits + "_-", max_size=98)
legal_names = letters | st.tuples(letters, middles, letters).map("".join)
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@unhurried
@given(legal_names)
def test_legal_names_have_no_reasons(name: str) -> None:
    assert check_embedding_name(name) == []


@unhurried
@given(st.text(max_size=20))
def test_any_text_is_legal_exactly_when_the_grammar_says_so(name: str) -> None:
    assert (check_embedding_name(name) == []) == bool(LEGAL.fullmatch(name))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "empty"),
        ("Dog", "upper-case"),
        ("v1.5", "dot"),
        ("my dog", "' '"),
        ("../evil", "'/'"),
        ("<embedding>", "'<'"),
        ("dog2", "ends with '2'"),
        ("2dog", "begins with '2'"),
        ("dog-", "ends with '-'"),
        ("köter", "'ö'"),
        ("犬", "'犬'"),
        ("dog\n", "'\\n'"),
        ("x" * 101, "101 characters"),
    ],
)
def test_illegal_names_say_why(name: str, reason: str) -> None:
    assert any(reason in told for told in check_embedding_name(name))


def test_all_reasons_at_once() -> None:
    assert len(check_embedding_name("2 Dog.")) == 5


def test_traps_are_warned_of_and_legal() -> None:
    assert check_embedding_name("alphadog") == []
    assert "alpha" in warn_embedding_name("alphadog")[0]
    assert warn_embedding_name("dog") == []
