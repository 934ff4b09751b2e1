"""Verbs of command line and API: plain data in, plain data out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lib_pivotal.config import Run
from lib_pivotal.errors import ConfigError, DataError
from lib_pivotal.runs import verbs


def _texts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*.txt"))}


def test_a_plan_and_its_remedy_go_through_json(two_words_folder: Path) -> None:
    plain = {
        "words": [{"name": "aoi"}, {"name": "kaze"}],
        "schedule": {"max_steps": 3000},
        "data": {"resolution_px": 64},
    }
    _, answer = verbs.planned(two_words_folder, verbs.settings(plain))
    answer = json.loads(json.dumps(answer))
    finding = next(found for found in answer["findings"] if found["kind"] == "word_never")
    mended = verbs.remedied(answer["run"], finding["remedies"][0])
    assert [word["name"] for word in mended["words"]] == ["aoi"]
    assert verbs.planned(two_words_folder, verbs.settings(plain), mend=True)[1]["mended"][0] == "Remove kaze"


def test_without_a_run_one_is_fitted(two_words_folder: Path) -> None:
    plan, answer = verbs.planned(two_words_folder)
    assert [word["name"] for word in answer["run"]["words"]] == [word.name for word in plan.words] == ["aoi", "hana"]
    assert answer["run"]["data"]["folder"] == str(two_words_folder)


def test_settings_need_no_words_but_no_faults() -> None:
    assert verbs.settings({}) == Run()
    with pytest.raises(ConfigError, match="max_steps"):
        verbs.settings({"schedule": {"max_steps": -1}})


def test_captions_are_shown_written_and_taken_back(two_words_folder: Path, tmp_path: Path) -> None:
    before = _texts(two_words_folder)
    run = verbs.settings({"words": [{"name": "aoi", "prune": True, "absorb": ["blue hair", "smile", "park"]}]})
    shown = verbs.captions_preview(two_words_folder, run)
    assert _texts(two_words_folder) == before and shown["changes"]
    with pytest.raises(DataError, match="changed since the preview"):
        verbs.captions_written(two_words_folder, run, home=tmp_path / "home", digest="0" * 64)
    done = verbs.captions_written(two_words_folder, run, home=tmp_path / "home", digest=shown["digest"])
    assert done["written"] == len(shown["changes"]) and done["left"] == [] and Path(done["record"]).is_file()
    after = _texts(two_words_folder)
    for change in shown["changes"]:
        assert after[Path(change["file"]).name].decode().strip() == change["after"] != change["before"]
    assert verbs.captions_written(two_words_folder, run, home=tmp_path / "home") == {"written": 0, "left": []}
    assert verbs.captions_taken_back(two_words_folder, home=tmp_path / "home")["written"] == done["written"]
    assert _texts(two_words_folder) == before
    with pytest.raises(DataError, match="nothing to take back"):
        verbs.captions_taken_back(two_words_folder, home=tmp_path / "home")


def test_doubles_are_left_out_by_their_remedy(two_words_folder: Path) -> None:
    first = sorted(two_words_folder.rglob("*.png"))[0]
    copy = first.with_name("copy.png")
    copy.write_bytes(first.read_bytes())
    copy.with_suffix(".txt").write_bytes(first.with_suffix(".txt").read_bytes())
    plan, answer = verbs.planned(two_words_folder)
    assert "duplicate" in {f.kind for f in plan.at_least("warning")}
    better, answer = verbs.planned(two_words_folder, mend=True)
    assert "Keep one" in answer["mended"] and len(better.pictures) < len(plan.pictures)
    assert "duplicate" not in {f.kind for f in better.at_least("warning")}
