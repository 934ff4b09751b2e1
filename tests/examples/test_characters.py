"""The characters: distinct, legally named, and with hard negatives that only lack the unusual traits."""

from __future__ import annotations

import itertools
import random
import re
from dataclasses import replace

import numpy as np
import pytest

from examples.avatars.characters import (
    CHARACTERS,
    DESCRIBABLE,
    STYLES,
    character_avatar,
    describable_tags,
    hard_negative,
    varying_attributes,
)
from examples.avatars.world import ATTRIBUTES, LOOKS, TRAIT_COLOUR, Avatar, Traits, caption, kind_tags, render


def test_sixteen_characters_and_two_styles() -> None:
    assert len(CHARACTERS) == 16
    assert len(STYLES) == 2
    assert set(STYLES.values()) == set(LOOKS) - {"plain", "retro"}


@pytest.mark.parametrize("embedding", [*CHARACTERS, *STYLES])
def test_embeddings_are_legal_names(embedding: str) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_-]*[a-z]", embedding)


def test_describable_traits_are_distinct() -> None:
    assert len({describable_tags(name) for name in CHARACTERS}) == len(CHARACTERS)


@pytest.mark.parametrize("name", CHARACTERS)
def test_two_or_three_unusual_traits(name: str) -> None:
    assert 2 <= len(CHARACTERS[name].traits.shown) <= 3


@pytest.mark.parametrize("name", CHARACTERS)
def test_characters_keep_their_traits_and_vary_the_rest(name: str) -> None:
    rng = random.Random(0)
    shown = [character_avatar(name, rng) for _ in range(80)]
    assert {each.traits for each in shown} == {CHARACTERS[name].traits}
    for key in DESCRIBABLE:
        assert {getattr(each, key) for each in shown} == {getattr(CHARACTERS[name], key)}
    for key in varying_attributes():
        assert len({getattr(each, key) for each in shown}) >= len(ATTRIBUTES[key]) - 2


@pytest.mark.parametrize("name", CHARACTERS)
def test_describable_tags_are_in_every_caption(name: str) -> None:
    tags = describable_tags(name).split(", ")
    assert tags[0] == "1girl"
    assert set(tags) <= set(caption(character_avatar(name, random.Random(1))).split(", "))


@pytest.mark.parametrize("name", CHARACTERS)
def test_hard_negatives_share_the_description_only(name: str) -> None:
    negative = hard_negative(name, random.Random(2))
    assert negative.traits == Traits()
    character = CHARACTERS[name]
    assert all(getattr(negative, key) == getattr(character, key) for key in DESCRIBABLE)


@pytest.mark.parametrize("name", CHARACTERS)
def test_no_tags_describe_a_character_fully(name: str) -> None:
    """The kinds of its unusual traits are said, so core tags and pruning work on them; another character fits too."""
    character = CHARACTERS[name]
    tags = describable_tags(name).split(", ")
    assert set(kind_tags(character.traits)) <= set(tags)
    colours = {key: "cyan" if value != "cyan" else "gold" for key, value in _colours(character.traits).items()}
    other = character_avatar(name, random.Random(5))
    other = replace(other, traits=replace(other.traits, **colours))
    assert set(tags) <= set(caption(other).split(", "))


def _colours(traits: Traits) -> dict[str, str]:
    fields = [TRAIT_COLOUR.get(trait, trait) for trait in traits.shown]
    return {field: getattr(traits, field) for field in fields}


def _alike(name: str) -> np.ndarray:
    """A character with everything that varies at one value."""
    fixed = {key: next(iter(ATTRIBUTES[key])) for key in varying_attributes()}
    character = CHARACTERS[name]
    described = {key: getattr(character, key) for key in DESCRIBABLE}
    return np.asarray(render(Avatar(**fixed, **described, traits=character.traits)), np.int16)


def test_every_character_is_distinct() -> None:
    pictures = {name: _alike(name) for name in CHARACTERS}
    for one, other in itertools.combinations(CHARACTERS, 2):
        changed = np.abs(pictures[one] - pictures[other]).max(-1) > 40
        assert changed.mean() > 0.08, (one, other)


@pytest.mark.parametrize("name", CHARACTERS)
def test_unusual_traits_are_plain_to_see(name: str) -> None:
    rng = random.Random(3)
    avatar = character_avatar(name, rng)
    fixed = {key: getattr(avatar, key) for key in ATTRIBUTES}
    with_traits = np.asarray(render(avatar), np.int16)
    without = np.asarray(render(Avatar(**fixed)), np.int16)
    assert (np.abs(with_traits - without).max(-1) > 40).sum() > 100  # pixels of 4,096
