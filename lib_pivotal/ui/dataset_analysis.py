"""What the Data page knows of a scanned folder under the settings of now; each part is made when it is asked for."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import cached_property

from lib_pivotal.config import Run
from lib_pivotal.data.pruning import Decision, PrunedCaptions
from lib_pivotal.data.records import Dataset, Picture
from lib_pivotal.data.tags import same_tag
from lib_pivotal.prompts import PromptReading
from lib_pivotal.runs.plan import RunPlan, make_plan
from lib_pivotal.runs.proposal import EmbeddingRow, rows_of
from lib_pivotal.training.pruned_captions import embedding_use, make_pruned_captions, tag_rules
from lib_pivotal.ui.picture_filter import PictureIndex, TagIndex

KEPT = 4


class DatasetAnalysis:
    """A dataset with a run's settings: captions with embeddings, rows of embeddings, and an index to filter pictures
    by."""

    def __init__(self, dataset: Dataset, run: Run, prompts: PromptReading | None = None) -> None:
        self.dataset, self.run, self.prompts = dataset, run, prompts

    def under(self, run: Run, prompts: PromptReading | None = None) -> DatasetAnalysis:
        """The same pictures under other settings; what does not depend on the difference is taken over."""
        other = DatasetAnalysis(self.dataset, run, prompts)
        self._hand_over(other, "tags")
        if wording := self._revised(run):
            other.__dict__["wording"] = wording
            if wording is self.wording:
                self._hand_over(other, "index", "places")
            if self.run.embeddings == run.embeddings and self.run.data == run.data:
                self._hand_over(other, "rows")
        return other

    @cached_property
    def tags(self) -> TagIndex:
        """Which pictures have which tag, as the files say."""
        return TagIndex(self.dataset.pictures)

    @cached_property
    def wording(self) -> PrunedCaptions:
        """The captions with the run's embeddings."""
        return make_pruned_captions(self.run, self.dataset)

    @cached_property
    def rows(self) -> tuple[EmbeddingRow, ...]:
        """The run's embeddings with what the pictures say of them."""
        return rows_of(self.run, self.dataset, self.wording)

    @cached_property
    def plan(self) -> RunPlan:
        """What the run will do; lengths of captions are estimated where no tokenizer is there.

        Raises:
            PivotalError: a setting of sizes is none.
        """
        return make_plan(self.dataset, self.run, wording=self.wording, prompts=self.prompts)

    @cached_property
    def index(self) -> PictureIndex:
        """For filters."""
        return PictureIndex(self.tags, self.wording.embeddings_of)

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Where each picture is in `wording.named`, by key."""
        return {picture.key: place for place, picture in enumerate(self.wording.named)}

    def named(self, key: str) -> Picture:
        """A picture with the embeddings that the run gives it in its caption."""
        return self.wording.named[self.places[key]]

    def pair(self, key: str) -> tuple[Picture, Picture]:
        """A picture as its embeddings name it, and as it is trained."""
        named = self.named(key)
        return named, self.wording.pruned(named)

    def fates(self, embeddings: Sequence[str]) -> dict[str, Decision]:
        """What these embeddings make of tags, by form: those that any of them takes."""
        found: dict[str, Decision] = {}
        for embedding in embeddings:
            for tag in self.wording.embeddings[embedding].tags if embedding in self.wording.embeddings else ():
                if tag.fate != "kept":
                    found[same_tag(tag.tag)] = tag.fate
        return found

    # ---- parts

    def _revised(self, run: Run) -> PrunedCaptions | None:
        """The wording under other settings, where it need not be read anew."""
        if (
            "wording" not in self.__dict__
            or tag_rules(run.data) != tag_rules(self.run.data)
            or _written(run) != _written(self.run)
        ):
            return None
        uses = [embedding_use(embedding) for embedding in run.embeddings]
        return self.wording if tuple(uses) == self.wording.uses else self.wording.revised(uses)

    def _hand_over(self, other: DatasetAnalysis, *names: str) -> None:
        for name in names:
            if name in self.__dict__:
                other.__dict__[name] = self.__dict__[name]


def _written(run: Run) -> tuple[object, ...]:
    """What writes embeddings into captions."""
    return run.data.prefix, run.data.suffix, run.data.templates, run.data.parts


class AnalysisCache:
    """The last analyses, so that a change of one setting costs only what hangs on it."""

    def __init__(self) -> None:
        self._kept: list[DatasetAnalysis] = []
        self._lock = threading.Lock()

    def of(self, dataset: Dataset, run: Run, prompts: PromptReading | None = None) -> DatasetAnalysis:
        """The analysis of a dataset under a run; `prompts` is how the loaded checkpoint reads captions."""
        with self._lock:  # one at a time: two requests for the same thing would make it twice
            mine = [analysis for analysis in self._kept if analysis.dataset is dataset]
            found = next((analysis for analysis in mine if (analysis.run, analysis.prompts) == (run, prompts)), None)
            if found is None:
                found = mine[-1].under(run, prompts) if mine else DatasetAnalysis(dataset, run, prompts)
            others = [analysis for analysis in self._kept if analysis is not found]
            self._kept = [*others, found][-KEPT:]
            return found
