"""A run whose length is in epochs: plan, pre-flight, training and file have the same steps, and what hangs on them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from lib_pivotal.bundle.reader import read_bundle
from lib_pivotal.config import read_run
from lib_pivotal.runs.preflight import measure
from lib_pivotal.standalone.cli import main
from lib_pivotal.standalone.model import StandaloneHost
from tests.conftest import write_pictures

AOI = {"name": "aoi", "vectors": 2}
HANA = {"name": "hana", "vectors": 2}


def four(folder: Path) -> Path:
    return write_pictures(folder, {str(number): f"aoi, pose {number}" for number in range(4)})


def repeated(folder: Path) -> Path:
    """Kohya's folders: 2 pictures three times, 3 pictures once."""
    several = {f"3_aoi/{number}": f"aoi, pose {number}" for number in range(2)}
    return write_pictures(folder, several | {f"1_hana/{number}": f"hana, sky {number}" for number in range(3)})


def uneven(folder: Path) -> Path:
    return write_pictures(folder, {f"a{n}": f"aoi, pose {n}" for n in range(5)} | {"h": "hana, sky"})


CASES: dict[str, tuple[Any, list[dict[str, Any]], dict[str, Any], int]] = {
    "plain": (four, [AOI], {"schedule": {"max_steps": 4, "epochs": 3, "batch_size": 2}}, 6),
    "rounded up": (four, [AOI], {"schedule": {"max_steps": 50, "epochs": 2, "batch_size": 3}}, 4),
    "accumulated": (four, [AOI], {"schedule": {"epochs": 3, "batch_size": 1, "accumulation": 3}}, 6),
    "one step an epoch": (four, [AOI], {"schedule": {"epochs": 5, "batch_size": 16}}, 5),
    "repeats": (repeated, [AOI, HANA], {"schedule": {"epochs": 1, "batch_size": 2}}, 5),
    "balanced": (
        uneven,
        [AOI, {**HANA, "draw_weight": 3.0}],
        {"schedule": {"epochs": 2, "batch_size": 4}, "data": {"balance": "words"}},
        4,
    ),
    "words first": (
        four,
        [AOI],
        {"schedule": {"max_steps": 2, "epochs": 3, "batch_size": 2, "phases": "two_phase", "words_steps": 3}},
        6,
    ),
    "warm-up longer than the guess": (
        four,
        [AOI],
        {"schedule": {"max_steps": 2, "epochs": 4, "batch_size": 2, "warmup_steps": 5}},
        8,
    ),
}


def run_file(folder: Path, pictures: Path, embeddings: list[dict[str, Any]], more: dict[str, Any]) -> Path:
    run = {
        "name": "r",
        "words": embeddings,
        "network": {"unet_rank": 2, "unet_targets": "attention"},
        "data": {"folder": str(pictures), "resolution_px": 64, **more.get("data", {})},
        "schedule": more.get("schedule", {}),
        "saving": {"state_every_steps": 0, **more.get("saving", {})},
    }
    path = folder / "run.json"
    path.write_text(json.dumps(run))
    return path


def trained(file: Path, checkpoint: Path, out: Path) -> list[dict[str, str]]:
    assert main(["train", str(file), "--checkpoint", str(checkpoint), "--device", "cpu", "--out", str(out)]) == 0
    with (out / "r.steps.csv").open() as rows:
        return list(csv.DictReader(rows))


@pytest.mark.parametrize("case", CASES)
def test_plan_preflight_and_training_have_the_same_steps(
    case: str, tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, embeddings, more, steps = CASES[case]
    pictures = make(tmp_path / "pictures")
    file = run_file(tmp_path, pictures, embeddings, more)
    assert main(["plan", str(pictures), str(file), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    found = measure(read_run(file), StandaloneHost.load(checkpoint, device="cpu"))
    rows = trained(file, checkpoint, tmp_path / "out")
    metadata = read_bundle(tmp_path / "out" / "r.safetensors").metadata
    assert plan["steps"] == len(rows) == int(metadata["ss_steps"]) == steps
    assert found.total_s == pytest.approx(found.step_s * steps)
    planned = {embedding["name"]: embedding["draws"] for embedding in plan["words"]}
    assert found.samples == pytest.approx(planned, rel=1e-3)
    assert plan["draws"] == steps * plan["batch_size"] * plan["accumulation"]


def test_more_steps_mend_a_run_in_epochs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = four(tmp_path / "pictures")
    file = run_file(tmp_path, pictures, [AOI], {"schedule": {"epochs": 3, "batch_size": 2}})
    assert main(["plan", str(pictures), str(file), "--mend", "--save", str(file)]) == 0
    text = capsys.readouterr().out
    assert "fixed: Train 400 steps" in text and "\n400 steps of 2 pictures" in text
    assert (read_run(file).schedule.max_steps, read_run(file).schedule.epochs) == (400, 0)


@pytest.mark.parametrize("verb", ["plan", "train"])
def test_epochs_too_short_for_what_must_fit_are_told_before_anything_starts(
    verb: str, tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = four(tmp_path / "pictures")
    more = {"schedule": {"max_steps": 900, "epochs": 2, "batch_size": 4, "phases": "two_phase", "words_steps": 100}}
    file = run_file(tmp_path, pictures, [AOI], more)
    arguments = {
        "plan": ["plan", str(pictures), str(file)],
        "train": ["train", str(file), "--checkpoint", str(checkpoint), "--out", str(tmp_path / "out")],
    }
    assert main(arguments[verb]) == 2
    told = capsys.readouterr().err
    assert "schedule.embeddings_steps = 100" in told and "max_steps - 1 (1)" in told
    assert not list(tmp_path.glob("out/*.safetensors"))


@pytest.mark.parametrize(
    ("schedule", "steps", "warmup"),
    [
        ({"max_steps": 1600, "epochs": 10, "batch_size": 2, "warmup_steps": 0.1}, 20, 2),
        ({"max_steps": 20, "batch_size": 2, "warmup_steps": 0.25}, 20, 5),
        ({"max_steps": 20, "epochs": 4, "batch_size": 4, "warmup_steps": 0.5}, 4, 2),
        ({"max_steps": 20, "epochs": 2, "batch_size": 4, "warmup_steps": 0.1}, 2, 0),
        ({"max_steps": 10, "batch_size": 4, "warmup_steps": 0.9999}, 10, 9),
        ({"max_steps": 10, "batch_size": 4, "warmup_steps": 3}, 10, 3),
    ],
)
def test_a_warm_up_that_is_a_fraction_is_one_of_the_steps_that_are_run(
    schedule: dict[str, Any], steps: int, warmup: int, tmp_path: Path, checkpoint: Path
) -> None:
    pictures = four(tmp_path / "pictures")
    file = run_file(tmp_path, pictures, [AOI], {"schedule": {**schedule, "rate": "constant"}})
    rates = [float(row["rate word aoi"]) / 5e-3 for row in trained(file, checkpoint, tmp_path / "out")]
    assert rates == pytest.approx([min(1.0, (step + 1) / max(warmup, 1)) for step in range(steps)], rel=1e-3)
    metadata = read_bundle(tmp_path / "out" / "r.safetensors").metadata
    assert metadata["ss_lr_warmup_steps"] == str(warmup)


def test_intervals_in_epochs_are_of_the_epochs_that_are_run(tmp_path: Path, checkpoint: Path) -> None:
    pictures = four(tmp_path / "pictures")
    more = {
        "schedule": {"max_steps": 900, "epochs": 5, "batch_size": 2},
        "saving": {"every_epochs": 2, "state_every_epochs": 1, "keep_states": 9},
    }
    trained(run_file(tmp_path, pictures, [AOI], more), checkpoint, tmp_path / "out")
    assert {path.stem for path in (tmp_path / "out").glob("*.safetensors")} == {"r", "r-000004", "r-000008"}
    kept = read_run(tmp_path / "out" / "r.run.json")
    assert (kept.schedule.max_steps, kept.saving.every_steps, kept.saving.state_every_steps) == (10, 4, 2)
