"""Dataset files that were written on another computer: found by the last parts of their paths, or told."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from lib_pivotal.data.dataset import scan as scan_with
from lib_pivotal.errors import DataError
from lib_pivotal.importing.datasets import DATASET_FILES
from lib_pivotal.standalone.cli import main
from tests.conftest import write_pictures

scan = partial(scan_with, files=DATASET_FILES)

TOML = """
[[datasets]]
resolution = 768
  [[datasets.subsets]]
  image_dir = '{where}'
  num_repeats = 7
  shuffle_caption = true
"""
HCP = "data:\n  dataset1:\n    batch_size: 2\n    source:\n      s:\n        img_root: '{where}'\n        repeat: 7\n"
ONETRAINER = '[{{"name": "a", "path": "{where}", "enabled": true, "balancing": 7.0, "image": {{}}, "text": {{}}}}]'
FILES = {"dataset.toml": TOML, "dataset.yaml": HCP, "concepts.json": ONETRAINER}
PICTURES = {"set a/ConceptA/1": "aoi, pose 1", "set a/ConceptA/2": "aoi, pose 2"}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "where",
    ["Z:/elsewhere/set a/ConceptA", "/Users/her/data/set a/ConceptA", "//share/x/set a/ConceptA", "set a/ConceptA"],
)
def test_found_by_the_last_parts_of_a_path(name: str, where: str, tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "data", PICTURES)
    (root / name).write_text(FILES[name].format(where=where))
    for path in (root, root / name):
        found = scan(path)
        assert len(found.pictures) == 2 and all(picture.repeats == 7 for picture in found.pictures)


def test_found_with_backslashes_and_from_a_folder_beside(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", PICTURES)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "dataset.toml").write_text(TOML.format(where="D:\\old\\data\\set a\\ConceptA"))
    assert len(scan(tmp_path / "config" / "dataset.toml").pictures) == 2


def test_more_parts_come_before_fewer(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "data", {**PICTURES, "ConceptA/wrong": "x"})
    (root / "dataset.toml").write_text(TOML.format(where="Z:/elsewhere/set a/ConceptA"))
    assert {picture.path.stem for picture in scan(root).pictures} == {"1", "2"}


@pytest.mark.parametrize("name", FILES)
def test_a_file_whose_folders_are_gone_is_told_with_what_is_lost(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_pictures(tmp_path / "data", PICTURES)
    (root / name).write_text(FILES[name].format(where="Z:/elsewhere/other"))
    assert main(["scan", str(root)]) == 0
    text = capsys.readouterr().out
    lost = {"dataset.toml": "num_repeats", "dataset.yaml": "repeat", "concepts.json": "balancing"}[name]
    line = next(line for line in text.splitlines() if line.startswith("warn") and name in line)
    assert "none of its folders with pictures is here" in line and lost in line
    with pytest.raises(DataError, match="none of its folders"):
        scan(root / name)


@pytest.mark.parametrize(("name", "text"), [("dataset.toml", "[[datasets]\n"), ("dataset.yaml", "data: [1, {\n")])
def test_a_broken_file_is_told(name: str, text: str, tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "data", PICTURES)
    (root / name).write_text(text)
    told = [problem.message for problem in scan(root).problems if problem.code == "dataset_file_lost"]
    assert len(told) == 1 and name in told[0] and "cannot be read" in told[0]


def test_files_of_other_kinds_are_none(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "data", PICTURES)
    (root / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    (root / "notes.yaml").write_text("- milk\n")
    (root / "info.json").write_text(json.dumps({"a": 1}))
    assert not [problem for problem in scan(root).problems if problem.code == "dataset_file_lost"]
