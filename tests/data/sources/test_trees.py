"""Trees of folders: kohya's, kgrid's, a folder a concept, and which of them it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_pivotal.data.dataset import Dataset, scan
from lib_pivotal.data.sources.trees import place_of, read_multiply, tree_of
from lib_pivotal.errors import DataError

Add = Callable[..., Path]


def facts(dataset: Dataset) -> dict[str, tuple[str, float, str]]:
    return {picture.key: (picture.concept, picture.repeats, picture.image_type) for picture in dataset.pictures}


@pytest.fixture
def kgrid(tmp_path: Path, add: Add) -> Path:
    """What kgrid's pipeline leaves, with its raw pictures beside."""
    for name in (
        "training/screenshots/0_characters/character_others/a.png",
        "training/screenshots/1_character/AobaKokona/a.png",
        "training/screenshots/1_character/AobaKokona/b.png",
        "training/screenshots/2_characters/AobaKokona+KuraueHinata/a.png",
        "training/screenshots/4+_characters/character_others/a.png",
        "training/booru/1_character/KuraueHinata Hairdown/a.png",
    ):
        add(name, caption="x", seed=sum(name.encode()))
        (tmp_path / name).parent.joinpath("multiply.txt").write_text("2.37")
    add("intermediate/raw/z.png")
    (tmp_path / "training/screenshots/1_character/AobaKokona/multiply.txt").write_text("1.0\n")
    (tmp_path / "training/emb_init.json").write_text('{"AobaKokona": []}')
    (tmp_path / "training/wildcard.txt").write_text("AobaKokona")
    return tmp_path


def test_kgrids_tree(kgrid: Path) -> None:
    dataset = scan(kgrid)
    assert dataset.layout == "kgrid" and dataset.folder == kgrid / "training"
    assert facts(dataset) == {
        "booru/1_character/KuraueHinata Hairdown/a.png": ("KuraueHinata Hairdown", 2.37, "booru"),
        "screenshots/0_characters/character_others/a.png": ("character_others", 2.37, "screenshots"),
        "screenshots/1_character/AobaKokona/a.png": ("AobaKokona", 1, "screenshots"),
        "screenshots/1_character/AobaKokona/b.png": ("AobaKokona", 1, "screenshots"),
        "screenshots/2_characters/AobaKokona+KuraueHinata/a.png": ("AobaKokona+KuraueHinata", 2.37, "screenshots"),
        "screenshots/4+_characters/character_others/a.png": ("character_others", 2.37, "screenshots"),
    }
    said = [problem for problem in dataset.problems if problem.code == "layout"]
    assert "Read as kgrid's tree" in said[0].message
    assert {problem.code for problem in dataset.problems} <= {"layout", "same_stem"}  # multiply.txt is no stray file
    assert dataset.summary()["samples_per_epoch"] == 11.48


@pytest.mark.parametrize(
    ("below", "expected"),
    [
        ("training/screenshots", ("AobaKokona", 1, "screenshots")),
        ("training/screenshots/1_character", ("AobaKokona", 1, "")),
    ],
)
def test_a_part_of_kgrids_tree(kgrid: Path, below: str, expected: tuple[str, float, str]) -> None:
    found = facts(scan(kgrid / below))
    assert next(value for key, value in found.items() if key.endswith("AobaKokona/a.png")) == expected


def test_a_layout_may_be_said(kgrid: Path) -> None:
    concepts = scan(kgrid / "training", layout="concepts").concepts
    assert set(concepts) == {"booru", "screenshots"}
    assert set(scan(kgrid / "training", layout="plain").concepts) == {"training"}
    kohya = scan(kgrid / "training", layout="kohya")
    assert kohya.layout == "kohya"
    assert kohya["screenshots/2_characters/AobaKokona+KuraueHinata/a.png"].repeats == 2
    with pytest.raises(DataError, match="layout = 'tar'"):
        scan(kgrid, layout="tar")


@pytest.mark.parametrize("text", ["", "many", "-1", "nan", "inf", "1e400"])
def test_a_number_of_repeats_that_is_none(kgrid: Path, text: str) -> None:
    file = kgrid / "training/booru/1_character/KuraueHinata Hairdown/multiply.txt"
    file.write_text(text)
    with pytest.raises(DataError, match="no number of repeats"):
        read_multiply(file)
    dataset = scan(kgrid)
    assert dataset["booru/1_character/KuraueHinata Hairdown/a.png"].repeats == 1
    assert any(problem.code == "repeats_unreadable" for problem in dataset.problems)


def test_repeats_of_nought(kgrid: Path) -> None:
    (kgrid / "training/booru/1_character/KuraueHinata Hairdown/multiply.txt").write_text("0")
    assert len(scan(kgrid)) == 5


@pytest.mark.parametrize(
    ("folders", "root", "multiply", "expected"),
    [
        (["."], "cats", False, "plain"),
        (["."], "5_cats", False, "kohya"),
        (["a", "b"], "set", False, "concepts"),
        (["a", "img/10_b"], "set", False, "kohya"),
        (["s/1_character/a"], "set", False, "kgrid"),
        (["s/2+_characters"], "set", False, "kgrid"),
        (["s/1_person/a"], "set", False, "kgrid"),
        (["a"], "1_character", False, "kgrid"),
        (["a/b"], "set", True, "kgrid"),
        ([], "5_cats", False, "plain"),
        (["a"], "5_cats", False, "concepts"),
    ],
)
def test_which_tree_it_is(folders: list[str], root: str, multiply: bool, expected: str) -> None:
    assert tree_of(folders, root_name=root, multiply=multiply) == expected


_NAMES = st.text(alphabet="a1_+ 0/", min_size=1, max_size=8).map(lambda text: text.replace("/", "-"))


@given(st.lists(_NAMES, max_size=5), _NAMES, st.sampled_from(["plain", "concepts", "kohya", "kgrid"]))
def test_every_picture_has_a_concept(folders: list[str], root: str, tree: str) -> None:
    place = place_of(folders, root_name=root, tree=tree)  # type: ignore[arg-type]
    assert place.concept and place.repeats >= 0
