"""What the classifier says of a job's sheets: identity and describable traits, by row and by word.

Scoring is apart from training and sampling, so that a better classifier needs no new run.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from PIL import Image

from examples.avatars.characters import CHARACTERS, DESCRIBABLE, character_avatar
from examples.avatars.scores import CHECKPOINT, Pictures, Scorer
from examples.avatars.scores_data import make_renders
from examples.avatars.scores_train import load_roundtrip
from examples.evidence_sheets import load_sheet

RENDERS_PER_EMBEDDING = 32


def score_sheets(scorer: Scorer, folder: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Row -> its scores, for every `<row>.png` in `folder`; the lines of a sheet are the words of `names`."""
    return {path.stem: score_lines(scorer, load_sheet(path), names) for path in sorted(folder.glob("*.png"))}


def score_lines(scorer: Scorer, lines: Sequence[Pictures], names: Sequence[str]) -> dict[str, Any]:
    """`identity` and `describable` (mean over words), `all_four` (see `describable_traits`), `by_word` (identity)."""
    by_embedding = {name: scorer.identity(line, name) for name, line in zip(names, lines, strict=True)}
    traits = [describable_traits(scorer, line, name) for name, line in zip(names, lines, strict=True)]
    return {
        "identity": mean(by_embedding.values()),
        "describable": mean(trait[0] for trait in traits),
        "all_four": mean(trait[1] for trait in traits),
        "by_word": by_embedding,
    }


def describable_traits(scorer: Scorer, pictures: Pictures, name: str) -> tuple[float, float]:
    """Share of a character's hair colour, hair style, eyes and skin that are seen; share of pictures with all four."""
    character = CHARACTERS[name]
    right = [
        [found[trait] == getattr(character, trait) for trait in DESCRIBABLE] for found in scorer.attributes(pictures)
    ]
    return mean(mean(row) for row in right), mean(all(row) for row in right)


def score_renders(scorer: Scorer, names: Sequence[str], *, seed: int = 31) -> dict[str, Any]:
    """The same of true renders through the checkpoint's autoencoder: the most that can be reached."""
    rng = random.Random(seed)
    roundtrip = load_roundtrip(CHECKPOINT)
    lines = []
    for name in names:
        renders = make_renders([(character_avatar(name, rng), "plain") for _ in range(RENDERS_PER_EMBEDDING)])
        lines.append(renders.through(roundtrip).float() / 127.5 - 1)
    return score_lines(scorer, lines, names)


def shown(folder: Path, row: str, *, embeddings: int, each: int) -> list[Image.Image]:
    """The first `each` pictures of the first `words` words of a row, for a figure."""
    return [picture for line in load_sheet(folder / f"{row}.png")[:embeddings] for picture in line[:each]]
