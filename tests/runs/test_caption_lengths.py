"""Lengths that a plan foretells against captions as training draws them, by CLIP's tokenizer."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lib_pivotal.config import Run, check_run
from lib_pivotal.data.caption_chain import TrainingTime
from lib_pivotal.data.crops import phrase
from lib_pivotal.data.records import Dataset, Picture
from lib_pivotal.data.tokens import TokenCounter
from lib_pivotal.runs.plan import make_plan
from lib_pivotal.standalone.tokenizer import clip_reading
from lib_pivotal.training import assemble
from lib_pivotal.training.pruned_captions import embedding_of_concepts, make_pruned_captions

CAPTIONS = (
    "aoi, 1girl, blue hair, {red hat|very large straw hat|}, smile",
    "saber \\(fate\\), aoi, (school uniform:1.2), ^_^, __place__, |||, looking at viewer",
    "aoi, solo",
)
FIELDS = (("characters", "aoi"), ("artist", "some painter"), ("tags", "hat, green eyes, holding flower"))


def _dataset() -> Dataset:
    pictures = tuple(
        Picture(f"aoi/{n}.png", Path("x"), text, 512, 512, "aoi", fields=FIELDS if n == 2 else ())
        for n, text in enumerate(CAPTIONS)
    )
    pictures += (replace(pictures[2], key="aoi/3.png", fields=(), alternatives=("aoi, a girl who walks by the sea",)),)
    return Dataset(Path("d"), pictures, {"aoi": tuple(picture.key for picture in pictures)}, ())


def _run(**data: Any) -> Run:
    plain = {"words": [{"name": "aoi", "vectors": 6}], "data": {"word_lists": ["place = park | by the sea"], **data}}
    run, faults = check_run(plain)
    assert not faults
    return run


@pytest.mark.parametrize(
    "data",
    [
        {"shuffle_tags": False},
        {"wildcards": True},
        {"wildcards": True, "prefix": "best quality", "suffix": "drawn by hand", "tag_dropout": 0.3},
        {"templates": ["a photo of {word}", "{caption}, {place}", "a small drawing of {word}, {caption}"]},
        {"caption_fields": ["characters = 1", "artist = 0.5", "tags = 1"], "tag_dropout": 0.2},
        {"max_tags": 3, "wildcards": True},
        {"emphasis": False, "wildcards": True},
        {"parts": [{"applies_to": "*/0.png", "templates": ["a very long beginning of {word}, {caption}"]}]},
    ],
    ids=["plain", "wildcards", "around", "templates", "fields", "few_tags", "letters", "parts"],
)
def test_no_caption_is_longer_than_foretold_and_one_is_as_long(data: dict[str, Any]) -> None:
    run, dataset = _run(**data), _dataset()
    plan = make_plan(dataset, run, prompts=clip_reading())
    pictures = make_pruned_captions(run, dataset).captions()
    chain = assemble.make_captions(run, embedding_of_concepts(run.embeddings, dataset), pictures=pictures)
    counter = TokenCounter({"aoi": 6}, clip_reading())
    for picture, foretold in zip(pictures, plan.pictures, strict=True):
        drawn = {chain.draw(picture, rng=random.Random(seed), moment=TrainingTime()) for seed in range(400)}
        lengths = sorted(map(counter, drawn))
        assert lengths[-1] == foretold.tokens, (picture.key, drawn)


@pytest.mark.parametrize("shuffled", [False, True])
def test_what_training_cuts_off_is_what_the_plan_says(shuffled: bool) -> None:
    run, dataset = _run(max_tokens=20, shuffle_tags=shuffled), _dataset()
    plan = make_plan(dataset, run, prompts=clip_reading())
    ids = lambda text: list(clip_reading().token_ids(text))  # noqa: E731
    chain = assemble.make_captions(run, {"aoi": "aoi"}, ids, dataset.pictures)
    counter = TokenCounter({"aoi": 6}, clip_reading())
    (warning,) = [warning for warning in plan.warnings if warning.kind == "tokens"]
    for picture, foretold in zip(dataset.pictures[:2], plan.pictures, strict=False):
        for seed in range(20):
            drawn = chain.draw(picture, rng=random.Random(seed), moment=TrainingTime())
            assert counter(drawn) <= 20 and "aoi" in drawn
            if not shuffled:
                lost = [
                    tag
                    for tag in picture.caption.replace("|||", ",").split(", ")
                    if tag.strip(", ") and tag not in drawn
                ]
                assert list(foretold.behind) == lost
    worst = max(plan.pictures, key=lambda one: one.tokens)
    assert all(f"`{tag}`" in warning.text for tag in worst.behind) and worst.behind


def test_far_and_near_pictures_captions_keep_the_limit() -> None:
    run, dataset = _run(max_tokens=20, shuffle_tags=False, scale_augmentation=True, crops=8), _dataset()
    plan = make_plan(dataset, run, prompts=clip_reading())
    ids = lambda text: list(clip_reading().token_ids(text))  # noqa: E731
    chain = assemble.make_captions(run, {"aoi": "aoi"}, ids, dataset.pictures)
    drawn = chain.draw(dataset.pictures[0], rng=random.Random(0), opening=partial(phrase, "far"))
    assert drawn.startswith(("a far away aoi", "very small aoi"))
    assert TokenCounter({"aoi": 6}, clip_reading())(drawn) <= 20 < plan.pictures[0].tokens
    assert all(tag not in drawn for tag in plan.pictures[0].behind)
