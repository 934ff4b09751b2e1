"""What norms and spreads the vectors of a checkpoint should have: measured on its token table, or each vector's own.

cloneofsimo's clip_ti_decay and OneTrainer take the median of *all* rows. Most of a vocabulary is seldom or never
trained, and its rows then have the norm of their initialisation and not that of words which mean something: on the
avatars' text model, which learnt a few dozen words, the median row has a norm of 0.164, that of noise, and the rows of
its own tags 0.31; vectors pulled towards the former say little (docs/embeddings.md). CLIP's own table has such rows,
too: fragments of words and signs that its captions did not hold. So the default measures the rows of tokens that the
run itself uses, in its captions and init texts: the text encoder has learnt to read these, at the norms that they have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib_pivotal.embeddings.vectors import TrainedEmbeddings
from lib_pivotal.errors import EmbeddingNameError
from lib_pivotal.ports import TextEncoder, VocabularyStats


@dataclass(frozen=True)
class NormTargets:
    """Norm and standard deviation by tower; with `own`, each vector's own norm and each embedding's own spread at the
    start, where these are not zero."""

    norms: tuple[float, ...]
    stds: tuple[float, ...]
    own: bool = False

    def norm(self, embeddings: TrainedEmbeddings, name: str, tower: int) -> Tensor | float:
        """Of the vectors of an embedding: one number, or `(vectors, 1)`."""
        common = _of_tower(self.norms, tower, name)
        if not self.own:
            return common
        norms = embeddings.starts[name][tower].norm(dim=1, keepdim=True)
        return torch.where(norms > 0, norms, common)

    def std(self, embeddings: TrainedEmbeddings, name: str, tower: int) -> Tensor | float:
        """Of all entries of an embedding."""
        common = _of_tower(self.stds, tower, name)
        if not self.own:
            return common
        std = embeddings.starts[name][tower].std()
        return torch.where(std > 0, std, common)


def _of_captions(encoder: TextEncoder, texts: Iterable[str]) -> NormTargets:
    rows = used_rows(encoder, texts)
    return _medians([VocabularyStats.of(tower) for tower in rows] if rows else encoder.vocabulary_stats())


def _of_starts(encoder: TextEncoder, texts: Iterable[str]) -> NormTargets:
    common = _of_captions(encoder, texts)  # for vectors that start at zero
    return NormTargets(common.norms, common.stds, own=True)


def _of_vocabulary(encoder: TextEncoder, texts: Iterable[str]) -> NormTargets:
    return _medians(encoder.vocabulary_stats())


def _mean_of_vocabulary(encoder: TextEncoder, texts: Iterable[str]) -> NormTargets:
    stats = encoder.vocabulary_stats()
    return NormTargets(tuple(tower.mean_norm for tower in stats), tuple(tower.std for tower in stats))


def _medians(stats: Sequence[VocabularyStats]) -> NormTargets:
    return NormTargets(tuple(tower.median_norm for tower in stats), tuple(tower.std for tower in stats))


NORM_TARGETS: dict[str, Callable[[TextEncoder, Iterable[str]], NormTargets]] = {
    "captions": _of_captions,
    "initial": _of_starts,
    "median": _of_vocabulary,
    "mean": _mean_of_vocabulary,
}


def norm_target_names() -> tuple[str, ...]:
    """Choices of `embeddings_common.norm_target`."""
    return tuple(NORM_TARGETS)


def norm_targets(name: str, encoder: TextEncoder, texts: Iterable[str] = ()) -> NormTargets:
    """The targets of that name on a checkpoint; `texts` are the run's captions and init texts, without the names of
    its embeddings."""
    if name not in NORM_TARGETS:
        raise EmbeddingNameError(f"norm_target = {name!r}: unknown; use one of {', '.join(norm_target_names())}")
    return NORM_TARGETS[name](encoder, texts)


def used_rows(encoder: TextEncoder, texts: Iterable[str]) -> tuple[Tensor, ...]:
    """The rows of the tokens of `texts`, each once, `(tokens, width)` a tower; nothing where they have none."""
    found: dict[int, tuple[Tensor, ...]] = {}
    for text in dict.fromkeys(texts):
        ids = encoder.token_ids(text)
        if any(token not in found for token in ids):
            towers = encoder.embed_text(text)
            found |= {token: tuple(tower[place] for tower in towers) for place, token in enumerate(ids)}
    return tuple(torch.stack(rows) for rows in zip(*found.values(), strict=True))


def _of_tower(targets: Sequence[float], tower: int, name: str) -> float:
    if tower >= len(targets):
        raise EmbeddingNameError(
            f"embedding {name!r} has a tower {tower}, but the vocabulary of only {len(targets)} was measured"
        )
    return targets[tower]
