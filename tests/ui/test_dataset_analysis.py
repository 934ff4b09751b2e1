"""Surveys: under other settings the same as made anew, and only what must be is made again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lib_pivotal.config import DataConfig, EmbeddingConfig, Run
from lib_pivotal.data.dataset import scan
from lib_pivotal.ui.dataset_analysis import AnalysisCache, DatasetAnalysis

AOI = EmbeddingConfig("aoi", prune=True, init_text="blue hair")
RUN = Run(embeddings=(AOI, EmbeddingConfig("hana")))
PARTS = ("tags", "wording", "rows", "index", "places")


def _made(analysis: DatasetAnalysis) -> DatasetAnalysis:
    for name in PARTS:
        getattr(analysis, name)
    return analysis


@pytest.mark.parametrize(
    ("run", "kept"),
    [
        (replace(RUN, seed=7, schedule=replace(RUN.schedule, max_steps=9)), PARTS),
        (replace(RUN, data=replace(RUN.data, balance="embeddings")), ("tags", "wording", "index", "places")),
        (replace(RUN, embeddings=(replace(AOI, vectors=9), RUN.embeddings[1])), ("tags", "wording", "index", "places")),
        (replace(RUN, embeddings=(replace(AOI, keep_tags=("blue hair",)), RUN.embeddings[1])), ("tags",)),
        (replace(RUN, embeddings=(AOI,)), ("tags",)),
        (replace(RUN, data=replace(RUN.data, prefix="hana")), ("tags",)),
        (replace(RUN, data=replace(RUN.data, prune_mode="none")), ("tags",)),
    ],
)
def test_what_hangs_on_the_difference_is_made_again(pictures, run, kept) -> None:
    analysis = _made(DatasetAnalysis(scan(pictures), RUN))
    other = analysis.under(run)
    assert {name for name in PARTS if other.__dict__.get(name) is analysis.__dict__[name]} == set(kept)
    fresh = DatasetAnalysis(analysis.dataset, run)
    assert other.rows == fresh.rows and other.wording.captions() == fresh.wording.captions()
    assert other.pair("0.png") == fresh.pair("0.png") and other.fates(["aoi"]) == fresh.fates(["aoi"])


def test_the_same_question_is_answered_once(pictures) -> None:
    analyses, dataset = AnalysisCache(), scan(pictures)
    run = replace(RUN, data=DataConfig(folder=str(pictures)))
    first = analyses.of(dataset, run)
    assert analyses.of(dataset, run) is first
    assert analyses.of(dataset, replace(run, seed=3)) is not first
    assert analyses.of(scan(pictures), run) is not first
