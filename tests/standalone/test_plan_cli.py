"""`plan` on real folders: as text, as JSON, mended, saved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lib_pivotal.config import read_run
from lib_pivotal.standalone.cli import main


def test_plan_as_text(two_words_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(two_words_folder)]) == 0
    text = capsys.readouterr().out
    assert "aoi" in text and "hana" in text and "longest caption" in text and "64x64" in text


def test_plan_as_json_and_saved(two_words_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "run.json"
    assert main(["plan", str(two_words_folder), "--json", "--save", str(saved)]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert {word["name"] for word in plain["words"]} == {"aoi", "hana"}
    assert plain["run"]["schedule"]["max_steps"] == plain["steps"] == read_run(saved).schedule.max_steps


def test_a_run_with_an_error_is_status_1_and_mend_helps(
    two_words_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run.json"
    words = [{"name": "aoi"}, {"name": "kaze"}]
    run.write_text(json.dumps({"words": words, "data": {"resolution_px": 64}, "schedule": {"max_steps": 2}}))
    assert main(["plan", str(two_words_folder), str(run)]) == 1
    text = capsys.readouterr().out
    assert "error kaze: no caption has this word" in text and "-> Take kaze out" in text
    assert main(["plan", str(two_words_folder), str(run), "--mend", "--save", str(run)]) == 0
    assert "mended: Take kaze out" in capsys.readouterr().out
    assert [word.name for word in read_run(run).words] == ["aoi"]


def test_what_cannot_be_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(tmp_path / "nowhere")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_captions_shown_written_and_taken_back(
    two_words_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in two_words_folder.rglob("*.txt")}
    run = tmp_path / "run.json"
    run.write_text(json.dumps({"words": [{"name": "aoi", "prune": True, "absorb": ["blue hair", "smile", "park"]}]}))
    assert main(["captions", str(two_words_folder), str(run)]) == 0
    assert "would change; --write does it" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in before} == before
    assert main(["captions", str(two_words_folder), str(run), "--write"]) == 0
    assert "caption files written" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in before} != before
    assert main(["scan", str(two_words_folder)]) == 0  # the way back is not among what a scan looks at
    assert ".pivotal" not in capsys.readouterr().out
    assert main(["captions", str(two_words_folder), "--take-back", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["left"] == []
    assert {path: path.read_bytes() for path in before} == before
    assert main(["captions", str(two_words_folder), "--take-back"]) == 2
