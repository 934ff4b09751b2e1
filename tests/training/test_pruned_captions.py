"""Settings into words, tags, rates and held-out pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib_pivotal.config import DataConfig, EmbeddingConfig, Run, SavingConfig
from lib_pivotal.data.captions import EmbeddingFinder
from lib_pivotal.data.records import Dataset, Picture
from lib_pivotal.training.pruned_captions import (
    embedding_of_concepts,
    hold_out,
    make_pruned_captions,
    samples_by_repeats,
    sampling_rates,
    tag_rules,
)


def dataset(*pictures: tuple[str, str]) -> Dataset:
    made = tuple(
        Picture(f"{concept}/{n}.png", Path("x"), caption, 64, 64, concept, n % 3 + 1)
        for n, (concept, caption) in enumerate(pictures)
    )
    return Dataset(Path("d"), made, {p.concept: tuple(q.key for q in made if q.concept == p.concept) for p in made}, ())


def run_of(*embeddings: EmbeddingConfig | str, **data: object) -> Run:
    made = tuple(EmbeddingConfig(embedding) if isinstance(embedding, str) else embedding for embedding in embeddings)
    return Run(embeddings=made, data=DataConfig(**data))  # type: ignore[arg-type]


def test_zero_means_the_rules_own() -> None:
    rules = tag_rules(run_of().data)
    assert (rules.threshold, rules.drop_difficulty, rules.dropped_below) == (None, None, 3)
    rules = tag_rules(run_of(core_rule="kgrid", core_threshold=0.6).data)
    assert (rules.threshold, rules.dropped_below) == (0.6, 2)
    assert tag_rules(run_of(drop_difficulty=1).data).dropped_below == 1


def test_which_embedding_a_concepts_templates_mean() -> None:
    data = dataset(("Aoi Hino", "1girl"), ("hana", "1girl"), ("others", "1girl"))
    run = run_of(EmbeddingConfig("blue-one", applies_to=("concept:others",)), "aoi-hino", "hana")
    assert embedding_of_concepts(run.embeddings, data) == {"Aoi Hino": "aoi-hino", "hana": "hana", "others": "blue-one"}
    assert embedding_of_concepts(run_of("kaze").embeddings, data) == dict.fromkeys(
        ("Aoi Hino", "hana", "others"), "kaze"
    )
    assert embedding_of_concepts(run_of("kaze", "fumi").embeddings, data) == {}


@pytest.mark.parametrize(
    ("settings", "embeddings_of_first"),
    [
        ({}, ()),
        ({"templates": ("a photo of {word}",)}, ("aoi",)),
        ({"templates": ("[name], [filewords]",)}, ("aoi",)),
        ({"templates": ("a photo of hana",)}, ("hana",)),
        ({"prefix": "hana, best quality"}, ("hana",)),
        ({"suffix": "by hana"}, ("hana",)),
    ],
)
def test_embeddings_that_settings_write_are_in_the_pictures(
    settings: dict, embeddings_of_first: tuple[str, ...]
) -> None:
    data = dataset(("aoi", "1girl"), ("hana", "1girl"))
    wording = make_pruned_captions(run_of("aoi", "hana", **settings), data)
    assert wording.embeddings_of["aoi/0.png"] == embeddings_of_first


def test_rates() -> None:
    data = dataset(("aoi", "aoi"), ("aoi", "aoi"), ("hana", "hana"), ("hana", "hana"))
    embeddings = [(p.concept,) for p in data.pictures]
    assert sampling_rates(run_of("aoi", "hana"), data.pictures, embeddings) == [1.0, 2.0, 3.0, 1.0]
    even = sampling_rates(run_of("aoi", "hana", balance="embeddings"), data.pictures, embeddings)
    assert even[0] + even[1] == pytest.approx(even[2] + even[3], rel=0.01)
    assert sampling_rates(run_of("aoi", "hana", balance="tree"), data.pictures, embeddings) == [1.0, 1.0, 1.0, 1.0]
    weighted = run_of(
        EmbeddingConfig("aoi", sampling_weight=3.0), "hana", balance="tree", balance_weights=("hana = 2",)
    )
    assert sampling_rates(weighted, data.pictures, embeddings) == [3.0, 3.0, 2.0, 2.0]
    assert samples_by_repeats(run_of("aoi")) and not samples_by_repeats(weighted)


def test_pictures_are_held_out_only_for_the_score() -> None:
    data = dataset(*[("aoi", "aoi")] * 45, *[("hana", "hana")] * 12, *[("kaze", "kaze")] * 4, ("others", "1girl"))
    run = run_of("aoi", "hana", "kaze")
    find = EmbeddingFinder([embedding.name for embedding in run.embeddings])
    assert hold_out(run, data.pictures, find=find) == (list(data.pictures), [])
    scored = Run(embeddings=run.embeddings, saving=SavingConfig(separation_every_steps=10))
    trained, held = hold_out(scored, data.pictures, find=find)
    counts = {name: sum(p.concept == name for p in held) for name in ("aoi", "hana", "kaze", "others")}
    assert counts == {"aoi": 4, "hana": 2, "kaze": 0, "others": 0}
    assert {p.key for p in trained} | {p.key for p in held} == {p.key for p in data.pictures}
    assert len(trained) + len(held) == len(data)
