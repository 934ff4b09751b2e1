"""Whole projects of other trainers: the set is read, class pictures are named, what a trainer writes is passed over."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lib_pivotal.config import DataConfig, Run
from lib_pivotal.data.captions import EmbeddingFinder
from lib_pivotal.data.dataset import Dataset, scan
from lib_pivotal.runs.defaults import fitted_run
from lib_pivotal.standalone.cli import main
from lib_pivotal.training.prepare import prepare_regularisation
from tests.conftest import write_pictures

GUI = {
    "img/30_ohwx woman/0": "ohwx woman, park 1",
    "img/30_ohwx woman/1": "ohwx woman, park 2",
    "reg/1_woman/r0": "woman",
    "model/sample/ohwx_e000001_00": "",
}
LONG = {
    "images/10_black mamba/0": "mamba, rock",
    "images/10_cat/0": "mycat, sofa",
    "regularization/1_cat/r": "cat",
    "regularization/1_dog/d": "dog",
    "log/grid": "x",
}
PLAIN = {"train/0": "aoi, hat", "train/1": "aoi, sea", "output/sample/0": "x", "class/0": "1girl"}
CONCEPTS = {"dataset/aoi/0": "aoi, hat", "dataset/beni/0": "beni, hat", "outputs/0": "x", "samples/1": "x"}
UPPER = {"Image/5_aoi/0": "aoi, hat", "REG/1_girl/0": "girl", "Log/x": "x", "raw/0": "not yet chosen"}


@pytest.mark.parametrize(
    ("pictures", "keys", "kept", "draws"),
    [
        (GUI, {"30_ohwx woman/0.png", "30_ohwx woman/1.png"}, "reg", 60),
        (LONG, {"10_black mamba/0.png", "10_cat/0.png"}, "regularization", 20),
        (PLAIN, {"0.png", "1.png"}, "class", 2),
        (CONCEPTS, {"aoi/0.png", "beni/0.png"}, "", 2),
        (UPPER, {"5_aoi/0.png"}, "REG", 5),
    ],
    ids=["kohya's GUI", "long names", "without numbers", "concepts", "upper case"],
)
def test_the_set_is_read_and_the_rest_told(
    pictures: dict[str, str], keys: set[str], kept: str, draws: int, tmp_path: Path
) -> None:
    root = write_pictures(tmp_path / "My Project", pictures)
    for name in ("log", "model"):
        (root / name).mkdir(exist_ok=True)
    found = scan(root)
    assert {picture.key for picture in found.pictures} == keys
    assert found.summary()["samples_per_epoch"] == draws
    assert found.settings.get("regularisation.folder", "") == (str(root / kept) if kept else "")
    told = next(problem.message for problem in found.problems if problem.code == "project")
    assert "Read as a project" in told and "log" in told and (kept in told)
    run = fitted_run(found, Run(data=DataConfig(folder=str(root)))).run
    assert run.regularisation.folder == (str(root / kept) if kept else "")
    assert {embedding.name for embedding in run.embeddings}.isdisjoint(
        {"woman", "model", "img", "images", "train", "log", "reg"}
    )
    if kept:
        assert prepare_regularisation(run, find=EmbeddingFinder([]))[0], "class pictures are found by the run"
    assert run.name == "my-project"


def test_over_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_pictures(tmp_path / "gui", GUI)
    assert main(["plan", str(root), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [embedding["name"] for embedding in plan["words"]] == ["ohwx-woman"] and len(plan["pictures"]) == 2
    assert plan["run"]["regularisation"]["folder"] == str(root / "reg")
    assert main(["scan", str(root)]) == 0
    assert "model is passed over (model with pictures in it)" in capsys.readouterr().out


def test_an_archive_of_a_project(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "gui", GUI)
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", root)
    found = scan(packed, cache=tmp_path / "cache")
    assert len(found.pictures) == 2 and Path(found.settings["regularisation.folder"]).name == "reg"


@pytest.mark.parametrize(
    ("pictures", "concepts"),
    [
        ({"img/0": "a", "1": "b"}, {"img", "set"}),  # pictures of its own: no project
        ({"img/0": "a", "aoi/1": "b"}, {"img", "aoi"}),  # a folder whose name says nothing
        ({"images/0": "a"}, {"images"}),  # alone
        ({"model/0": "a", "sample/1": "b"}, {"model", "sample"}),  # no set
        ({"img/3_aoi/0": "a", "more/5_beni/0": "b", "log/0": "c"}, {"aoi", "beni", "log"}),  # numbers elsewhere, too
        ({"train/0": "a", "images/0": "b", "log/0": "c"}, {"train", "images", "log"}),  # which is the set?
    ],
)
def test_what_is_no_project(pictures: dict[str, str], concepts: set[str], tmp_path: Path) -> None:
    found: Dataset = scan(write_pictures(tmp_path / "set", pictures))
    assert set(found.concepts) == concepts and len(found.pictures) == len(pictures)
