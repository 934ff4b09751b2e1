"""Names and places of files."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_pivotal.data.dataset import scan
from lib_pivotal.data.folders import Folder, _parts, concept_of, natural_order


def test_natural_order() -> None:
    names = ["a10", "a2", "A1", "b", "10", "9", "a", "a01"]
    assert sorted(names, key=natural_order) == ["9", "10", "a", "A1", "a01", "a2", "a10", "b"]


@given(st.lists(st.text(max_size=8)))
def test_natural_order_sorts_any_names_in_one_way(names: list[str]) -> None:
    backwards = names[::-1]
    assert sorted(names, key=natural_order) == sorted(backwards, key=natural_order)


@pytest.mark.parametrize(
    ("folders", "root", "expected"),
    [
        ([], "cats", ("cats", 1, False)),
        ([], "5_cats", ("cats", 5, True)),
        (["hanako"], "data", ("hanako", 1, False)),
        (["hanako", "summer"], "data", ("hanako", 1, False)),
        (["img", "10_hanako girl"], "data", ("hanako girl", 10, True)),
        (["10_hanako", "summer"], "data", ("hanako", 10, True)),
        (["hanako"], "5_data", ("hanako", 1, False)),
        (["2023"], "data", ("2023", 1, False)),
    ],
)
def test_concepts_from_folder_names(folders: list[str], root: str, expected: tuple[str, int, bool]) -> None:
    assert concept_of(folders, root_name=root) == expected


def test_names_that_differ_only_in_case_are_both_there(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "A.PNG").touch()
    if len(list(tmp_path.iterdir())) < 2:
        pytest.skip("this file system ignores case")
    assert {path.name for path in Folder(tmp_path).pictures()} == {"a.png", "A.PNG"}


def test_masks_are_looked_for_in_order(tmp_path: Path) -> None:
    for name in ("a.png", "mask/a.jpg", "mask/a.png", "a-masklabel.png", "att_mask/b.png", "b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    folder = Folder(tmp_path)
    assert folder.mask_file(tmp_path / "a.png") == tmp_path / "mask/a.png"
    assert folder.mask_file(tmp_path / "b.jpg") == tmp_path / "att_mask/b.png"
    assert folder.orphan_masks() == [tmp_path / "mask/a.jpg"]
    assert [folder.key(path) for path in folder.pictures()] == ["a.png", "b.jpg"]


def test_the_working_folder_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "a.txt", "mask/a.png", "sub/b.png", "sub/b.txt", "sub/b-masklabel.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    folder = Folder(Path())
    first, second = folder.pictures()
    assert [folder.key(first), folder.key(second)] == ["a.png", "sub/b.png"]
    assert folder.caption_file(first, [".txt"]) == Path("a.txt")
    assert folder.caption_file(second, [".txt"]) == Path("sub/b.txt")
    assert folder.mask_file(first) == Path("mask/a.png") and folder.mask_file(second) == Path("sub/b-masklabel.png")


@pytest.mark.parametrize("name", ["A.PNG", "a", "a.", "a..", "a.b.c", "..a", "..a.b", "a b.Png", "É.JPG"])
def test_stems_and_endings_are_those_of_pathlib(tmp_path: Path, name: str) -> None:
    where, stem, suffix = _parts(tmp_path / name)
    path = tmp_path / name
    assert (where, stem, suffix) == (str(tmp_path), path.stem.lower(), path.suffix.lower())


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have text alone as names")
def test_names_that_are_no_text_are_told_and_left_out(tmp_path: Path, add: Callable[..., Path]) -> None:
    add("set/a.png", caption="hat")
    shutil.copy(tmp_path / "set/a.png", tmp_path / "set" / os.fsdecode(b"b\xff.png"))
    (tmp_path / "set" / os.fsdecode(b"c\xff")).mkdir()
    dataset = scan(tmp_path / "set")
    assert [picture.key for picture in dataset.pictures] == ["a.png"]
    told = next(problem for problem in dataset.problems if problem.code == "name_unreadable")
    assert told.message.startswith("2 file(s) or folder(s)") and "b\\udcff.png" in told.message
    json.dumps(dataset.summary(), ensure_ascii=False).encode("utf-8")


def test_what_onetrainer_conditions_on_is_no_picture(add: Callable[..., Path], tmp_path: Path) -> None:
    add("set/a.png")
    add("set/a-condlabel.png")
    assert [path.name for path in Folder(tmp_path / "set").pictures()] == ["a.png"]
