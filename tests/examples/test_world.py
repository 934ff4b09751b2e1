"""The avatar world: captions say what is drawn, and drawing is repeatable."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from examples.avatars.world import (
    ATTRIBUTES,
    HAIR_SPLITS,
    KIND_TAGS,
    LOOKS,
    UNUSUAL_SHARE,
    Avatar,
    Traits,
    caption,
    random_avatar,
    random_base,
    random_generic,
    render,
)


def pixels(avatar: Avatar, style: str = "plain") -> np.ndarray:
    return np.asarray(render(avatar, style=style), np.int16)


@pytest.fixture
def avatar() -> Avatar:
    return Avatar(
        hair="blue",
        hair_style="bob",
        eyes="green",
        skin="fair",
        expression="smile",
        shirt="red",
        accessory="hat",
        background="park",
        position="left",
        scale="close",
    )


def test_caption_names_every_attribute(avatar: Avatar) -> None:
    assert caption(avatar) == (
        "1girl, blue hair, bob cut, green eyes, fair skin, smile, red shirt, hat, park background, left side, close-up"
    )


def test_caption_is_silent_about_ordinary_values(avatar: Avatar) -> None:
    ordinary = replace(avatar, accessory="none", position="centre", scale="medium")
    assert caption(ordinary) == "1girl, blue hair, bob cut, green eyes, fair skin, smile, red shirt, park background"


def test_caption_names_the_kinds_of_unusual_traits_and_nothing_more(avatar: Avatar) -> None:
    shown = replace(avatar, accessory="none", traits=Traits(cape="navy", mark="star", headgear="cat"))
    assert caption(shown) == caption(replace(avatar, accessory="none")) + ", facial mark, cat ears, cape"
    other = replace(shown, traits=Traits(cape="gold", mark="moon", headgear="cat", headgear_colour="lime"))
    assert caption(other) == caption(shown), "neither colours nor how they lie"
    halves = [caption(replace(avatar, traits=Traits(hair_split=split))) for split in HAIR_SPLITS]
    assert len(set(halves)) == 1 and halves[0].endswith(", two-tone hair")


def test_the_base_world_shows_unusual_traits_in_its_share() -> None:
    rng = random.Random(0)
    drawn = [random_base(rng) for _ in range(4000)]
    allowed = UNUSUAL_SHARE * 0.4
    for trait in KIND_TAGS:
        share = sum(trait in avatar.traits.shown for avatar in drawn) / len(drawn)
        assert share == pytest.approx(allowed / 2 if trait == "eye_patch" else allowed, abs=0.025), trait
    assert not any(avatar.traits.headgear and avatar.accessory == "hat" for avatar in drawn)


def test_caption_shuffles_and_drops(avatar: Avatar) -> None:
    tags = set(caption(avatar).split(", "))
    shuffled = [caption(avatar, random.Random(seed)) for seed in range(5)]
    assert len(set(shuffled)) > 1
    assert all(text.startswith("1girl, ") and set(text.split(", ")) == tags for text in shuffled)
    assert caption(avatar, random.Random(0), drop=1.0) == "1girl"


def test_tags_are_unambiguous() -> None:
    tags = [tag for values in ATTRIBUTES.values() for tag in values.values() if tag]
    tags += [tag for values in KIND_TAGS.values() for tag in dict.fromkeys(values.values())]
    assert len(tags) == len(set(tags))


def test_wrong_value_is_named(avatar: Avatar) -> None:
    with pytest.raises(ValueError, match=r"Avatar\.hair is 'teal'; it must be one of black, brown"):
        replace(avatar, hair="teal")


def test_random_avatars_show_every_value_and_nothing_unusual() -> None:
    rng = random.Random(0)
    avatars = [random_avatar(rng) for _ in range(300)]
    for name, values in ATTRIBUTES.items():
        assert {getattr(each, name) for each in avatars} == set(values)
    assert all(each.traits == Traits() for each in avatars)


def test_random_generic_shows_unusual_traits() -> None:
    rng = random.Random(0)
    shown = {trait for _ in range(100) for trait in random_generic(rng).traits.shown}
    assert shown == {"hair_split", "odd_eye", "mark", "headgear", "cape", "eye_patch"}


@pytest.mark.parametrize("look", LOOKS)
def test_rendering_is_deterministic(avatar: Avatar, look: str) -> None:
    picture = render(avatar, style=look)
    assert picture.size == (64, 64)
    assert picture.mode == "RGB"
    assert picture.tobytes() == render(replace(avatar), style=look).tobytes()


@pytest.mark.parametrize("attribute", list(ATTRIBUTES))
def test_every_value_changes_the_picture(avatar: Avatar, attribute: str) -> None:
    bare = replace(avatar, accessory="none", position="centre", scale="medium")
    pictures = [pixels(replace(bare, **{attribute: value})) for value in ATTRIBUTES[attribute]]
    for i, one in enumerate(pictures):
        for other in pictures[:i]:
            changed = np.abs(one - other).max(-1) > 40
            assert changed.sum() >= 20, attribute  # pixels of 4,096, clearly other


@pytest.mark.parametrize("look", LOOKS[1:])
def test_looks_differ_strongly_from_plain(avatar: Avatar, look: str) -> None:
    assert np.abs(pixels(avatar, look) - pixels(avatar)).mean() > 12


def test_unknown_look_is_refused(avatar: Avatar) -> None:
    with pytest.raises(ValueError, match="style is 'cubist'; it must be one of plain, outlined"):
        render(avatar, style="cubist")


def test_other_sizes(avatar: Avatar) -> None:
    big = render(avatar, 128)
    assert big.size == (128, 128)
    small = np.asarray(big.resize((64, 64), 4), np.int16)
    assert np.abs(small - pixels(avatar)).mean() < 4
