"""What the avatars' classifier learns from: renders with graded likenesses, roughened as generated pictures are."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from examples.avatars.characters import CHARACTERS, DESCRIBABLE, STYLES, character_avatar, hard_negative
from examples.avatars.scores import SIZE_PX, TRAIT_VALUES, VALUES
from examples.avatars.world import (
    ATTRIBUTES,
    LOOKS,
    TRAIT_COLOUR,
    Avatar,
    Traits,
    fit_accessory,
    random_avatar,
    random_base,
    random_generic,
    random_traits,
    render,
)

KINDS = {"character": 0.46, "hard_negative": 0.18, "partial": 0.06, "other_traits": 0.06, "base": 0.18, "generic": 0.06}
"""Kind of picture -> its share for the words' network; `draw` says what each is. Characters are the most, as what the
autoencoder leaves of one must still count as one."""
ATTRIBUTE_KINDS = {"base": 0.75, "generic": 0.25}
"""The same for the attributes' network."""
TRAIT_KINDS = {"traits": 0.85, "base": 0.15}
"""The same for the unusual traits' network."""
TRAIT_CHANCE = 0.55
"""Of each unusual trait in a picture of the kind "traits"."""
NO_ATTRIBUTE = -100
"""Number of an attribute that is not there; cross entropy passes over it."""
LOOK_SHARES = {"plain": 0.52, "outlined": 0.16, "watercolour": 0.16, "retro": 0.16}


def likeness(avatar: Avatar, name: str) -> float:
    """How much of a character an avatar is: (share of its unusual traits)² times (share of its describable ones)².

    1 for the character, 0 without any of its unusual traits. One of two unusual traits alone is a quarter, and so is
    the whole costume on an avatar of which half the hair, eyes and skin are other. A trait counts in its colour only.
    """
    character = CHARACTERS[name]
    unusual = [_trait(avatar.traits, trait) == _trait(character.traits, trait) for trait in character.traits.shown]
    described = [getattr(avatar, key) == getattr(character, key) for key in DESCRIBABLE]
    return (sum(unusual) / len(unusual)) ** 2 * (sum(described) / len(described)) ** 2


def _trait(traits: Traits, name: str) -> tuple[object, ...]:
    value = getattr(traits, name)
    return (value, getattr(traits, TRAIT_COLOUR[name]) if name in TRAIT_COLOUR else None)


def draw(kind: str, rng: random.Random) -> Avatar:
    """One avatar of a kind of `KINDS`.

    `character`: as it is. `hard_negative`: plain, with a character's describable traits. `partial`: a character that
    lacks some unusual traits. `other_traits`: a character's describable traits with unusual ones drawn at random, or
    its costume on describable traits of which one or two are other. `base`, `generic`: as the world draws them.
    `traits`: plain with many unusual ones.
    """
    name = rng.choice(list(CHARACTERS))
    if kind == "traits":
        return fit_accessory(replace(random_avatar(rng), traits=random_traits(rng, TRAIT_CHANCE)), rng)
    if kind == "character":
        return character_avatar(name, rng)
    if kind == "hard_negative":
        return hard_negative(name, rng)
    if kind == "partial":
        avatar = character_avatar(name, rng)
        shown = list(avatar.traits.shown)
        lost = rng.sample(shown, rng.randint(1, len(shown) - 1))
        return replace(avatar, traits=replace(avatar.traits, **dict.fromkeys(lost)))
    if kind == "other_traits":
        if rng.random() < 0.5:
            return fit_accessory(replace(hard_negative(name, rng), traits=random_traits(rng)), rng)
        changed = {key: rng.choice(list(ATTRIBUTES[key])) for key in rng.sample(DESCRIBABLE, rng.randint(1, 2))}
        return replace(character_avatar(name, rng), **changed)
    return random_generic(rng) if kind == "generic" else random_base(rng)


@dataclass
class Renders:
    """Pictures with what the classifier should say of them."""

    pictures: Tensor
    """`(n, 3, 64, 64)`, uint8."""
    embeddings: Tensor
    """`(n, words)`, targets of the sigmoids."""
    attributes: Tensor
    """`(n, len(VALUES))`, the number of each one's value."""

    def through(self, roundtrip: Callable[[Tensor], Tensor], *, count: int | None = None) -> Tensor:
        """The (first `count`) pictures after a round trip through an autoencoder, uint8."""
        return torch.cat([to_bytes(roundtrip(to_floats(batch))) for batch in self.pictures[:count].split(100)])

    def ruined(self, ruin: Callable[[Tensor], Tensor], *, count: int) -> Renders:
        """The last `count` pictures spoiled beyond recognition: no word's, and of no attribute."""
        pictures = torch.cat([to_bytes(ruin(to_floats(batch))) for batch in self.pictures[-count:].split(100)])
        nothing = torch.full_like(self.attributes[-count:], NO_ATTRIBUTE)
        return Renders(pictures, torch.zeros_like(self.embeddings[-count:]), nothing)

    def followed_by(self, other: Renders) -> Renders:
        """These, then the others."""
        return Renders(
            torch.cat([self.pictures, other.pictures]),
            torch.cat([self.embeddings, other.embeddings]),
            torch.cat([self.attributes, other.attributes]),
        )


def to_floats(pictures: Tensor) -> Tensor:
    """uint8 to -1..1."""
    return pictures.float() / 127.5 - 1


def to_bytes(pictures: Tensor) -> Tensor:
    """-1..1 to uint8."""
    return ((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def make_renders(avatars: list[tuple[Avatar, str]]) -> Renders:
    """Draw avatars, each in its look, with their targets."""
    pictures = np.stack([np.asarray(render(avatar, SIZE_PX, look)) for avatar, look in avatars])
    embeddings = [
        [likeness(avatar, name) for name in CHARACTERS] + [float(look == style) for style in STYLES.values()]
        for avatar, look in avatars
    ]
    numbers = [numbers_of(avatar) for avatar, _ in avatars]
    return Renders(
        torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous(), torch.tensor(embeddings), torch.tensor(numbers)
    )


def numbers_of(avatar: Avatar) -> list[int]:
    """The number of everything in `VALUES`, `NO_ATTRIBUTE` for the colour of what is not there."""
    numbers = [VALUES[name].index(getattr(avatar, name)) for name in ATTRIBUTES]
    hidden = {colour for trait, colour in TRAIT_COLOUR.items() if getattr(avatar.traits, trait) is None}
    for name, values in TRAIT_VALUES.items():
        shown = getattr(avatar.traits, name) or "none"
        numbers.append(NO_ATTRIBUTE if name in hidden else values.index(shown))
    return numbers


def training_renders(count: int, *, seed: int, shares: Mapping[str, float] = KINDS) -> Renders:
    """`count` pictures for training, in the `shares` of kinds and in `LOOK_SHARES`."""
    rng = random.Random(seed)
    kinds = rng.choices(list(shares), list(shares.values()), k=count)
    looks = rng.choices(list(LOOK_SHARES), list(LOOK_SHARES.values()), k=count)
    return make_renders([(draw(kind, rng), look) for kind, look in zip(kinds, looks, strict=True)])


def held_out(embedding: str, count: int, *, seed: int) -> tuple[Renders, Renders]:
    """True renders of a word, and its hard negatives.

    Of a character: itself in every look, and plain avatars with its describable traits (half), other characters (a
    quarter) and avatars of the base world (a quarter). Of a style: avatars and characters in it, and the same in the
    other looks.
    """
    rng = random.Random(f"{seed} {embedding}")
    looks = [rng.choices(list(LOOK_SHARES), list(LOOK_SHARES.values()))[0] for _ in range(count)]
    if embedding in CHARACTERS:
        true = [(character_avatar(embedding, rng), look) for look in looks]
        others = [name for name in CHARACTERS if name != embedding]
        false = []
        for i, look in enumerate(looks):
            if i % 4 == 0:
                false.append((character_avatar(rng.choice(others), rng), look))
            else:
                false.append((random_avatar(rng) if i % 4 == 1 else hard_negative(embedding, rng), look))
        return make_renders(true), make_renders(false)
    shown = [random_avatar(rng) if i % 2 else character_avatar(rng.choice(list(CHARACTERS)), rng) for i in range(count)]
    wrong = [look for look in LOOKS if look != STYLES[embedding]]
    return make_renders([(a, STYLES[embedding]) for a in shown]), make_renders([(a, rng.choice(wrong)) for a in shown])


def soft_copy(pictures: Tensor) -> Tensor:
    """A stand-in for an autoencoder's round trip: fine detail lost. -1..1, `(n, 3, 64, 64)`."""
    small = F.interpolate(pictures, scale_factor=0.5, mode="area")
    return F.interpolate(small, scale_factor=2.0, mode="bicubic", antialias=False).clamp(-1, 1)


def blotches(pictures: Tensor) -> Tensor:
    """A stand-in for what vectors grown too far make of a picture: bright blotches, little else."""
    generator = torch.Generator().manual_seed(len(pictures))
    noise = torch.randn((len(pictures), 3, 9, 9), generator=generator)
    noise = 2.5 * F.interpolate(noise, size=(SIZE_PX, SIZE_PX), mode="bicubic")
    return (0.25 * pictures + noise).clamp(-1, 1)


class Roughener:
    """Makes batches in -1..1 look generated: shifted, blurred, off in colour, blotchy, noisy, each by chance."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator
        self.noise = torch.randn((3, 4 * SIZE_PX, 4 * SIZE_PX), generator=generator)
        """Drawn once, and each batch takes a piece: fresh noise would cost more than the network's forward pass."""

    def __call__(self, pictures: Tensor) -> Tensor:
        across, down = torch.randint(0, 7, (2,), generator=self.generator).tolist()
        out = F.pad(pictures, (3, 3, 3, 3), mode="replicate")
        out = out[:, :, down : down + SIZE_PX, across : across + SIZE_PX]
        sigma = 0.4 + 0.8 * torch.rand((), generator=self.generator).item()
        out = torch.lerp(out, _blur(out, sigma), self._each(pictures, -0.6, 1.0).clamp(min=0))
        grey = out.mean(1, keepdim=True)
        contrast = self._each(pictures, 0.85, 1.12)
        colour = self._each(pictures, 0.75, 1.2) * contrast
        shift = self._each(pictures, -0.1, 0.1) + self._each(pictures, -0.08, 0.08, channels=3)
        out = torch.lerp(grey * contrast, out * contrast, colour / contrast) + shift
        blotches = self._each(pictures, -0.1, 0.15).clamp(min=0) * self._piece(8)
        grain = self._each(pictures, -0.05, 0.1).clamp(min=0) * self._piece(SIZE_PX)
        return (out + blotches + grain).clamp_(-1, 1)

    def _each(self, pictures: Tensor, low: float, high: float, *, channels: int = 1) -> Tensor:
        """A number for each picture (and channel), evenly from low to high."""
        return low + (high - low) * torch.rand((len(pictures), channels, 1, 1), generator=self.generator)

    def _piece(self, cells: int) -> Tensor:
        """Noise of `cells` a side, enlarged to a picture, `(1, 3, 64, 64)`."""
        x, y = torch.randint(0, 4 * SIZE_PX - cells, (2,), generator=self.generator).tolist()
        piece = self.noise[None, :, y : y + cells, x : x + cells]
        return piece if cells == SIZE_PX else F.interpolate(piece, size=(SIZE_PX, SIZE_PX), mode="bilinear")


def _blur(pictures: Tensor, sigma: float) -> Tensor:
    x = torch.arange(-3, 4, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, 1, 7).repeat(3, 1, 1, 1)
    padded = F.pad(pictures, (3, 3, 3, 3), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel, groups=3), kernel.transpose(2, 3), groups=3)
