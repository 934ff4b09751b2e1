"""Metadata of one picture, as people's tools write it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_pivotal.data.metadata import LONGEST_CAPTION, Entry, entry_of

WAIFUC = {
    "filename": "a.png",
    "tags": {"solo": 0.9, "long_hair": 0.99, "hat_(red)": 0.95, "^_^": 0.1},
    "characters": ["AobaKokona|none|summer+hat", "unknown"],
    "copyright": ["yama_no_susume"],
    "artist": "anonymous",
    "n_people": 1,
    "type": "screenshots",
    "rating": "general",
    "crop": {"type": "halfbody"},
}


@pytest.mark.parametrize(
    ("plain", "captions"),
    [
        ("a, b", ("a, b",)),
        ("a\nb,\n", ("a, b",)),
        (["one", "two", "one", 3], ("one", "two")),
        ({"caption": "a girl"}, ("a girl",)),
        ({"tags": "hat, smile"}, ("hat, smile",)),
        ({"caption": "a girl", "tags": "hat, smile", "train_resolution": [512, 512]}, ("a girl, hat, smile",)),
        ({"text": "a girl"}, ("a girl",)),
        ({"caption": ["one", "two"]}, ("one", "two")),
        ({"tags": {"low": 0.1, "high_tag": 0.9}}, ("high tag, low",)),
        ({"tags": {"high_tag": 0.9}, "caption": "aoi, high tag"}, ("aoi, high tag",)),
        ({"tags": ["red_hat", "c", "o_o"]}, ("red hat, c, o_o",)),
        ({"tags": {"x": 1}, "processed_tags": ["kept"]}, ("kept",)),
        ({"tag_string": "long_hair saber_(fate)"}, (r"long hair, saber \(fate\)",)),
        ({"face": [0, 0, 1, 1]}, ()),
        ({}, ()),
        (None, ()),
        (3, ()),
        ("", ()),
        ("x" * (LONGEST_CAPTION + 1), ()),
    ],
)
def test_captions(plain: Any, captions: tuple[str, ...]) -> None:
    assert entry_of(plain).captions == captions


def test_waifucs_fields_as_kgrid_puts_them() -> None:
    assert entry_of(WAIFUC) == Entry(
        captions=(r"long hair, hat \(red\), solo, ^_^",),
        fields=(
            ("npeople", "1person"),
            ("characters", "AobaKokona, summer hat"),
            ("copyright", "from yama_no_susume"),
            ("type", "screenshots"),
            ("crop", "halfbody cropped"),
            ("tags", r"long hair, hat \(red\), solo, ^_^"),
        ),
        image_type="screenshots",
    )


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("A", "A"),
        ("A|none", "A"),
        ("A|long hair", "A long hair"),
        ("A|_x|none|hat", "A_x, hat"),
        ("A||x+y|z", "A, x y, z"),
        ("A B|_x y", "A_B_x_y"),
    ],
)
def test_names_of_characters(written: str, said: str) -> None:
    """As kgrid's `Character.to_string(" ", ", ", caption_style=True)` gives them."""
    assert dict(entry_of({"characters": [written]}).fields)["characters"] == said


_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4) | st.sampled_from(
        ["caption", "tags", "text", "characters", "crop", "type", "n_people", "rating", "tag_string", "artist"]
    ), inner, max_size=6),
    max_leaves=20,
)  # fmt: skip


@given(_PLAIN)
def test_any_metadata_gives_plain_captions(plain: Any) -> None:
    entry = entry_of(plain)
    for text in (*entry.captions, *(text for _, text in entry.fields)):
        assert text and "\n" not in text and text == text.strip()
        text.encode("utf-8")
