"""Several sets in one step: the sum that the formulas say, and captions without the words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib_pivotal.data.batches import BatchSource
from lib_pivotal.data.buckets import Buckets
from lib_pivotal.data.caption_chain import CaptionPipeline
from lib_pivotal.data.dataset import scan
from lib_pivotal.data.latents import LatentCache
from lib_pivotal.data.mixing import MixedBatchSource, PriorSet, class_text, in_other_words, narugo_batch
from lib_pivotal.errors import DataError


@pytest.fixture
def make_source(tmp_path: Path, add: Callable[..., Path], codec) -> Callable[..., BatchSource]:
    def make(name: str, captions: list[str], **options: object) -> BatchSource:
        for number, caption in enumerate(captions):
            add(f"{name}/{number}.png", caption=caption)
        cache = LatentCache(codec, Buckets(64))
        cache.build(scan(tmp_path / name).pictures)
        return BatchSource(cache, cache.pictures, CaptionPipeline(), embeddings=["aoi", "hana"], **options)  # type: ignore[arg-type]

    return make


@pytest.mark.parametrize(("accumulation", "weight"), [(1, 1.0), (3, 0.25)])
def test_the_loops_mean_is_the_sum_of_means(make_source, accumulation: int, weight: float) -> None:
    """The loop adds all losses and divides by the number of all pictures (`Trainer._accumulate`)."""
    own = make_source("own", ["aoi, hat", "hana, coat"], batch_size=4, accumulation=accumulation)
    kept = make_source("kept", ["1girl", "1girl, hat"], batch_size=3, accumulation=accumulation)
    mixture = MixedBatchSource(
        own, [PriorSet("class", kept, weight, {}), PriorSet("again", own, 0.5, {"aoi": "1girl", "hana": ""}, True)]
    )
    assert mixture.micro_batches == 3 * accumulation
    batches = [mixture.batch(5, micro) for micro in range(mixture.micro_batches)]
    assert [b.name for b in batches] == ["loss"] * accumulation + ["class"] * accumulation + ["again"] * accumulation
    assert [b.prior for b in batches] == [False] * 2 * accumulation + [True] * accumulation
    losses = [torch.rand(len(b.keys), generator=torch.Generator().manual_seed(n)) for n, b in enumerate(batches)]
    total = sum(float((loss * b.weights).sum()) for loss, b in zip(losses, batches, strict=True))
    total /= sum(len(b.keys) for b in batches)
    means = [float(torch.cat(losses[n * accumulation : (n + 1) * accumulation]).mean()) for n in range(3)]
    assert total == pytest.approx(means[0] + weight * means[1] + 0.5 * means[2])


def test_the_same_pictures_without_their_embeddings(make_source) -> None:
    own = make_source("own", ["aoi, hat", "hana, coat"], batch_size=2)
    mixture = MixedBatchSource(own, [PriorSet("preservation", own, 1.0, {"aoi": "1girl, red hair", "hana": ""}, True)])
    first, second = mixture.batch(0, 0), mixture.batch(0, 1)
    assert first.keys == second.keys and torch.equal(first.latents, second.latents)
    assert sorted(second.captions) == ["1girl, red hair, hat", "coat"] and second.embeddings == [(), ()]
    assert sorted(first.captions) == ["aoi, hat", "hana, coat"]
    assert torch.equal(mixture.batch(0, 1).weights, torch.full((2,), 2.0))


def test_one_set_is_as_it_was(make_source) -> None:
    own = make_source("own", ["aoi, hat", "hana, coat"], batch_size=2, accumulation=2)
    mixture = MixedBatchSource(own)
    assert mixture.micro_batches == 2
    assert torch.equal(mixture.batch(3, 1).weights, own.batch(3, 1).weights)
    assert mixture.batch(3, 1).captions == own.batch(3, 1).captions
    other = make_source("other", ["x"], batch_size=2)
    with pytest.raises(DataError, match="same number of micro-batches"):
        MixedBatchSource(own, [PriorSet("x", other, 1.0, {})])


def test_in_other_embeddings() -> None:
    texts = {"aoi": "1girl", "hana": ""}
    assert in_other_words("Aoi, smile, hana, hat", texts) == "1girl, smile, hat"
    assert in_other_words("photo of aoi with hana, hat", texts) == "photo of 1girl with, hat"
    assert in_other_words("aois,  odd   spacing ", texts) == "aois,  odd   spacing "  # no word: not touched
    assert in_other_words("aoi", {}) == "aoi"


def test_class_text() -> None:
    assert class_text("1girl, red hair, *[0.1,2]") == "1girl, red hair"
    assert class_text("*[0.017,3], cat, *[0.1,1], tail") == "cat, tail"
    assert class_text("random") == class_text("zero") == class_text("") == class_text("*[0.1,4]") == ""
    assert class_text("random", "1boy") == "1boy"


def test_narugos_rule() -> None:
    """By hand: 10000·5/10000 - 4 = 1; 10000·5/2500 - 4 = 16; 10000·5/5000 - 4 = 6; cut to 16 and to 1."""
    assert [narugo_batch(4, max_steps=steps) for steps in (10_000, 2_500, 5_000, 800, 50_000)] == [1, 16, 6, 16, 1]
    assert narugo_batch(8, max_steps=6_000) == 7


@given(st.integers(1, 64), st.integers(1, 200_000))
def test_narugos_rule_stays_in_range(batch_size: int, steps: int) -> None:
    assert 1 <= narugo_batch(batch_size, max_steps=steps) <= 16
