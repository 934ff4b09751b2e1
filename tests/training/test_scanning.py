"""Parts of the pictures with settings of their own: captions, cuts, masks, mirroring and weights of the loss."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest
import torch
from PIL import Image

from lib_pivotal.config import check_run, run_from_dict, run_to_dict
from lib_pivotal.data.captions import split_tags
from lib_pivotal.training.build import batch_source, make_latents
from lib_pivotal.training.distributed import ProcessGroup
from lib_pivotal.training.events import StepDone
from lib_pivotal.training.prepare import prepare_pictures
from lib_pivotal.training.pruned_captions import make_pruned_captions
from lib_pivotal.training.scanning import PictureParts
from tests.conftest import write_pictures
from tests.training.runs import compiled, train

CAPTION = "aoi, one, two, three, four, five"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three red and three blue pictures, twice as wide as high, their upper half transparent."""
    write_pictures(tmp_path / "d", {f"{kind}/{n}": CAPTION for kind in ("red", "blue") for n in range(3)})
    for number, path in enumerate(sorted((tmp_path / "d").rglob("*.png"))):
        picture = Image.new("RGBA", (160, 64), (40 * number, 90, 200, 255))
        picture.paste((0, 0, 0, 0), (0, 0, 160, 32))
        picture.save(path)
    return tmp_path / "d"


def _run(folder: Path, *parts: dict[str, object], **data: object):
    return run_from_dict(
        {
            "name": "parts",
            "words": [{"name": "aoi", "vectors": 2}],
            "network": {"unet_rank": 1},
            "data": {
                "folder": str(folder),
                "resolution_px": 64,
                "bucket_step_px": 64,
                "bucketing": False,
                "shuffle_tags": False,
                **data,
                "parts": list(parts),
            },
            "schedule": {"max_steps": 4, "batch_size": 2},
            "saving": {"state_every_steps": 0, "dtype": "fp32"},
        }
    )


def _drawn(run, host, steps: int = 40) -> dict[str, list[tuple[str, float]]]:
    """Captions and weights by the first folder, as the run's own source draws them."""
    found = defaultdict(list)
    prepared = compiled(run)
    cache, _ = make_latents(prepared.latents, host)
    source = batch_source(prepared.batches, cache, ProcessGroup(), host.text.token_ids)
    for step in range(steps):
        batch = source.batch(step)
        for key, caption, weight in zip(batch.keys, batch.captions, batch.weights.tolist(), strict=True):
            found[key.partition("/")[0]].append((caption, weight))
    return found


def test_captions_and_weights_of_a_part_are_its_own(folder: Path, tiny_host) -> None:
    part = {"applies_to": "concept:red", "shuffle_tags": True, "keep_first": 2, "loss_weight": 0.25}
    drawn = _drawn(_run(folder, part), tiny_host)
    assert set(drawn["blue"]) == {(CAPTION, 1.0)}
    assert {weight for _, weight in drawn["red"]} == {0.25}
    assert all(caption.startswith("aoi, one, ") for caption, _ in drawn["red"])
    assert all(set(split_tags(caption)) == set(split_tags(CAPTION)) for caption, _ in drawn["red"])
    assert len({caption for caption, _ in drawn["red"]}) > 3


def test_the_first_part_that_fits_counts(folder: Path, tiny_host) -> None:
    drawn = _drawn(
        _run(
            folder,
            {"applies_to": "red/0.png", "caption_dropout": 0.0},
            {"applies_to": "red/*", "caption_dropout": 1.0},
            {"applies_to": "*", "templates": ["a picture of {caption}"]},
        ),
        tiny_host,
    )
    assert {caption for caption, _ in drawn["red"]} == {"", CAPTION}
    assert {caption for caption, _ in drawn["blue"]} == {f"a picture of {CAPTION}"}


def test_pictures_of_a_part_are_shown_in_its_way(folder: Path, tiny_host) -> None:
    part = {"applies_to": "red/*", "crop": "random", "crops": 3, "flip": True, "transparency": "mask"}
    run = _run(folder, part)
    plan = compiled(run).latents
    assert plan.flip == {f"red/{n}.png" for n in range(3)}
    assert set(plan.own) == plan.flip
    cache, problems = make_latents(plan, tiny_host)
    assert problems == []
    for key in (picture.key for picture in cache.pictures):
        red = key.startswith("red")
        assert cache.flips(key) is red and len(cache.views(key)) == (3 if red else 1)
        assert (cache.get(key).mask is not None) is red
        if not red:
            assert cache.placement(key).left_px == (160 - 64) // 2
    assert len({cache.placement(f"red/{n}.png").left_px for n in range(3)}) > 1


def test_masks_of_a_part(folder: Path, tiny_host) -> None:
    for kind in ("red", "blue"):
        (folder / kind / "mask").mkdir()
        Image.new("L", (160, 64), 127).save(folder / kind / "mask" / "0.png")
    run = _run(folder, {"applies_to": "blue/*", "masks": "hcp_exact"})
    cache, _ = make_latents(compiled(run).latents, tiny_host)
    assert cache.get("red/0.png").mask is None
    assert torch.allclose(cache.get("blue/0.png").mask, torch.ones(1, 8, 8))


def test_a_template_of_a_part_may_write_the_embedding(folder: Path) -> None:
    for path in folder.rglob("*.txt"):
        path.write_text("one, two", encoding="utf-8")
    run = _run(folder, {"applies_to": "red/*", "templates": ["{word}, {caption}"]})
    wording = make_pruned_captions(run, prepare_pictures(run).dataset)
    assert sorted(wording.embeddings["aoi"].keys) == [f"red/{n}.png" for n in range(3)]


def test_a_weight_of_nothing_trains_nothing(folder: Path, tiny_host, tmp_path: Path) -> None:
    events: list[object] = []
    run = _run(folder, {"applies_to": "*", "loss_weight": 0.0})
    train(run, tiny_host, output_folder=tmp_path / "out", listener=events.append)
    assert [event.losses["loss"] for event in events if isinstance(event, StepDone)] == [0.0] * 4


def test_settings_survive_run_json_and_faults_are_told(folder: Path) -> None:
    run = _run(folder, {"applies_to": "red/*", "keep_first": 2, "tag_dropout_classes": ["/a|b/ = 0.5"]})
    again, faults = check_run(run_to_dict(run))
    assert again == run and faults == []
    parts = [{"applies_to": " "}, {"applies_to": "a", "tag_dropout": 2.0}, {"applies_to": "a", "crop": "left"}]
    parts += [{"applies_to": "a", "tag_dropout_classes": ["hat"]}, {"applies_to": "a", "resolution_px": 512}]
    faults = check_run({**run_to_dict(run), "data": {"parts": parts}})[1]
    assert [fault.field for fault in faults] == [
        "data.parts.1.tag_dropout",
        "data.parts.2.crop",
        "data.parts.4.resolution_px",
        "data.parts.0.applies_to",
        "data.parts.3.tag_dropout_classes",
    ]


def test_several_cuts_need_cuts_that_differ_in_some_part() -> None:
    embeddings = {"words": [{"name": "aoi"}]}
    assert [f.field for f in check_run({**embeddings, "data": {"crops": 4}})[1]] == ["data.crops"]
    varied = {"crops": 4, "parts": [{"applies_to": "red/*", "crop": "random"}]}
    assert check_run({**embeddings, "data": varied})[1] == []


def test_without_parts_nothing_is_looked_at(folder: Path) -> None:
    run = _run(folder)
    pictures = prepare_pictures(run).pictures
    parts = PictureParts(run.data)
    assert parts.differing(pictures) == {} and parts.loss_weights(pictures) == {}
    assert parts.settings_of(pictures[0]) is run.data
