"""The avatars' judge as a picture scorer: an example of `lib_pivotal.evaluation.picture_scorers.PictureScorer`."""

from __future__ import annotations

from collections.abc import Sequence

from examples.avatars.scores import EMBEDDINGS, load_scorer
from lib_pivotal.evaluation.picture_scorers import ScoredPicture


class AvatarScorer:
    """The probability that a picture's character (or style) is in it; nothing of names that the judge does not know."""

    def __init__(self) -> None:
        self._judge = load_scorer()

    def score(self, pictures: Sequence[ScoredPicture]) -> list[float | None]:
        """One probability a picture."""
        return [
            self._judge.identity([one.picture], one.embedding) if one.embedding in EMBEDDINGS else None
            for one in pictures
        ]
