"""Captions of the base world as token ids, with the freedom of order and length that prompts take."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor

from examples.avatars import world
from lib_pivotal.standalone.tokenizer import clip_tokenizer

PLACES = 77
START, END = 49406, 49407
ALWAYS_TAGGED = [name for name, values in world.ATTRIBUTES.items() if None not in values.values()]
KINDS = {name: list(dict.fromkeys(values.values())) for name, values in world.KIND_TAGS.items()}
"""Unusual trait -> the tags of its kinds."""
TAGS = [tag for values in world.ATTRIBUTES.values() for tag in values.values() if tag is not None]
TAGS += [tag for tags in KINDS.values() for tag in tags]
KIND_MISSED = 0.2
"""How often a tagger misses an unusual trait."""
SIZES = [len(values) for values in world.ATTRIBUTES.values()] + [1 + len(tags) for tags in KINDS.values()]
"""How many values each label has: the attributes', then those of each unusual trait's kind, 0 where none is named."""
UNSPECIFIED = -1
"""Label of an attribute whose tag was left out. Where the ordinary case has no tag, tags are never left out."""


class Captioner:
    """Draws captions: tags in any order; some shortened, a few with words that mean nothing here."""

    def __init__(self, *, empty: float, shortened: float = 0.3, noisy: float = 0.15) -> None:
        """Shares of captions: `empty` (for guidance), `shortened` (tags missing), `noisy` (random words added)."""
        tokenizer = clip_tokenizer()
        embeddings = [world.SUBJECT_TAG, ",", *TAGS]
        self.ids = {embedding: tokenizer(embedding, add_special_tokens=False).input_ids for embedding in embeddings}
        self.empty, self.shortened, self.noisy = empty, shortened, noisy

    def draw(self, avatar: world.Avatar, rng: random.Random) -> tuple[list[int], list[int], list[tuple[int, int]]]:
        """(token ids, labels as in `SIZES` or `UNSPECIFIED`, place and index in `TAGS` of each tag's last token)."""
        values = labels(avatar)
        if rng.random() < self.empty:
            return [], [UNSPECIFIED] * len(values), []
        drop = rng.uniform(0.05, 0.7) if rng.random() < self.shortened else 0.0
        tags = []
        for at, name in enumerate(world.ATTRIBUTES):
            if name in ALWAYS_TAGGED and rng.random() < drop:
                values[at] = UNSPECIFIED
            elif (tag := world.tag_of(name, getattr(avatar, name))) is not None:
                tags.append(tag)
        for at, kinds in enumerate(KINDS.values(), len(world.ATTRIBUTES)):
            if values[at] and rng.random() < max(KIND_MISSED, drop):
                values[at] = UNSPECIFIED
            elif values[at]:
                tags.append(kinds[values[at] - 1])
        rng.shuffle(tags)
        pieces: list[tuple[list[int], int | None]] = [(self.ids[tag], TAGS.index(tag)) for tag in tags]
        if rng.random() < self.noisy:
            for _ in range(rng.randint(1, 3)):
                strange = [rng.randrange(512, START) for _ in range(rng.randint(1, 3))]
                pieces.insert(rng.randint(0, len(pieces)), (strange, None))
        ids, places = list(self.ids[world.SUBJECT_TAG]), []
        for piece, tag_index in pieces:
            if len(ids) + 1 + len(piece) > PLACES - 2:
                break
            ids += [*self.ids[","], *piece]
            if tag_index is not None:
                places.append((len(ids), tag_index))  # counted with the start token
        return ids, values, places

    def batch(
        self, avatars: list[world.Avatar], rng: random.Random
    ) -> tuple[Tensor, Tensor, list[list[tuple[int, int]]]]:
        """(token ids `(n, 77)`, labels `(n, len(SIZES))`, places of the tags)."""
        drawn = [self.draw(avatar, rng) for avatar in avatars]
        rows = np.full((len(drawn), PLACES), END, np.int64)
        rows[:, 0] = START
        for row, (ids, _, _) in zip(rows, drawn, strict=True):
            row[1 : 1 + len(ids)] = ids
        return torch.from_numpy(rows), torch.tensor([d[1] for d in drawn]), [d[2] for d in drawn]


def labels(avatar: world.Avatar) -> list[int]:
    """The value of each attribute, then the kind of each unusual trait (0: not there), as numbers; see `SIZES`."""
    values = [list(options).index(getattr(avatar, name)) for name, options in world.ATTRIBUTES.items()]
    for name, tags in KINDS.items():
        shown = getattr(avatar.traits, name)
        values.append(0 if shown is None else 1 + tags.index(world.KIND_TAGS[name][shown]))
    return values
