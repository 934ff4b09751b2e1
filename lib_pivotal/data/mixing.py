"""Several sets of pictures in one step: the run's own, and those that keep the model as it was."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lib_pivotal.data.batches import BatchSource
from lib_pivotal.data.captions import EmbeddingFinder, split_tags
from lib_pivotal.errors import DataError
from lib_pivotal.ports import TrainingBatch

ClassTarget = Literal["picture", "prior"]
"""What class pictures train towards: the picture itself, or the checkpoint's own prediction of it."""
_RANDOM_ROWS = re.compile(r"\*\[[^\]]*\]?")


@dataclass(frozen=True, eq=False)
class PriorSet:
    """A set beside the run's own: its mean loss times `weight` is added to that of the run's own pictures.

    `name` is the name of its loss. A side over the run's own source looks at the same pictures again, at the same noise
    (as ai-toolkit does). `texts` replaces trained embeddings in its captions. With `prior` the target is what the
    model itself predicts, network off and without the embeddings.
    """

    name: str
    source: BatchSource
    weight: float
    texts: Mapping[str, str]
    prior: bool = False


class MixedBatchSource:
    """Batches of all sets by position: first the micro-batches of the run's own set, then those of each side.

    The loop divides the sum of all losses of a step by the number of all pictures in it. The weights here turn that
    into mean(own) + Σ weight · mean(side), which is HCP's sum over data sets and DreamBooth's and Custom Diffusion's
    prior loss. All sets have the same number of micro-batches a step.
    """

    def __init__(self, own: BatchSource, sides: Sequence[PriorSet] = ()) -> None:
        if any(side.source.micro_batches != own.micro_batches for side in sides):
            raise DataError("all sets of a step need the same number of micro-batches. Use the same accumulation.")
        self._own, self._sides = own, tuple(sides)
        self._total = own.pictures_per_step + sum(side.source.pictures_per_step for side in sides)

    @property
    def micro_batches(self) -> int:
        """Micro-batches a step, of all sets."""
        return self._own.micro_batches * (1 + len(self._sides))

    def batch(self, step: int, micro: int = 0) -> TrainingBatch:
        """The same for the same position, whatever was asked before."""
        turn, inner = divmod(micro, self._own.micro_batches)
        if turn == 0:
            batch = self._own.batch(step, inner)
            return replace(batch, weights=batch.weights * (self._total / self._own.pictures_per_step))
        side = self._sides[turn - 1]
        batch = side.source.batch(step, inner)
        share = side.weight * self._total / side.source.pictures_per_step
        captions = [in_other_words(caption, side.texts) for caption in batch.captions]
        embeddings: list[tuple[str, ...]] = [() for _ in captions] if side.texts else batch.embeddings
        weights = batch.weights * share
        again = inner if side.source is self._own else None
        return replace(
            batch,
            captions=captions,
            embeddings=embeddings,
            weights=weights,
            name=side.name,
            again=again,
            prior=side.prior,
        )


def in_other_words(caption: str, texts: Mapping[str, str]) -> str:
    """The caption with each trained embedding replaced by its text; tags that become empty are left out."""
    find = EmbeddingFinder(texts)
    if not find(caption):
        return caption
    replaced = find.replace(caption, texts)
    return ", ".join(split_tags(replaced))


def class_text(init_text: str, common: str = "") -> str:
    """What an embedding is in words that the model knows: `common` if given, else the tags that the embedding begins
    with."""
    if common:
        return common
    text = _RANDOM_ROWS.sub("", init_text)
    return "" if text.strip().lower() in ("random", "zero") else ", ".join(split_tags(text))


def narugo_batch(batch_size: int, *, max_steps: int, reference_steps: int = 10_000, most: int = 16) -> int:
    """Pictures of the second set a step: round(10000·(b + 1)/steps) - b, from 1 to 16.

    A short run sees as many of them as a long one would have seen in all. CyberHarem, cyberharem/train/train.py,
    `train_plora`, https://github.com/deepghs/cyberharem, 99dadff.
    """
    return min(max(round(reference_steps * (batch_size + 1) / max_steps) - batch_size, 1), most)
