"""Whether every embedding that is to be trained gets a gradient from its own pictures.

One that gets none stays what it was to the end, and nothing else tells: the loss falls by the network alone. Its name
was not found where its captions say it, or another embedding stood in its place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from lib_pivotal.ports import TrainingBatch

PATIENCE_PICTURES = 8
"""So many pictures of its own without a gradient, one after another, are no chance."""


class GradientWatch:
    """Counts, for each embedding, its own pictures since it last had a gradient; tells once when there are too many."""

    def __init__(self, *, patience_pictures: int = PATIENCE_PICTURES) -> None:
        self._patience = patience_pictures
        self._without: Counter[str] = Counter()
        self._told: set[str] = set()

    def after_step(
        self, batches: Iterable[TrainingBatch], gradient_norms: Mapping[str, float], *, trained: Collection[str]
    ) -> list[str]:
        """After an applied update: what the user must be told, one sentence an embedding, each once a run.

        `gradient_norms` is `Update.gradient_norms`, by group; `trained` are the embeddings that this step was to move.
        """
        own = _pictures_of(batches)
        for name in trained:
            norm = gradient_norms.get(f"word {name}")
            if norm is None or not own[name]:
                continue
            self._without[name] = 0 if norm != 0 else self._without[name] + own[name]
        late = [name for name in trained if self._without[name] >= self._patience and name not in self._told]
        self._told.update(late)
        return [self._sentence(name) for name in late]

    def _sentence(self, name: str) -> str:
        return (
            f"the embedding {name!r} got no gradient over {self._without[name]} of its own pictures: it does not "
            "learn. Its name is not found in its captions, or another embedding stands there. Stop the run; give the "
            "embedding a name of letters that no other has, with a comma or a blank on both sides in the captions"
        )


def _pictures_of(batches: Iterable[TrainingBatch]) -> Counter[str]:
    """Pictures of a step by the embeddings in their captions; one that weighs nothing gives no gradient."""
    found: Counter[str] = Counter()
    for batch in batches:
        weights: Sequence[float] = batch.weights.tolist()
        for names, weight in zip(batch.embeddings, weights, strict=False):
            if weight != 0:
                found.update(set(names))
    return found
