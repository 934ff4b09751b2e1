"""Kept steps of a run's folder, with figures from its events."""

import json

import pytest
from PIL import Image

from lib_pivotal.runs.step_records import scored, step_records
from tests.runs.test_samples import write_run


def add(folder, *events):
    log = folder / "two.events.jsonl"
    log.write_text(log.read_text() + "\n" + "\n".join(map(json.dumps, events)) + "\n")


class Reds:
    """How red a picture is; of hana nothing."""

    def score(self, pictures):
        return [one.picture.getpixel((0, 0))[0] / 255 if one.embedding == "aoi" else None for one in pictures]


def test_files_behind_samples_and_files_saved_on_the_way(tmp_path):
    folder = write_run(tmp_path / "run")
    saved = tmp_path / "lora" / "two-000075.safetensors"
    saved.parent.mkdir()
    saved.write_bytes(b"y")
    result, moved = folder / "two.safetensors", saved.with_name("two.safetensors")
    result.write_bytes(b"z")
    moved.write_bytes(b"another run's")
    said = ((75, saved), (80, tmp_path / "gone.safetensors"), (120, moved))
    add(folder, *({"event": "FileSaved", "kind": "bundle", "step": step, "path": str(path)} for step, path in said))
    add(folder, {"event": "FileSaved", "kind": "state", "step": 130, "path": str(saved)})
    found = step_records(folder)
    assert [one.step for one in found] == [50, 75, 100, 120] and found[1].file == saved
    assert found[3].file == result, "in the run's folder, whatever lies elsewhere under this name"
    assert [one.picture is not None for one in found] == [True, False, True, False]
    (folder / "steps" / "two-000050.safetensors").unlink()
    assert [one.step for one in step_records(folder)] == [75, 100, 120]


def test_a_figure_is_the_one_measured_last_by_then(tmp_path):
    folder = write_run(tmp_path / "run", steps=(50, 100, 150))
    add(
        folder,
        {"event": "SeparationMeasured", "step": 60, "shares": {"aoi": 0.4, "hana": 0.6, "kaze": None}},
        {"event": "SeparationMeasured", "step": 150, "shares": {"aoi": 1.4, "hana": 0.8}},
        {"event": "SomethingNew", "step": 60, "shares": {"aoi": 0.1}},
    )
    figures = [dict(one.figures) for one in step_records(folder)]
    assert figures == [{}, {"separation": pytest.approx(0.5)}, {"separation": pytest.approx(0.9)}]


def test_scorers_see_the_samples_with_all_parts_on(tmp_path):
    folder = write_run(tmp_path / "run", steps=(50, 100), columns=("aoi, park", "hana"))
    Image.new("RGB", (8, 8), "black").save(folder / "pictures" / "000100" / "1-000.png")  # another row
    found = scored(step_records(folder), folder, {"reds": Reds()}, embeddings=["aoi", "hana"])
    assert [one.figures["pictures reds"] for one in found] == [pytest.approx(50 / 255), pytest.approx(100 / 255)]


def test_the_validation_loss_is_a_figure(tmp_path):
    folder = write_run(tmp_path / "run", steps=(50, 100))
    add(
        folder, *({"event": "Validated", "step": step, "held_out_mean": loss} for step, loss in ((40, 0.3), (90, None)))
    )
    assert [dict(one.figures) for one in step_records(folder)] == [{"validation": 0.3}] * 2
