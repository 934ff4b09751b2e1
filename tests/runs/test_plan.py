"""The plan against the machinery that it foretells: the batch source's draws and buckets, and a run's own counts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image

from lib_pivotal.config import Run, check_run
from lib_pivotal.data.batches import BatchSource
from lib_pivotal.data.caption_chain import CaptionPipeline
from lib_pivotal.data.dataset import scan
from lib_pivotal.data.latents import LatentCache
from lib_pivotal.data.records import Dataset
from lib_pivotal.ports import LatentDistribution
from lib_pivotal.runs.plan import RunPlan, make_plan
from lib_pivotal.standalone.tokenizer import clip_reading
from lib_pivotal.training import assemble
from lib_pivotal.training.assemble import sampling_weights
from lib_pivotal.training.prepare import prepare_pictures

SIZES = ((64, 64), (96, 64), (64, 80), (40, 40))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two kohya folders of unequal repeats, pictures of four sizes, one of nobody."""
    captions = [f"aoi, blue hair, {tag}" for tag in ("park", "sky", "sea", "city", "hat")]
    captions += [f"hana, green hair, {tag}" for tag in ("park", "sky")] + ["1girl, park"]
    for number, caption in enumerate(captions):
        where = tmp_path / ("2_aoi" if number < 5 else "3_hana")
        where.mkdir(exist_ok=True)
        Image.new("RGB", SIZES[number % 4], (number * 20, 90, 40)).save(where / f"{number}.png")
        (where / f"{number}.txt").write_text(caption, encoding="utf-8")
    return tmp_path


def _run(folder: Path, **changes: object) -> Run:
    plain = {
        "words": [{"name": "aoi", "prune": True}, {"name": "hana", "vectors": 6}],
        "data": {"folder": str(folder), "resolution_px": 64, "bucket_step_px": 8},
        "schedule": {"max_steps": 200, "batch_size": 3, "accumulation": 2},
    }
    for key, value in changes.items():
        section, name = key.split("__")
        plain.setdefault(section, {})[name] = value  # type: ignore[index]
    run, faults = check_run(plain)
    assert not faults
    return run


class FlatCodec:
    """Latents are means of squares of 8 px: what they hold does not matter here."""

    fingerprint = "flat"

    def encode(self, pixels: torch.Tensor) -> LatentDistribution:
        mean = torch.nn.functional.avg_pool2d(pixels, 8).repeat(1, 2, 1, 1)[:, :4]
        return LatentDistribution(mean=mean, std=mean * 0)


def _source(run: Run) -> tuple[BatchSource, LatentCache]:
    """What training draws from, built as training builds it."""
    prepared = prepare_pictures(run)
    cache = LatentCache(FlatCodec(), assemble.make_buckets(run.data))  # type: ignore[arg-type]
    assert not cache.build(list(prepared.pictures))
    source = BatchSource(
        cache,
        prepared.pictures,
        CaptionPipeline(),
        batch_size=run.schedule.batch_size,
        accumulation=run.schedule.accumulation,
        sampling_weights=sampling_weights(run, prepared),
        embeddings=[embedding.name for embedding in run.embeddings],
    )
    return source, cache


def _plan(run: Run) -> tuple[RunPlan, Dataset]:
    dataset = scan(run.data.folder, minimum_px=32)
    return make_plan(dataset, run), dataset


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"data__balance": "words"},
        {"data__balance": "tree"},
        {"saving__separation_every_steps": 50},
        {"data__bucketing": False},
        {"data__upscale": False},
    ],
    ids=str,
)
def test_draws_are_those_of_the_batch_source(folder: Path, changes: dict[str, object]) -> None:
    run = _run(folder, **changes)
    plan, _ = _plan(run)
    source, cache = _source(run)
    scale = run.schedule.max_steps * source.pictures_per_step / source._sampler.samples_per_epoch
    expected = {picture.key: rate * scale for picture, rate in zip(cache.pictures, source._rates, strict=True)}
    assert {p.key: p.samples for p in plan.pictures if not p.held_out} == pytest.approx(expected)
    assert plan.steps_per_epoch == pytest.approx(run.schedule.max_steps / scale)
    for picture in plan.pictures:
        if not picture.held_out:
            bucket = cache.placement(picture.key).bucket
            assert (picture.width_px, picture.height_px) == (bucket.width_px, bucket.height_px)


def test_draws_of_embeddings_are_what_a_run_counts(folder: Path) -> None:
    run = _run(folder, data__balance="embeddings")
    source, _ = _source(run)
    seen: Counter[str] = Counter()
    for step in range(run.schedule.max_steps):
        for micro in range(source.micro_batches):
            seen.update(name for names in source.batch(step, micro).embeddings for name in names)
    plan, _ = _plan(run)
    assert plan.samples == 1200 and {embedding.name for embedding in plan.embeddings} == set(seen)
    for embedding in plan.embeddings:
        assert embedding.samples == pytest.approx(seen[embedding.name], abs=6)
        assert embedding.share == pytest.approx(embedding.samples / 1200)


def test_embeddings_pictures_buckets(folder: Path) -> None:
    plan, dataset = _plan(_run(folder))
    aoi, hana = plan.embeddings
    assert (aoi.pictures, aoi.absorbed, hana.absorbed, hana.vectors) == (5, ("blue hair",), (), 6)
    assert [picture.key for picture in plan.pictures] == [picture.key for picture in dataset.pictures]
    assert plan.pictures[0].trained == "aoi, park" and plan.pictures[0].embeddings == ("aoi",)
    assert sum(bucket.pictures for bucket in plan.buckets) == len(dataset)
    assert sum(bucket.samples for bucket in plan.buckets) == pytest.approx(plan.samples)
    assert plan.buckets[0].pictures >= plan.buckets[-1].pictures


def test_held_out_pictures_are_not_drawn(folder: Path) -> None:
    run = _run(folder, saving__separation_every_steps=50)
    plan, _ = _plan(run)
    held = [picture for picture in plan.pictures if picture.held_out]
    assert {p.key for p in held} == {p.key for p in prepare_pictures(run).held_out} and held
    assert all(picture.samples == 0 for picture in held)


def test_tokens_are_counted_of_the_longest_caption(folder: Path) -> None:
    templates = ["{word}", "a photo of {word}, {caption}, in the sun"]
    run = _run(folder, data__templates=templates, data__prefix="best quality")
    dataset = scan(run.data.folder)
    plan = make_plan(dataset, run, prompts=clip_reading())
    # a photo of [aoi: 4] , best quality , [aoi: 4] , park , in the sun
    assert plan.pictures[0].tokens == 3 + 4 + 1 + 2 + 1 + 4 + 1 + 1 + 1 + 3
    assert plan.tokens_counted and not _plan(run)[0].tokens_counted and plan.tokens_most >= plan.pictures[0].tokens


def test_every_sort_of_finding_is_gathered(folder: Path) -> None:
    (folder / "3_hana" / "6.png").write_bytes(b"no picture")
    plan, _ = _plan(_run(folder))
    kinds = {warning.kind for warning in plan.warnings}
    assert {"unreadable", "few_draws", "no_word", "tags_describe_word", "small_pictures"} <= kinds
    ranks = [("error", "warning", "info").index(warning.severity) for warning in plan.warnings]
    assert ranks == sorted(ranks)
    assert {f.severity for f in plan.at_least("warning")} == {"error", "warning"}


def test_mirroring_can_be_turned_off_for_an_embedding(folder: Path) -> None:
    for file in (folder / "2_aoi").glob("*.txt"):
        file.write_text(file.read_text(encoding="utf-8") + ", eyepatch", encoding="utf-8")
    (warning,) = [f for f in _plan(_run(folder, data__flip=True))[0].warnings if f.kind == "mirrored"]
    assert warning.embeddings == ("aoi",) and warning.fix is not None and warning.fix.id == "no_mirror"
    assert not [f for f in _plan(_run(folder))[0].warnings if f.kind == "mirrored"]


def test_plain_data_goes_through_json(folder: Path) -> None:
    plain = _plan(_run(folder))[0].as_dict()
    assert json.loads(json.dumps(plain))["steps"] == 200
    assert set(plain) >= {"embeddings", "pictures", "buckets", "warnings", "tokens", "epochs", "samples_per_epoch"}
    assert plain["epochs"] == pytest.approx(1200 / 19, abs=1e-3)


def test_a_run_without_embeddings_or_pictures_has_a_plan(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    plan = make_plan(scan(folder), Run())
    assert plan.embeddings == () and plan.samples_per_epoch == 19
    empty = make_plan(scan(tmp_path_factory.mktemp("empty")), _run(folder))
    assert empty.pictures == () and empty.epochs == 0 and empty.at_least("error")
