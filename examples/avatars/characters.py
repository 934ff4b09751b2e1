"""Sixteen characters and two styles that no caption of the base world describes: what pivotal tuning is to learn.

A character fixes *describable* traits (hair colour and style, eyes, skin), which tags can ask for, and two or three
unusual ones, of which tags name the kind, but neither the colour nor how they lie. Everything else changes from picture
to picture. The unusual traits are large areas of strong colour, as only such survive the avatars' autoencoder (8x8
latents); a small mark or a thin halo alone would not.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from examples.avatars.world import (
    ATTRIBUTES,
    SUBJECT_TAG,
    Avatar,
    Traits,
    fit_accessory,
    kind_tags,
    random_avatar,
    tag_of,
)

DESCRIBABLE = ("hair", "hair_style", "eyes", "skin")
"""The attributes that a character fixes."""


@dataclass(frozen=True)
class Character:
    """What stays the same in every picture of one character."""

    hair: str
    hair_style: str
    eyes: str
    skin: str
    traits: Traits


def _character(looks: str, **traits: str) -> Character:
    """A character from its describable traits in the order of `DESCRIBABLE` and the unusual ones."""
    return Character(*looks.split(), traits=Traits(**traits))


CHARACTERS: dict[str, Character] = {
    "akavell": _character(
        "black short blue fair",
        hair_split="half",
        hair_second="white",
        headgear="cat",
        headgear_colour="orange",
        cape="crimson",
    ),
    "brunovi": _character(
        "brown long green tan", hair_split="half", hair_second="cyan", headgear="horns", headgear_colour="white"
    ),
    "corrixa": _character("blonde twintails red fair", hair_split="tips", hair_second="purple", cape="navy"),
    "dalmiro": _character("red spiky green tan", hair_split="tips", hair_second="gold", eye_patch="navy", cape="cyan"),
    "ezkiva": _character(
        "blue bob purple dark",
        hair_split="half",
        hair_second="white",
        headgear="halo",
        headgear_colour="gold",
        cape="gold",
    ),
    "fenwyra": _character(
        "green long brown fair", hair_split="half", hair_second="orange", headgear="antennae", headgear_colour="crimson"
    ),
    "gorlund": _character(
        "pink spiky blue dark", hair_split="tips", hair_second="lime", headgear="horns", headgear_colour="navy"
    ),
    "hibikko": _character(
        "pink bob brown fair", headgear="bunny", headgear_colour="navy", odd_eye="blue", cape="crimson"
    ),
    "ixarion": _character("black spiky red tan", hair_split="half", hair_second="gold", odd_eye="cyan", cape="purple"),
    "jorvekka": _character(
        "brown bob blue dark", eye_patch="crimson", headgear="crown", headgear_colour="gold", cape="lime"
    ),
    "kalumi": _character(
        "blue long brown tan",
        hair_split="tips",
        hair_second="white",
        headgear="fins",
        headgear_colour="lime",
        mark="moon",
        mark_colour="navy",
    ),
    "lomarel": _character("red short purple fair", hair_split="half", hair_second="white", cape="lime", odd_eye="gold"),
    "mivetta": _character(
        "green twintails red dark", hair_split="tips", hair_second="gold", headgear="sprout", headgear_colour="lime"
    ),
    "nozomir": _character(
        "black long purple dark",
        hair_split="tips",
        hair_second="crimson",
        headgear="halo",
        headgear_colour="cyan",
        cape="gold",
    ),
    "orsalind": _character("blonde short green dark", hair_split="half", hair_second="crimson", cape="cyan"),
    "pyrrinth": _character(
        "brown twintails purple fair",
        hair_split="half",
        hair_second="crimson",
        headgear="cat",
        headgear_colour="navy",
        odd_eye="gold",
    ),
}
"""Word -> the character. The words are invented, lower case, and stand in no dictionary."""

STYLES: dict[str, str] = {"inkurro": "outlined", "aquavelle": "watercolour"}
"""Word -> the look that it stands for."""


def character_avatar(name: str, rng: random.Random) -> Avatar:
    """A picture of a character: its own traits, everything else at random."""
    character = CHARACTERS[name]
    return fit_accessory(replace(_plain_like(name, rng), traits=character.traits), rng)


def hard_negative(name: str, rng: random.Random) -> Avatar:
    """A plain avatar with the character's describable traits, which the base checkpoint could draw from tags."""
    return fit_accessory(_plain_like(name, rng), rng)


def _plain_like(name: str, rng: random.Random) -> Avatar:
    character = CHARACTERS[name]
    return replace(random_avatar(rng), **{key: getattr(character, key) for key in DESCRIBABLE})


def describable_tags(name: str) -> str:
    """The prompt that comes closest to a character without its word: `1girl`, its describable traits and the kinds."""
    return ", ".join([SUBJECT_TAG, *character_tags(CHARACTERS[name])])


def character_tags(shown: Character | Avatar) -> list[str]:
    """The tags of what a character keeps: its describable traits and the kinds of its unusual ones."""
    tags = (tag_of(key, getattr(shown, key)) for key in DESCRIBABLE)
    return [*(tag for tag in tags if tag), *kind_tags(shown.traits)]


def varying_attributes() -> tuple[str, ...]:
    """The attributes that change from picture to picture of one character."""
    return tuple(name for name in ATTRIBUTES if name not in DESCRIBABLE)
