"""Batches: deterministic by position, the same for any number of processes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from lib_pivotal.data.batches import BatchSource, seed_of
from lib_pivotal.data.buckets import Buckets
from lib_pivotal.data.caption_chain import CaptionPipeline, CaptionSettings
from lib_pivotal.data.crops import PHRASES
from lib_pivotal.data.dataset import scan
from lib_pivotal.data.latents import LatentCache
from lib_pivotal.errors import DataError
from lib_pivotal.ports import TrainingBatch


@pytest.fixture
def cache(tmp_path: Path, add: Callable[..., Path], codec) -> LatentCache:
    for number in range(5):
        add(f"set/2_hanako/{number}.png", (64, 64), caption=f"hanako, hat, tag{number}, smile")
    for number in range(4):
        add(f"set/1_taro/{number}.png", (96, 48), caption=f"photo of Taro with hanako's hat, tag{number}")
    made = LatentCache(codec, Buckets(64, 16), flip={"hanako"})
    made.build(scan(tmp_path / "set").pictures)
    return made


def _source(cache: LatentCache, **options: object) -> BatchSource:
    captions = CaptionPipeline(CaptionSettings(shuffle=True, tag_dropout=0.3), protected=["hanako", "taro"])
    settings: dict = {"batch_size": 4, "embeddings": ["hanako", "taro"], "seed": 7, **options}
    return BatchSource(cache, cache.pictures, captions, **settings)


def _equal(first: TrainingBatch, second: TrainingBatch) -> bool:
    return (
        torch.equal(first.latents, second.latents)
        and (first.captions, first.keys, first.embeddings) == (second.captions, second.keys, second.embeddings)
        and torch.equal(first.weights, second.weights)
    )


def _joined(batches: list[TrainingBatch]) -> TrainingBatch:
    return TrainingBatch(
        latents=torch.cat([batch.latents for batch in batches]),
        captions=[caption for batch in batches for caption in batch.captions],
        mask=None,
        weights=torch.cat([batch.weights for batch in batches]),
        keys=[key for batch in batches for key in batch.keys],
        embeddings=[embeddings for batch in batches for embeddings in batch.embeddings],
    )


def test_a_batch(cache: LatentCache) -> None:
    halved = {picture.key: 0.5 for picture in cache.pictures if picture.concept == "taro"}
    batch = _source(cache, loss_weights=halved).batch(0)
    assert batch.latents.shape[:2] == (4, 4) and batch.latents.dtype == torch.float32
    assert batch.mask is None and batch.sizes is not None and batch.sizes.shape == (4, 6)
    for key, caption, embeddings, weight in zip(
        batch.keys, batch.captions, batch.embeddings, batch.weights, strict=True
    ):
        assert embeddings == (("hanako",) if "hanako" in key else ("taro", "hanako"))
        assert "hanako" in caption
        assert float(weight) == (0.5 if "taro" in key else 1.0)


def test_sizes_are_sdxls(cache: LatentCache) -> None:
    source = _source(cache)
    batch = next(found for step in range(50) if "taro" in (found := source.batch(step)).keys[0])
    placement = cache.placement(batch.keys[0])
    assert batch.sizes is not None and batch.sizes[0].tolist() == [
        48, 96, placement.top_px, placement.left_px, placement.bucket.height_px, placement.bucket.width_px,
    ]  # fmt: skip


def test_sizes_follow_the_mirror(tmp_path: Path, add, codec) -> None:
    """The cut in the mirrored picture, found by cutting a picture whose columns are numbered."""
    add("wide/a.png", (300, 100), caption="x")
    cache = LatentCache(codec, Buckets(64, bucketing=False), flip=True)
    cache.build(scan(tmp_path / "wide").pictures)
    placement = cache.placement("a.png")
    columns = list(range(placement.resized_px[0]))
    for flip in (False, True):
        trained = columns[placement.left_px : placement.box_px[2]]
        trained, whole = (trained[::-1], columns[::-1]) if flip else (trained, columns)
        assert cache.sizes("a.png", flip=flip) == [100, 300, 0, whole.index(trained[0]), 64, 64]
    source = BatchSource(cache, cache.pictures, CaptionPipeline(), batch_size=1)
    for step in range(20):
        sizes = source.batch(step).sizes
        assert sizes is not None and sizes[0].tolist() == cache.sizes("a.png", flip=source.draws(step)[0].flip)


def test_inpainting_comes_with_the_batch(tmp_path: Path, add, codec) -> None:
    add("i/a.png", caption="x")
    cache = LatentCache(codec, Buckets(64), inpainting=True)
    cache.build(scan(tmp_path / "i").pictures)
    batch = BatchSource(cache, cache.pictures, CaptionPipeline(), batch_size=2).batch(0)
    assert batch.inpaint is not None and batch.inpaint.shape == (2, 5, 8, 8) and bool((batch.inpaint[:, 0] == 1).all())
    assert batch.mask is None


def test_a_batch_is_the_same_whatever_was_asked_before(cache: LatentCache) -> None:
    source = _source(cache, accumulation=2)
    walked = [source.batch(index // 2, index % 2) for index in range(24)]
    other = _source(cache, accumulation=2)
    for index in reversed(range(24)):
        assert _equal(other.batch(index // 2, index % 2), walked[index])


def test_an_epoch_draws_each_picture_by_its_repeats(cache: LatentCache) -> None:
    source = _source(cache, batch_size=1)
    drawn = Counter(source.batch(step).keys[0] for step in range(14 * 3))
    assert all(drawn[key] == (6 if "hanako" in key else 3) for key in drawn) and len(drawn) == 9


def test_draws_by_weights(cache: LatentCache) -> None:
    weights = {"1_taro/0.png": 3.0, "2_hanako/0.png": 1.0}
    source = _source(cache, batch_size=2, sampling_weights=weights)
    drawn = Counter(key for step in range(400) for key in source.batch(step).keys)
    assert set(drawn) == set(weights)
    assert drawn["1_taro/0.png"] / drawn["2_hanako/0.png"] == pytest.approx(3.0, rel=0.05)
    with pytest.raises(DataError, match="sampling_weights"):
        _source(cache, sampling_weights={"unknown": 1.0})


def test_embeddings_are_never_lost_from_captions(cache: LatentCache) -> None:
    source = _source(cache)
    assert all("hanako" in embeddings for step in range(60) for embeddings in source.batch(step).embeddings)


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_share_one_global_batch(cache: LatentCache, world_size: int) -> None:
    alone = _source(cache, accumulation=2)
    ranks = [_source(cache, accumulation=2, rank=rank, world_size=world_size) for rank in range(world_size)]
    for step in range(12):
        for micro in range(2):
            together = _joined([rank.batch(step, micro) for rank in ranks])
            assert _equal(together, alone.batch(step, micro))


def test_draw_numbers_are_global(cache: LatentCache) -> None:
    source = _source(cache, rank=1, world_size=2, accumulation=3)
    assert [draw.index for draw in source.draws(2, 1)] == [(2 * 3 + 1) * 4 + 2, (2 * 3 + 1) * 4 + 3]


def test_latent_choices(cache: LatentCache) -> None:
    mean = _source(cache, latents="mean", batch_size=1)
    draw = _source(cache, latents="draw", batch_size=1)
    drawn: dict[tuple[str, bool], list[torch.Tensor]] = {}
    for step in range(42):
        turn = draw.draws(step)[0]
        entry = cache.get(turn.key, flip=turn.flip)
        assert torch.equal(mean.batch(step).latents[0], entry.mean)
        drawn.setdefault((turn.key, turn.flip), []).append((draw.batch(step).latents[0] - entry.mean) / entry.std)
    assert not any(torch.equal(group[0], latents) for group in drawn.values() for latents in group[1:])
    noise = torch.cat([z.flatten() for group in drawn.values() for z in group])
    assert abs(float(noise.mean())) < 0.05 and abs(float(noise.std()) - 1.0) < 0.05


def test_half_of_the_draws_are_mirrored(cache: LatentCache) -> None:
    turns = [draw for step in range(200) for draw in _source(cache).draws(step)]
    flips = [draw.flip for draw in turns if "hanako" in draw.key]
    assert 0.4 < sum(flips) / len(flips) < 0.6
    assert not any(draw.flip for draw in turns if "taro" in draw.key)


def test_views_are_drawn_evenly_and_said(tmp_path: Path, add, codec) -> None:
    add("v/a.png", caption="aoi, hat")
    cache = LatentCache(codec, Buckets(64), crops=6, scale=True)
    cache.build(scan(tmp_path / "v").pictures)
    source = BatchSource(
        cache,
        cache.pictures,
        CaptionPipeline(CaptionSettings(shuffle=True), protected=["aoi"]),
        batch_size=2,
        embeddings=["aoi"],
    )
    count: Counter[int] = Counter()
    for step in range(300):
        batch = source.batch(step)
        for draw, caption, sizes in zip(source.draws(step), batch.captions, batch.sizes, strict=True):
            count[draw.view] += 1
            distance = cache.views("a.png")[draw.view].distance
            assert any(caption == said + tags for said in PHRASES[distance] for tags in ("aoi, hat", "hat, aoi"))
            assert sizes.tolist() == cache.sizes("a.png", view=draw.view)
        assert batch.embeddings == [("aoi",), ("aoi",)]
    views = len(cache.views("a.png"))
    assert set(count) == set(range(views)) and min(count.values()) > 0.7 * 600 / views
    silent = BatchSource(cache, cache.pictures, CaptionPipeline(CaptionSettings(caption_dropout=1.0)), batch_size=4)
    assert all(silent.batch(step).captions == [""] * 4 for step in range(10))


def test_masks_are_stacked_with_ones(tmp_path: Path, add, codec) -> None:
    add("m/a.png", caption="x")
    add("m/b.png", caption="x")
    (tmp_path / "m/mask").mkdir()
    half = Image.new("L", (64, 64), 0)
    half.paste(255, (0, 0, 32, 64))
    half.save(tmp_path / "m/mask/a.png")
    cache = LatentCache(codec, Buckets(64), masks="linear")
    cache.build(scan(tmp_path / "m").pictures)
    batch = BatchSource(cache, cache.pictures, CaptionPipeline(), batch_size=2).batch(0)
    assert batch.mask is not None and batch.mask.shape == (2, 1, 8, 8)
    masks = dict(zip(batch.keys, batch.mask, strict=True))
    assert torch.equal(masks["b.png"], torch.ones(1, 8, 8)) and float(masks["a.png"].max()) == 2.0


def test_masks_left_out_by_chance(tmp_path: Path, add, codec) -> None:
    add("m/a.png", caption="x")
    (tmp_path / "m/mask").mkdir()
    half = Image.new("L", (64, 64), 0)
    half.paste(255, (0, 0, 32, 64))
    half.save(tmp_path / "m/mask/a.png")
    add("m/strip.png", (640, 64), caption="x")  # shown whole: its border never counts
    cache = LatentCache(codec, Buckets(64, most_cropped=0.1), masks="linear")
    cache.build(scan(tmp_path / "m").pictures)
    source = BatchSource(cache, cache.pictures, CaptionPipeline(), batch_size=1, unmasked=0.25)
    drawn = [source.batch(step) for step in range(400)]
    assert all(_equal(source.batch(step), drawn[step]) for step in (3, 50))
    masked = [batch.mask is not None for batch in drawn if batch.keys == ["a.png"]]
    assert 0.65 < sum(masked) / len(masked) < 0.85
    bordered = [batch.mask for batch in drawn if batch.keys == ["strip.png"]]
    assert bordered and all(mask is not None and float(mask.min()) == 0.0 for mask in bordered)


def test_a_batch_costs_little(cache: LatentCache) -> None:
    """CPU time: a step on the avatars takes over 100 ms, so 2 ms for a batch of 4 is under 2 %; typical is 0.5 ms."""
    source = _source(cache)
    source.batch(0)
    begin = time.process_time()
    for step in range(1, 101):
        source.batch(step)
    assert (time.process_time() - begin) / 100 < 0.004  # twice, as the machine may be busy


def test_wrong_settings(cache: LatentCache, codec) -> None:
    with pytest.raises(DataError, match="Build the latent cache"):
        _source(LatentCache(codec, Buckets(64)))
    with pytest.raises(DataError, match="batch_size = 0"):
        _source(cache, batch_size=0)
    with pytest.raises(DataError, match="rank = 2 of 2"):
        _source(cache, rank=2, world_size=2)
    with pytest.raises(DataError, match="cannot be shared among 3"):
        _source(cache, world_size=3)
    with pytest.raises(DataError, match="micro-batch 1"):
        _source(cache).batch(0, 1)


def test_seeds_are_the_same_everywhere() -> None:
    assert seed_of("a") == seed_of("a") != seed_of("b")
    assert 0 <= seed_of("anything") < 2**63
    assert seed_of("a") == int.from_bytes(__import__("hashlib").blake2b(b"a", digest_size=8).digest(), "little") >> 1
