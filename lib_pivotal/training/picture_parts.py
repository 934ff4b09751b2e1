"""Parts of the pictures with settings of their own: which settings hold for which picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lib_pivotal.config import DataConfig
from lib_pivotal.data.captions import Cut
from lib_pivotal.data.pruning import applies
from lib_pivotal.data.records import Picture


class PictureParts:
    """The settings of each picture: the run's, with those of the first part that it belongs to over them."""

    def __init__(self, data: DataConfig) -> None:
        self._data = data
        self._own = [(part.applies_to, part.over(data), part.loss_weight) for part in data.parts]
        self.all = (data, *(own for _, own, _ in self._own))
        """Every settings object that `settings_of` can give."""

    def settings_of(self, picture: Picture) -> DataConfig:
        """One object for all pictures of a part."""
        return next((own for pattern, own, _ in self._own if applies([pattern], picture)), self._data)

    def cut(self, pictures: Sequence[Picture]) -> tuple[Picture, ...]:
        """The pictures with their captions cut as these settings say."""
        marks = {data.keep_separator: Cut(data.keep_separator) for data in self.all}
        if len(marks) == 1:
            (common,) = marks.values()
            return tuple(one if one.cut == common else replace(one, cut=common) for one in pictures)
        own = ((one, marks[self.settings_of(one).keep_separator]) for one in pictures)
        return tuple(one if one.cut == cut else replace(one, cut=cut) for one, cut in own)

    def differing(self, pictures: Sequence[Picture]) -> dict[str, DataConfig]:
        """Settings by key of the pictures that belong to a part."""
        found = {picture.key: self.settings_of(picture) for picture in pictures} if self._own else {}
        return {key: data for key, data in found.items() if data is not self._data}

    def loss_weights(self, pictures: Sequence[Picture]) -> dict[str, float]:
        """Weights of the loss by key; those of 1 are left out."""
        weights = {
            picture.key: next((weight for pattern, _, weight in self._own if applies([pattern], picture)), 1.0)
            for picture in (pictures if self._own else ())
        }
        return {key: weight for key, weight in weights.items() if weight != 1.0}
