"""Scanning again without losing work: what was changed by hand stays, untouched embeddings follow, new ones are
added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lib_pivotal.config import EmbeddingConfig


@dataclass(frozen=True)
class RescannedRun:
    """Embeddings after a scan, and by name what became of them."""

    embeddings: tuple[EmbeddingConfig, ...]
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


def merged_embeddings(
    now: Sequence[EmbeddingConfig], before: Sequence[EmbeddingConfig], proposed: Sequence[EmbeddingConfig]
) -> RescannedRun:
    """Embeddings on the page now, those that the last scan proposed, and those that this one proposes.

    An embedding that differs from what was proposed (or never was) is the user's and stays; so is the lack of one that
    was proposed. Whether an embedding absorbs is left as it is: presets set it too. Order: the embeddings of now, then
    new ones.
    """
    old = {embedding.name: embedding for embedding in before}
    new = {embedding.name: embedding for embedding in proposed}
    present = {embedding.name for embedding in now}
    embeddings, kept = [], []
    for embedding in now:
        proposal, known = new.get(embedding.name), old.get(embedding.name)
        if known is not None and replace(known, prune=embedding.prune) == embedding:  # untouched
            if proposal is not None:
                embeddings.append(replace(proposal, prune=embedding.prune))
        else:
            embeddings.append(embedding)
            if proposal is None or replace(proposal, prune=embedding.prune) != embedding:
                kept.append(embedding.name)
    removed = tuple(name for name in new if name in old and name not in present)
    added = [embedding for embedding in proposed if embedding.name not in present and embedding.name not in removed]
    return RescannedRun((*embeddings, *added), tuple(kept), tuple(embedding.name for embedding in added), removed)
