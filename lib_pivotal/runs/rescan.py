"""Scanning again without losing work: what was changed by hand stays, untouched words follow, new ones are added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lib_pivotal.config import EmbeddingConfig


@dataclass(frozen=True)
class RescannedRun:
    """Words after a scan, and by name what became of them."""

    words: tuple[EmbeddingConfig, ...]
    kept: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def remarks(self) -> tuple[str, ...]:
        """In words, for the page; nothing where nothing was done by hand."""
        found = []
        if self.kept:
            found.append(f"Kept as they were changed by hand: {', '.join(self.kept)}.")
            if self.added:
                found.append(f"New embeddings in this scan: {', '.join(self.added)}.")
        if self.left_out:
            found.append(f"Not proposed again, as you removed them: {', '.join(self.left_out)}.")
        return (*found, "Press Reset from captions to drop manual changes.") if found else ()


def merged_words(
    now: Sequence[EmbeddingConfig], before: Sequence[EmbeddingConfig], proposed: Sequence[EmbeddingConfig]
) -> RescannedRun:
    """Words on the page now, those that the last scan proposed, and those that this one proposes.

    A word that differs from what was proposed (or never was) is the user's and stays; so is the lack of one that was
    proposed. Whether a word absorbs is left as it is: presets set it too. Order: the words of now, then new ones.
    """
    old = {word.name: word for word in before}
    new = {word.name: word for word in proposed}
    present = {word.name for word in now}
    words, kept = [], []
    for word in now:
        proposal, known = new.get(word.name), old.get(word.name)
        if known is not None and replace(known, prune=word.prune) == word:  # untouched
            if proposal is not None:
                words.append(replace(proposal, prune=word.prune))
        else:
            words.append(word)
            if proposal is None or replace(proposal, prune=word.prune) != word:
                kept.append(word.name)
    removed = tuple(name for name in new if name in old and name not in present)
    added = [word for word in proposed if word.name not in present and word.name not in removed]
    return RescannedRun((*words, *added), tuple(kept), tuple(word.name for word in added), removed)
