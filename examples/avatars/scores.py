"""Scores of generated avatars by a small classifier that has never met the diffusion model.

- *Attribute accuracy*: how often the classifier sees the attributes that the prompt asked for.
- *Identity score* of pictures for a word (character or style): the mean probability that the word's character (or
  style) is in them, from one sigmoid a word. It is strict: half of a character is next to nothing.
- *Graded score* of pictures for a character: the share of its traits that are seen, the describable ones and, of each
  unusual one, its kind and its colour. A picture of somebody else is not worth 0 there, and odd eyes and marks on the
  cheek hardly come through the autoencoder: reports show what random pictures and true ones get.

A character is worth 1 with all of its traits and 0 as a plain avatar that only shares the describable ones (hair, eyes,
skin); between the two the classifier is taught `scores_train.likeness`. `python -m examples.avatars.scores train|check`
makes `weights/scores.safetensors` and measures it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from examples.avatars.characters import CHARACTERS, DESCRIBABLE, STYLES
from examples.avatars.world import ATTRIBUTES, KIND_TAGS, TRAIT_COLOUR, TRAIT_COLOURS, Avatar

WEIGHTS = Path(__file__).parent / "weights" / "scores.safetensors"
CHECKPOINT = WEIGHTS.with_name("avatars.safetensors")
"""The base checkpoint, of which only the autoencoder is used here."""
EMBEDDINGS = (*CHARACTERS, *STYLES)
"""Every word with an identity score, in the order of the classifier's outputs."""
SIZE_PX = 64
SHAPE_VERSION = "3"
"""Changes with the networks' shape or the order of its outputs."""

TRAIT_VALUES: dict[str, tuple[str, ...]] = {
    **{name: ("none", *values) for name, values in KIND_TAGS.items()},
    **dict.fromkeys(TRAIT_COLOUR.values(), TRAIT_COLOURS),
}
"""Field of `Traits` -> what the classifier can see there, "none" first; colours of what is not there mean nothing."""
VALUES: dict[str, tuple[str, ...]] = {name: tuple(values) for name, values in ATTRIBUTES.items()} | TRAIT_VALUES
"""Everything that is read from a picture: attributes, then unusual traits."""

Pictures: TypeAlias = "Tensor | Sequence[Image.Image]"
RoundTrip: TypeAlias = Callable[[Tensor], Tensor]
"""Pictures through an autoencoder: `(n, 3, 64, 64)` in -1..1 to the same."""


class Network(nn.Module):
    """A small convolutional network with named groups of outputs."""

    def __init__(self, groups: Mapping[str, int], *, hidden: int) -> None:
        super().__init__()
        self.groups = dict(groups)
        self.features = nn.Sequential(
            _block(3, 24, stride=2),
            _block(24, 48, stride=2),
            _block(48, 96, stride=2),
            _block(96, 96, stride=1, groups=96),
            _block(96, 24, stride=1, kernel=1),
            nn.Flatten(),
        )
        self.hidden = nn.Sequential(nn.Dropout(0.1), nn.Linear(24 * 64, hidden), nn.SiLU(), nn.Dropout(0.1))
        self.out = nn.Linear(hidden, sum(self.groups.values()))

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Logits of each group, `(n, outputs)`, of pictures in -1..1, `(n, 3, 64, 64)`."""
        logits = self.out(self.hidden(self.features(pictures))).split(list(self.groups.values()), dim=1)
        return dict(zip(self.groups, logits, strict=True))


class Scorer(nn.Module):
    """Who is in a picture, with what attributes, and with what unusual traits: a network for each question.

    The words' network learns attributes beside, which helps it. But it sees the characters most of the time, and soon
    knows their hair's style by its colour; attributes and traits are therefore read by networks that chance taught.
    """

    def __init__(self) -> None:
        super().__init__()
        attributes = {name: len(values) for name, values in ATTRIBUTES.items()}
        self.identity_network = Network({"words": len(EMBEDDINGS)} | attributes, hidden=128)
        self.attribute_network = Network(attributes, hidden=80)
        self.trait_network = Network({name: len(values) for name, values in TRAIT_VALUES.items()}, hidden=128)

    @torch.no_grad()
    def identities(self, pictures: Pictures) -> Tensor:
        """Probability of each word in each picture, `(n, words)` in the order of `EMBEDDINGS`."""
        return torch.cat([self.identity_network(batch)["words"].sigmoid() for batch in as_tensor(pictures).split(256)])

    def identity(self, pictures: Pictures, embedding: str) -> float:
        """The identity score of pictures that should show `word`: its mean probability."""
        if embedding not in EMBEDDINGS:
            raise ValueError(f"word is {embedding!r}; the avatars' words are {', '.join(EMBEDDINGS)}")
        return self.identities(pictures)[:, EMBEDDINGS.index(embedding)].mean().item()

    @torch.no_grad()
    def attributes(self, pictures: Pictures) -> list[dict[str, str]]:
        """The likeliest value of everything in `VALUES`, in each picture."""
        found: list[dict[str, str]] = []
        for batch in as_tensor(pictures).split(256):
            logits_of = {**self.attribute_network(batch), **self.trait_network(batch)}
            best = {name: logits.argmax(1).tolist() for name, logits in logits_of.items()}
            found += [{name: VALUES[name][best[name][i]] for name in best} for i in range(len(batch))]
        return found

    def graded(self, pictures: Pictures, name: str) -> float:
        """The graded score of pictures that should show the character `name`: the share of its traits seen, 0 to 1."""
        shares = [traits_seen(seen, name) for seen in self.attributes(pictures)]
        return sum(shares) / len(shares)

    def attribute_accuracy(self, pictures: Pictures, wanted: Sequence[Avatar]) -> dict[str, float]:
        """Share of pictures in which each attribute is as wanted; their mean as "mean"."""
        found = self.attributes(pictures)
        if len(found) != len(wanted):
            raise ValueError(f"{len(found)} pictures for {len(wanted)} wanted avatars; give one avatar a picture")
        shares = {
            name: sum(seen[name] == getattr(avatar, name) for seen, avatar in zip(found, wanted, strict=True))
            / len(found)
            for name in ATTRIBUTES
        }
        return shares | {"mean": sum(shares.values()) / len(shares)}


def traits_seen(seen: Mapping[str, str], name: str) -> float:
    """The share of a character's traits among what was seen in a picture.

    Each describable trait is one; each unusual one is two: its kind, and, where that is seen at all, its colour. How a
    second hair colour lies is its kind; a cape, a patch or an odd eye has no kind but that it is there.
    """
    character = CHARACTERS[name]
    right = [seen[key] == getattr(character, key) for key in DESCRIBABLE]
    for trait in character.traits.shown:
        wanted = getattr(character.traits, trait)
        if trait in TRAIT_COLOUR:
            there, colour = seen[trait] == wanted, TRAIT_COLOUR[trait]
            right += [there, seen[trait] != "none" and seen[colour] == getattr(character.traits, colour)]
        else:
            right += [seen[trait] != "none", seen[trait] == wanted]
    return sum(right) / len(right)


def _block(inputs: int, outputs: int, *, stride: int, kernel: int = 3, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups)
    return nn.Sequential(conv, nn.GroupNorm(8, outputs), nn.SiLU())


def as_tensor(pictures: Pictures) -> Tensor:
    """Pictures as `(n, 3, 64, 64)` in -1..1; other sizes are brought to 64 pixels."""
    if isinstance(pictures, Tensor):
        if pictures.ndim != 4 or pictures.shape[1] != 3:
            raise ValueError(f"pictures have the shape {tuple(pictures.shape)}; it must be (n, 3, height, width)")
        if pictures.shape[2:] == (SIZE_PX, SIZE_PX):
            return pictures.float().clamp(-1, 1)
        size = (SIZE_PX, SIZE_PX)
        return nn.functional.interpolate(pictures.float(), size, mode="bilinear", antialias=True).clamp(-1, 1)
    rows = []
    for picture in pictures:
        rgb = picture.convert("RGB")
        if rgb.size != (SIZE_PX, SIZE_PX):
            rgb = rgb.resize((SIZE_PX, SIZE_PX), Image.Resampling.BOX)
        rows.append(np.asarray(rgb, np.float32))
    return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2) / 127.5 - 1


def load_scorer(path: Path = WEIGHTS) -> Scorer:
    """The trained classifier."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; `python -m examples.avatars.scores train` makes it")
    scorer = Scorer()
    scorer.load_state_dict({key: value.float() for key, value in load_file(path).items()})
    return scorer.eval().requires_grad_(False)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit status."""
    from examples.avatars import scores_train  # it imports this module

    parser = argparse.ArgumentParser(prog="python -m examples.avatars.scores", description="The avatars' classifier.")
    parser.add_argument("command", choices=("train", "check"))
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument(
        "--autoencoder", type=Path, default=CHECKPOINT, help="SD1 checkpoint with it; default: the avatars' own"
    )
    parser.add_argument("--part", choices=scores_train.PARTS, help="train this network alone, and keep the other")
    parser.add_argument("--held-out", type=int, default=24, help="renders to check each word with, and hard negatives")
    options = parser.parse_args(arguments)
    ruin = scores_train.load_roundtrip(options.autoencoder, **scores_train.RUIN)
    if options.command == "train":
        noisy = scores_train.load_roundtrip(options.autoencoder, latent_noise=scores_train.LATENT_NOISE)
        parts = (options.part,) if options.part else scores_train.PARTS
        scores_train.train(options.weights, noisy, parts=parts, ruin=ruin)
    exact = scores_train.load_roundtrip(options.autoencoder)
    report = scores_train.check(load_scorer(options.weights), exact, ruin=ruin, pictures=options.held_out)
    print(report.table())
    return 0 if report.passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
