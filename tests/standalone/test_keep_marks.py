"""Captions with a mark between kept and free tags: everywhere as the same captions with commas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lib_pivotal.bundle.reader import read_bundle
from lib_pivotal.commands.datasets import ScanRequest, scan, scan_pictures
from lib_pivotal.config import DataConfig, Run, run_from_dict
from lib_pivotal.data.captions import split_tags
from lib_pivotal.importing.datasets import DATASET_FILES
from lib_pivotal.runs.defaults import fitted_run
from lib_pivotal.standalone.cli import main
from lib_pivotal.training.prepare import prepare_pictures
from lib_pivotal.ui.caption_html import CaptionHtml
from lib_pivotal.ui.picture_filter import TagIndex
from tests.conftest import write_pictures

MARKS = ["|||", "##", "@@@", "$1", ".*", "<keep>", "・"]
"""What people set, and what would mislead a pattern."""


def captions(mark: str, *, tail: bool = False) -> dict[str, str]:
    """Two characters, 24 and 12 pictures; `mark` behind the name, and with `tail` before the last tag."""
    found = {}
    for number in range(36):
        name, hair, eyes = ("aoi", "blue hair", "red eyes") if number < 24 else ("beni", "red hair", "green eyes")
        last = ("smile", "hat", "park", "single glove")[number % 4]
        first, second = f" {mark}" if mark else ",", f" {mark}" if mark and tail else ","
        found[f"{number:02}"] = f"1girl, {name}{first} {hair}, {eyes}{second} {last}"
    return found


def as_commas(text: str, mark: str) -> list[str]:
    return split_tags(text.replace(mark, ",")) if mark else split_tags(text)


def run_of(folder: Path, mark: str, **more: Any) -> dict[str, Any]:
    data = {"folder": str(folder), "resolution_px": 64, "shuffle_tags": True, "flip": True, **more}
    return {
        "name": "r",
        "words": [{"name": "aoi", "prune": True, "vectors": 2}, {"name": "beni", "prune": True, "vectors": 2}],
        "data": {**data, **({"keep_separator": mark} if mark else {})},
        "schedule": {"max_steps": 2, "batch_size": 2},
        "network": {"unet_rank": 2, "unet_targets": "attention"},
        "saving": {"state_every_steps": 0},
    }


def told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> Any:
    assert main(arguments) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module", params=[(mark, tail) for mark in MARKS for tail in (False, True)], ids=str)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """A mark, the folder that has it, and the same with commas."""
    mark, tail = request.param
    base = tmp_path_factory.mktemp("marks")
    return (
        mark,
        write_pictures(base / "a" / "set", captions(mark, tail=tail)),
        write_pictures(base / "b" / "set", captions("")),
    )


def test_scan_counts_the_same_tags(pair: tuple[str, Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    mark, marked, plain = pair
    expected = told(["scan", str(plain), "--json"], capsys)
    found = told(["scan", str(marked), "--json", "--keep-separator", mark], capsys)
    assert found["tags"] == expected["tags"] and expected["tags"]["blue hair"] == pytest.approx(0.667, abs=1e-3)


def test_the_same_is_proposed(pair: tuple[str, Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    mark, marked, plain = pair
    expected = told(["plan", str(plain), "--json"], capsys)
    found = told(["plan", str(marked), "--json", "--keep-separator", mark], capsys)
    assert found["words"] == expected["words"] and [embedding["name"] for embedding in found["words"]] == [
        "aoi",
        "beni",
    ]
    assert found["run"]["data"]["keep_separator"] == mark
    data = DataConfig(folder=str(marked), keep_separator=mark)
    assert [embedding.name for embedding in fitted_run(scan_pictures(data), Run(data=data)).run.embeddings] == [
        "aoi",
        "beni",
    ]


def test_the_same_is_pruned_linted_and_shown(
    pair: tuple[str, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mark, marked, plain = pair
    plans, changes = [], []
    for folder, sign in ((marked, mark), (plain, "")):
        (tmp_path / "run.json").write_text(json.dumps(run_of(folder, sign)))
        plans.append(told(["plan", str(folder), str(tmp_path / "run.json"), "--json"], capsys))
        changes.append(told(["captions", str(folder), str(tmp_path / "run.json"), "--json"], capsys)["changes"])
    assert plans[0]["words"] == plans[1]["words"]
    assert plans[0]["findings"] == plans[1]["findings"] and "single glove" in str(plans[0]["findings"])
    assert plans[0]["tokens"] == plans[1]["tokens"]
    for found, expected in zip(plans[0]["pictures"], plans[1]["pictures"], strict=True):
        assert as_commas(found["trained"], mark) == split_tags(expected["trained"])
    assert len(changes[0]) == 36
    for found, expected in zip(changes[0], changes[1], strict=True):
        assert as_commas(found["after"], mark) == split_tags(expected["after"])
        assert mark in found["after"], "what is kept stays told from what is free"


def test_the_same_is_written(pair: tuple[str, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mark, _, _ = pair
    texts = []
    for sign in (mark, ""):
        folder = write_pictures(tmp_path / f"set{bool(sign)}", captions(sign))
        (tmp_path / "run.json").write_text(json.dumps(run_of(folder, sign)))
        assert main(["captions", str(folder), str(tmp_path / "run.json"), "--write", "--home", str(tmp_path)]) == 0
        texts.append([as_commas(path.read_text(), sign) for path in sorted(folder.glob("*.txt"))])
    assert texts[0] == texts[1] and texts[0][0] == ["1girl", "aoi", "smile"]


def test_the_page_shows_the_same_tags(pair: tuple[str, Path, Path]) -> None:
    mark, marked, plain = pair
    first, second = (
        scan_pictures(DataConfig(folder=str(folder), **({"keep_separator": sign} if sign else {})))
        for folder, sign in ((marked, mark), (plain, ""))
    )
    assert TagIndex(first.pictures).forms == TagIndex(second.pictures).forms
    writer = CaptionHtml(["aoi", "beni"])
    for one, other in zip(first.pictures, second.pictures, strict=True):
        assert writer.after(one) == writer.after(other)
        assert writer.before(one, one, {}) == writer.before(other, other, {})


@pytest.mark.parametrize("mark", ["|||", "##"])
def test_a_trained_files_tags_are_single_ones(mark: str, tmp_path: Path, checkpoint: Path) -> None:
    found = []
    for sign in (mark, ""):
        folder = write_pictures(tmp_path / f"{bool(sign)}" / "set", captions(sign))
        (tmp_path / "run.json").write_text(json.dumps(run_of(folder, sign)))
        out = tmp_path / f"out{bool(sign)}"
        assert main(["train", str(tmp_path / "run.json"), "--checkpoint", str(checkpoint), "--out", str(out)]) == 0
        found.append(json.loads(read_bundle(out / "r.safetensors").metadata["ss_tag_frequency"]))
    assert found[0] == found[1]
    assert found[0]["1_set"] == {"1girl": 36, "aoi": 24, "beni": 12} | dict.fromkeys(
        ["smile", "hat", "park", "single glove"], 9
    )


def test_held_out_captions_have_no_marks(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "set", captions("##"))
    plain = run_of(folder, "##")
    plain["saving"]["separation_every_steps"] = 1
    prepared = prepare_pictures(run_from_dict(plain), files=DATASET_FILES)
    assert prepared.held_out and all("##" not in picture.caption for picture in prepared.held_out)
    assert all("##" in picture.caption for picture in prepared.pictures)


def test_parts_with_a_mark_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = captions("")
    other = captions("##")
    folder = write_pictures(
        tmp_path / "set", {f"{'red' if n % 2 else 'blue'}/{k}": (texts, other)[n % 2][k] for n, k in enumerate(texts)}
    )
    run = run_of(folder, "|||", parts=[{"applies_to": "red/*", "keep_separator": "##"}])
    (tmp_path / "run.json").write_text(json.dumps(run))
    plan = told(["plan", str(folder), str(tmp_path / "run.json"), "--json"], capsys)
    assert plan["words"][0]["absorbed"] == ["blue hair", "red eyes"]
    trained = {picture["key"]: picture["trained"] for picture in plan["pictures"]}
    assert trained["red/01.png"] == "1girl, aoi ## hat"
    assert trained["blue/00.png"] == "1girl, aoi, smile"


def test_a_mark_that_the_folders_own_file_names(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "set", captions("##"))
    (tmp_path / "dataset.toml").write_text(
        '[general]\nkeep_tokens_separator = "##"\nshuffle_caption = true\n[[datasets]]\nresolution = 64\n'
        f"[[datasets.subsets]]\nimage_dir = '{folder}'\n"
    )
    tags = scan(ScanRequest(str(tmp_path / "dataset.toml")))["tags"]
    assert tags["aoi"] == pytest.approx(24 / 36, abs=1e-3) and not any("##" in tag for tag in tags)
    data = DataConfig(folder=str(tmp_path / "dataset.toml"))
    assert [embedding.name for embedding in fitted_run(scan_pictures(data), Run(data=data)).run.embeddings] == [
        "aoi",
        "beni",
    ]


def test_a_run_says_its_mark_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_pictures(tmp_path / "set", {"1": "aoi ## hat"})
    (tmp_path / "run.json").write_text(json.dumps(run_of(folder, "##")))
    assert main(["plan", str(folder), str(tmp_path / "run.json"), "--keep-separator", "@@"]) == 2
    assert "data.keep_separator" in capsys.readouterr().err
