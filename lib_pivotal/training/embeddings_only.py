"""Embeddings-only micro-batches: in a share of them the network is off, and the embeddings must explain the picture
alone.

The embeddings are so optimised for a picture without the network in every phase of a run, and the network for what is
left on top of them; no further forward is needed. Published nowhere as far as we know. Neighbours: kohya's
`module_dropout` (each module by itself), and DCO's reference pass (network off, but without gradient).
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class EmbeddingsOnly:
    """Which micro-batches of a run are embeddings-only.

    `share` of them, 0 (none) to below 1; in the others the embeddings' gradient is multiplied by `gradient_factor`.
    The draw is stratified: micro-batches are counted through the run, and of each window of about 1 / min(share,
    1 - share) of them, floor((w+1)·n) - floor(w·n) are off, n = window · share, at random places. So every stretch of
    the run has its share (0.5: one of each two), and no picture that comes at a fixed rhythm meets the same kind each
    time. A micro-batch of a further set (class pictures) goes with the run's own of the same place: `accumulation` is
    the number of the run's own.
    """

    share: float = 0.0
    gradient_factor: float = 1.0
    seed: int = 0
    accumulation: int = 1

    def is_off(self, step: int, micro: int) -> bool:
        """Whether the network is off in micro-batch `micro` of `step`: the same in every process."""
        if self.share <= 0:
            return False
        place = step * self.accumulation + micro % self.accumulation
        window, inner = divmod(place, self._window)
        return inner in self._off_in(window)

    @property
    def _window(self) -> int:
        return max(2, round(1 / min(self.share, 1 - self.share)))

    def _off_in(self, window: int) -> list[int]:
        each = self._window * self.share + 1e-9  # 1e-9: ten windows of 0.1 are one
        count = int((window + 1) * each) - int(window * each)
        return random.Random(f"{self.seed}/embeddings only/{window}").sample(range(self._window), count)
