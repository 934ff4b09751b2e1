"""Folders that a client without a login may not leave: real links, all ways to write a path, what datasets name."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_pivotal.config import run_from_dict
from lib_pivotal.confinement import Confinement, paths_in
from lib_pivotal.errors import FolderError
from lib_pivotal.importing.datasets import DATASET_FILES
from tests.conftest import write_pictures


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "private", {"aoi_1": "aoi, secret"})


@pytest.fixture
def confined(inside: Path) -> Confinement:
    return Confinement.to([inside], "Add it to pivotal_api_folders.")


def test_the_folders_and_what_is_below(confined: Confinement, inside: Path) -> None:
    for path in (inside, inside / "deep" / "file", f"{inside}/a/../b", ""):
        confined.check(path)


def test_quotes_and_addresses_where_they_are_understood(
    confined: Confinement, inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is written such a path is a relative one: that must lead inside, too."""
    monkeypatch.chdir(inside)
    for path in (f' "{inside}" ', f"file://{inside}/a", "a", " a "):
        confined.check(path)
    for path in ('"/etc"', "file:///etc", "../x"):
        assert not confined.allows(path)


@pytest.mark.parametrize(
    "written",
    [
        "{outside}",
        "{inside}/../private",
        "{inside}/link",
        "{inside}/link/aoi_1.png",
        "{inside}2",
        "~",
        "/",
        ".",
        "..",
        '"{outside}"',
        " {outside} ",
        "file://{outside}",
        "FILE:///%65tc",
        "{inside}\x00",
        "{inside}/loop",
    ],
)
def test_every_way_out_is_refused(confined: Confinement, inside: Path, outside: Path, written: str) -> None:
    (inside / "link").symlink_to(outside)
    (inside / "loop").symlink_to(inside / "loop")
    (inside.parent / "data2").mkdir()
    if "loop" in written:  # it leads nowhere: Python says so from 3.13 on, and before as an error
        assert confined.allows(written.format(inside=inside)) in (True, False)
        return
    with pytest.raises(FolderError, match="pivotal_api_folders"):
        confined.check(written.format(inside=inside, outside=outside))


def test_a_folder_that_is_itself_a_link_is_where_it_leads(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "models").symlink_to(outside)
    confined = Confinement.to([tmp_path / "models"], "")
    assert confined.allows(outside / "x") and confined.allows(tmp_path / "models" / "x")


def test_without_folders_nothing_is_refused(outside: Path) -> None:
    open_to_all = Confinement()
    open_to_all.check(outside)
    open_to_all.check_data(outside, files=DATASET_FILES)
    assert open_to_all.allows("/etc/passwd")


@given(st.text(st.sampled_from("./~\\a\"' :%"), max_size=20))
def test_what_is_allowed_leads_into_the_folders(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    inside = tmp_path_factory.getbasetemp() / "inside"
    inside.mkdir(exist_ok=True)
    path = f"{inside}/{text}"
    if Confinement.to([inside], "").allows(path):
        assert Path(path).resolve().is_relative_to(inside.resolve())
        assert Path(path.strip()).expanduser().resolve().is_relative_to(inside.resolve())


def test_every_path_of_a_run_is_known(confined: Confinement, inside: Path, outside: Path) -> None:
    plain = {
        "name": "x",
        "words": [{"name": "aoi"}, {"name": "hana", "init_file": str(outside / "word.pt")}],
        "data": {"folder": "f", "cache_folder": "c", "wildcard_folder": "w"},
        "regularisation": {"folder": "r"},
        "saving": {"folder": "s"},
    }
    run = run_from_dict(plain)
    assert dict(paths_in(run)) == {
        "embeddings.1.init_file": str(outside / "word.pt"), "data.folder": "f", "data.cache_folder": "c",
        "data.wildcard_folder": "w", "regularisation.folder": "r", "saving.folder": "s",
    }  # fmt: skip
    good = {"name": "x", "words": [{"name": "aoi"}], "data": {"folder": str(inside)}}
    confined.check_run(run_from_dict(good), files=DATASET_FILES)
    for section, name in (("data", "folder"), ("data", "cache_folder"), ("data", "wildcard_folder"),
                          ("regularisation", "folder"), ("validation", "folder")):  # fmt: skip
        bad = {**good, section: {**good.get(section, {}), name: str(outside)}}  # type: ignore[dict-item]
        with pytest.raises(FolderError, match="private"):
            confined.check_run(run_from_dict(bad), files=DATASET_FILES)
    with pytest.raises(FolderError, match=r"word\.pt"):
        confined.check_run(run_from_dict({**good, "words": plain["words"]}), files=DATASET_FILES)


@pytest.mark.parametrize("kind", ["toml", "yaml", "json"])
def test_folders_that_a_dataset_file_names(confined: Confinement, inside: Path, outside: Path, kind: str) -> None:
    text = {
        "toml": f'[[datasets]]\n[[datasets.subsets]]\nimage_dir = "{outside}"\n',
        "yaml": f"data: {{dataset1: {{source: {{data_source1: {{img_root: '{outside}'}}}}}}}}\n",
        "json": f'[{{"path": "{outside}", "enabled": true}}]',
    }[kind]
    (inside / f"set.{kind}").write_text(text, encoding="utf-8")
    for folder in (inside, inside / f"set.{kind}"):
        with pytest.raises(FolderError, match="private"):
            confined.check_data(folder, files=DATASET_FILES)


def test_an_archive_is_unpacked_into_our_own_place(confined: Confinement, inside: Path, outside: Path) -> None:
    with zipfile.ZipFile(inside / "set.zip", "w") as archive:
        archive.write(outside / "aoi_1.png", "aoi_1.png")
    confined.check_data(inside / "set.zip", files=DATASET_FILES)
