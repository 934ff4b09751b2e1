"""The avatar world: what a portrait can show, and the tags that say so.

Each value of an attribute has a tag in `ATTRIBUTES`. `Traits` are unusual (two-tone hair, odd eyes, cat ears, ...): the
base checkpoint has seen them, as a real one has seen nearly everything, but under a tag of their *kind* alone
(`KIND_TAGS`), which says neither the colour nor how they lie. The *base world* is what `random_base` draws. A character
is a combination that no tags describe fully.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from examples.avatars.drawing import LOOKS, render

__all__ = [
    "ATTRIBUTES",
    "KIND_TAGS",
    "LOOKS",
    "TRAIT_COLOUR",
    "Avatar",
    "Traits",
    "caption",
    "kind_tags",
    "random_avatar",
    "random_base",
    "random_generic",
    "render",
    "tag_of",
]

SUBJECT_TAG = "1girl"
"""The tag every caption begins with."""

ATTRIBUTES: dict[str, dict[str, str | None]] = {
    "hair": {
        "black": "black hair",
        "brown": "brown hair",
        "blonde": "blonde hair",
        "red": "red hair",
        "blue": "blue hair",
        "green": "green hair",
        "pink": "pink hair",
    },
    "hair_style": {
        "short": "short hair",
        "long": "long hair",
        "twintails": "twintails",
        "bob": "bob cut",
        "spiky": "spiky hair",
    },
    "eyes": {
        "blue": "blue eyes",
        "green": "green eyes",
        "brown": "brown eyes",
        "red": "red eyes",
        "purple": "purple eyes",
    },
    "skin": {"fair": "fair skin", "tan": "tan skin", "dark": "dark skin"},
    "expression": {"smile": "smile", "open": "open mouth", "serious": "frown"},
    "shirt": {
        "white": "white shirt",
        "red": "red shirt",
        "blue": "blue shirt",
        "green": "green shirt",
        "yellow": "yellow shirt",
        "black": "black shirt",
    },
    "accessory": {"none": None, "hat": "hat", "glasses": "glasses", "scarf": "scarf"},
    "background": {
        "white": "white background",
        "purple": "purple background",
        "sky": "sky background",
        "park": "park background",
        "night": "night background",
        "sunset": "sunset background",
    },
    "position": {"centre": None, "left": "left side", "right": "right side"},
    "scale": {"medium": None, "close": "close-up", "far": "from afar"},
}
"""Attribute -> value -> its tag, in the order of a caption; `None`: the ordinary case, which nobody tags."""

HAIR_SPLITS = ("half", "tips", "streak")
MARKS = ("star", "heart", "moon", "cross", "stripes")
HEADGEAR = ("cat", "bunny", "horns", "halo", "antennae", "crown", "sprout", "fins")
ODD_EYES = (*ATTRIBUTES["eyes"], "gold", "cyan")
TRAIT_COLOURS = ("white", "orange", "purple", "cyan", "lime", "crimson", "gold", "navy")
"""Colours of unusual traits; none of them is a hair or shirt colour of the base world, and no tag names them."""
KIND_TAGS: dict[str, dict[str, str]] = {
    "hair_split": dict.fromkeys(HAIR_SPLITS, "two-tone hair"),
    "odd_eye": dict.fromkeys(ODD_EYES, "heterochromia"),
    "mark": dict.fromkeys(MARKS, "facial mark"),
    "headgear": {
        "cat": "cat ears",
        "bunny": "rabbit ears",
        "horns": "horns",
        "halo": "halo",
        "antennae": "antennae",
        "crown": "crown",
        "sprout": "sprout",
        "fins": "head fins",
    },
    "cape": dict.fromkeys(TRAIT_COLOURS, "cape"),
    "eye_patch": dict.fromkeys(TRAIT_COLOURS, "eyepatch"),
}
"""Unusual trait -> value -> the tag of its kind, as a tagger would write it."""
TRAIT_COLOUR = {"hair_split": "hair_second", "mark": "mark_colour", "headgear": "headgear_colour"}
"""Trait -> the field with its colour; the value of the others is their colour."""
UNUSUAL_SHARE = 0.6
"""How many pictures of the base world may show unusual traits."""


@dataclass(frozen=True)
class Traits:
    """Unusual traits, of which captions name the kind at most. `None`: not there."""

    hair_split: str | None = None
    """How a second hair colour lies: one of `HAIR_SPLITS`."""
    hair_second: str = "white"
    odd_eye: str | None = None
    """Colour of the eye on the picture's right, where it differs from the other."""
    mark: str | None = None
    """A big mark on the cheek: one of `MARKS`."""
    mark_colour: str = "crimson"
    headgear: str | None = None
    """Something that grows on or floats over the head: one of `HEADGEAR`."""
    headgear_colour: str = "white"
    cape: str | None = None
    """Colour of a cape over both shoulders."""
    eye_patch: str | None = None
    """Colour of a patch over the eye on the picture's right."""

    @property
    def shown(self) -> tuple[str, ...]:
        """The names of the traits that are there."""
        return tuple(name for name in KIND_TAGS if getattr(self, name) is not None)


@dataclass(frozen=True)
class Avatar:
    """One portrait: a value of each attribute of `ATTRIBUTES`, and the unusual traits."""

    hair: str
    hair_style: str
    eyes: str
    skin: str
    expression: str
    shirt: str
    accessory: str
    background: str
    position: str
    scale: str
    traits: Traits = field(default_factory=Traits)

    def __post_init__(self) -> None:
        for name, values in ATTRIBUTES.items():
            if getattr(self, name) not in values:
                raise ValueError(f"Avatar.{name} is {getattr(self, name)!r}; it must be one of {', '.join(values)}")


def random_avatar(rng: random.Random) -> Avatar:
    """A plain avatar: every attribute drawn evenly, no unusual trait."""
    return Avatar(**{name: rng.choice(list(values)) for name, values in ATTRIBUTES.items()})


def random_base(rng: random.Random) -> Avatar:
    """A picture of the base world: `UNUSUAL_SHARE` of them with unusual traits, each of those at 0.4."""
    avatar = random_avatar(rng)
    if rng.random() >= UNUSUAL_SHARE:
        return avatar
    return fit_accessory(replace(avatar, traits=random_traits(rng)), rng)


def random_traits(rng: random.Random, chance: float = 0.4) -> Traits:
    """Unusual traits at random, each there with probability `chance`."""

    def sometimes(values: tuple[str, ...]) -> str | None:
        return rng.choice(values) if rng.random() < chance else None

    return Traits(
        hair_split=sometimes(HAIR_SPLITS),
        hair_second=rng.choice(TRAIT_COLOURS),
        odd_eye=sometimes(ODD_EYES),
        mark=sometimes(MARKS),
        mark_colour=rng.choice(TRAIT_COLOURS),
        headgear=sometimes(HEADGEAR),
        headgear_colour=rng.choice(TRAIT_COLOURS),
        cape=sometimes(TRAIT_COLOURS),
        eye_patch=rng.choice(TRAIT_COLOURS) if rng.random() < chance / 2 else None,
    )


def random_generic(rng: random.Random) -> Avatar:
    """A picture for the autoencoder, which as a real one has seen everything: half of them with unusual traits.

    Draw the look too (`rng.choice(LOOKS)`) where every style is to be seen.
    """
    avatar = random_avatar(rng)
    if rng.random() < 0.5:
        return avatar
    return fit_accessory(replace(avatar, traits=random_traits(rng)), rng)


def fit_accessory(avatar: Avatar, rng: random.Random) -> Avatar:
    """The avatar without an accessory that would hide its traits: no hat on headgear, no glasses on an eye patch."""
    hidden = {"hat"} if avatar.traits.headgear else set()
    if avatar.traits.eye_patch:
        hidden.add("glasses")
    if avatar.accessory not in hidden:
        return avatar
    return replace(avatar, accessory=rng.choice([name for name in ATTRIBUTES["accessory"] if name not in hidden]))


def tag_of(attribute: str, value: str) -> str | None:
    """The tag that names `value` of `attribute`, `None` for the untagged ordinary case."""
    return ATTRIBUTES[attribute][value]


def kind_tags(traits: Traits) -> list[str]:
    """The tags of the kinds of all traits that are there, in the order of `Traits.shown`."""
    return [KIND_TAGS[name][getattr(traits, name)] for name in traits.shown]


def caption(avatar: Avatar, rng: random.Random | None = None, *, drop: float = 0.0) -> str:
    """Comma-separated tags of the attributes and of the kinds of unusual traits, `1girl` first.

    With `rng` the tags behind the first are shuffled, and each is left out with probability `drop`.
    """
    tags = [tag for name in ATTRIBUTES if (tag := tag_of(name, getattr(avatar, name))) is not None]
    tags += kind_tags(avatar.traits)
    if rng is not None:
        tags = [tag for tag in tags if rng.random() >= drop]
        rng.shuffle(tags)
    return ", ".join([SUBJECT_TAG, *tags])
