"""`plan` on real folders: as text, as JSON, mended, saved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from lib_pivotal.config import read_run
from lib_pivotal.standalone.cli import main
from lib_pivotal.standalone.families import Family
from tests.standalone.tiny_families import make, write


def test_plan_as_text(two_embeddings_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(two_embeddings_folder)]) == 0
    text = capsys.readouterr().out
    assert "aoi" in text and "hana" in text and "longest caption" in text and "64x64" in text


def test_plan_as_json_and_saved(
    two_embeddings_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "run.json"
    assert main(["plan", str(two_embeddings_folder), "--json", "--save", str(saved)]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert {embedding["name"] for embedding in plain["words"]} == {"aoi", "hana"}
    assert plain["run"]["schedule"]["max_steps"] == read_run(saved).schedule.max_steps
    assert plain["steps"] == read_run(saved).schedule.total_steps, "also those of the embeddings alone"


@pytest.mark.parametrize("option", ["--fix", "--mend"])
def test_a_run_with_an_error_is_status_1_and_a_fix_helps(
    two_embeddings_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    run = tmp_path / "run.json"
    embeddings = [{"name": "aoi"}, {"name": "kaze"}]
    run.write_text(json.dumps({"words": embeddings, "data": {"resolution_px": 64}, "schedule": {"max_steps": 2}}))
    assert main(["plan", str(two_embeddings_folder), str(run)]) == 1
    text = capsys.readouterr().out
    assert "error kaze: no caption names this embedding" in text and "-> Remove kaze" in text
    assert main(["plan", str(two_embeddings_folder), str(run), option, "--save", str(run)]) == 0
    assert "fixed: Remove kaze" in capsys.readouterr().out
    assert [embedding.name for embedding in read_run(run).embeddings] == ["aoi"]


def test_what_cannot_be_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(tmp_path / "nowhere")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_captions_shown_written_and_taken_back(
    two_embeddings_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in two_embeddings_folder.rglob("*.txt")}
    run = tmp_path / "run.json"
    run.write_text(json.dumps({"words": [{"name": "aoi", "prune": True, "absorb": ["blue hair", "smile", "park"]}]}))
    assert main(["captions", str(two_embeddings_folder), str(run)]) == 0
    assert "would change; --write does it" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in before} == before
    assert main(["captions", str(two_embeddings_folder), str(run), "--write"]) == 0
    assert "caption files written" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in before} != before
    assert main(["scan", str(two_embeddings_folder)]) == 0  # the way back is not among what a scan looks at
    assert ".pivotal" not in capsys.readouterr().out
    assert main(["captions", str(two_embeddings_folder), "--take-back", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["left"] == []
    assert {path: path.read_bytes() for path in before} == before
    assert main(["captions", str(two_embeddings_folder), "--take-back"]) == 2


@pytest.fixture
def large_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "large"
    folder.mkdir()
    for number in range(4):
        Image.new("RGB", (1100, 1000), (20 * number, 90, 30)).save(folder / f"{number}.jpg")
        (folder / f"{number}.txt").write_text(f"aoi, blue hair, {('park', 'sky')[number % 2]}", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ([], 512),
        (["--family", "sd2"], 512),
        (["--family", "sd2v"], 768),
        (["--family", "sdxl"], 1024),
        (["--family", "sdxl", "--size", "640"], 640),
    ],
)
def test_the_training_size_follows_the_checkpoints_kind(
    large_folder: Path, options: list[str], size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["plan", str(large_folder), "--json", *options])
    assert json.loads(capsys.readouterr().out)["run"]["data"]["resolution_px"] == size


@pytest.mark.parametrize(("family", "size"), [("sd1", 512), ("sd2", 512), ("sdxl", 1024)])
def test_a_checkpoint_tells_its_kind(
    large_folder: Path, tmp_path: Path, family: Family, size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "tiny.safetensors", make(family))
    main(["plan", str(large_folder), "--json", "--checkpoint", str(path)])
    assert json.loads(capsys.readouterr().out)["run"]["data"]["resolution_px"] == size


def test_what_is_no_checkpoint_is_told(large_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lora = tmp_path / "lora.safetensors"
    save_file({"lora_unet_x.alpha": torch.ones(1)}, lora)
    for path, told in ((lora, "it has no U-Net"), (tmp_path / "none.safetensors", "cannot be read as a checkpoint")):
        assert main(["plan", str(large_folder), "--checkpoint", str(path)]) == 2
        assert told in capsys.readouterr().err
    assert main(["plan", str(large_folder), "--size", "5"]) == 2
    assert "64 to 4096" in capsys.readouterr().err
