"""Quotes, blanks and `file://` around any path that a user types: settings, command line, API, and what confines it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from lib_pivotal.config import read_run, run_from_dict
from lib_pivotal.confinement import Confinement, paths_in
from lib_pivotal.errors import FolderError
from lib_pivotal.files import typed_meanings, typed_path, typed_text
from lib_pivotal.importing.datasets import DATASET_FILES
from lib_pivotal.standalone.cli import main, make_parser
from tests.conftest import write_pictures

TOML = 'network_module = "networks.lora"\nnetwork_dim = 8\nlearning_rate = 1e-4\nmax_train_steps = 9\n'
PASTED = ['"{}"', "'{}'", " {} ", "file://{}", "“{}”", "`{}`", "«{}»", "\"'{}'\"", "\t“'file://{}'”\n"]


@pytest.mark.parametrize("pasted", PASTED)
def test_every_path_of_a_run(pasted: str, tmp_path: Path) -> None:
    path = pasted.format(tmp_path / "some where" if "file" not in pasted else f"{tmp_path}/some%20where")
    plain = {
        "name": "x",
        "words": [{"name": "aoi"}, {"name": "hana", "init_file": path}],
        "data": {"folder": path, "cache_folder": path, "wildcard_folder": path},
        "regularisation": {"folder": path},
        "saving": {"folder": path},
    }
    found = dict(paths_in(run_from_dict(plain)))
    assert len(found) == 6 and set(found.values()) == {str(tmp_path / "some where")}


def test_what_needs_no_mending_stays_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "'odd'").mkdir()
    (tmp_path / "~").mkdir()
    for text in ("", "a/", "./a", "a//b", "../a", "'odd'", "~", "C:\\sets\\mine"):
        assert typed_text(text) == text
    assert typed_text("  ") == "" and typed_text("~/sets") == str(Path.home() / "sets")
    assert typed_text("~nobody-of-this-name/x") == "~nobody-of-this-name/x"


@given(st.text(st.sampled_from("./~a\"'`“” :%file\\"), max_size=20))
def test_what_is_opened_is_among_what_is_judged(text: str) -> None:
    once = typed_path(text)
    assert once in typed_meanings(text)
    assert typed_path(str(once)) in typed_meanings(text)  # settings are read, and then opened as typed again


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _actions(inner)


def test_every_path_of_the_command_line() -> None:
    typed = [action for action in _actions(make_parser()) if action.type is not None]
    assert not [action for action in typed if action.type is Path]
    assert sum(action.type is typed_path for action in typed) > 25


@pytest.mark.parametrize("pasted", ['"{}"', " {} ", "file://{}", "“{}”"])
def test_bundles_settings_and_what_is_written(pasted: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def typed(name: str) -> str:
        return pasted.format(tmp_path / name)

    for name in ("w", "v"):
        save_file({f"bundle_emb.{name}.string_to_param.*": torch.zeros(2, 768)}, tmp_path / f"{name}.safetensors")
    w, v = typed("w.safetensors"), typed("v.safetensors")
    (tmp_path / "out").mkdir()
    for command in (
        ["list", w, typed("out")],
        ["show", w],
        ["verify", w, v],
        ["rename", w, "w=u", "--out", typed("out/u.safetensors")],
        ["join", w, v, "--out", typed("out/j.safetensors")],
        ["split", w, "--out", typed("out/parts")],
        ["strip", w, "metadata", "--out", typed("out/s.safetensors")],
    ):
        assert main(["bundle", *command]) == 0, command
    root = write_pictures(tmp_path / "set", {"1": "aoi, hat"})
    assert main(["plan", pasted.format(root), "--save", typed("out/run.json")]) == 0
    assert read_run(tmp_path / "out" / "run.json").data.folder == str(root)
    (tmp_path / "s.toml").write_text(TOML)
    assert main(["import", typed("s.toml"), "-o", typed("out/imported.json")]) == 0
    assert main(["captions", str(root), "--write", "--home", typed("out/home")]) == 0
    capsys.readouterr()
    there = {path.name for path in (tmp_path / "out").iterdir()}
    assert there >= {"u.safetensors", "j.safetensors", "parts", "s.safetensors", "run.json", "imported.json"}
    assert {path.name for path in tmp_path.iterdir()} <= {"w.safetensors", "v.safetensors", "set", "out", "s.toml"}


@pytest.mark.parametrize("pasted", PASTED)
def test_a_pasted_path_leads_nowhere_else_than_the_plain_one(
    pasted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read as a relative path each lies inside, as the web UI is started there: that is not what would be opened."""
    inside, outside = tmp_path / "data", write_pictures(tmp_path / "private", {"1": "aoi"})
    inside.mkdir()
    monkeypatch.chdir(inside)
    confined = Confinement.to([inside], "Add it.")
    assert confined.allows(pasted.format(inside)) and not confined.allows(pasted.format(outside))
    assert not confined.allows(pasted.format(pasted.format(outside)))
    with pytest.raises(FolderError):
        confined.check_data(pasted.format(outside), files=DATASET_FILES)


@pytest.mark.parametrize("pasted", PASTED)
def test_what_a_pasted_folders_dataset_names_is_judged_too(
    pasted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, outside = tmp_path / "data", write_pictures(tmp_path / "private", {"1": "aoi"})
    (inside / "set").mkdir(parents=True)
    monkeypatch.chdir(inside)
    toml = f"[[datasets]]\n[[datasets.subsets]]\nimage_dir = {json.dumps(str(outside))}\n"
    (inside / "set" / "dataset.toml").write_text(toml)
    confined = Confinement.to([inside], "Add it.")
    with pytest.raises(FolderError):
        confined.check_data(inside / "set", files=DATASET_FILES)
    with pytest.raises(FolderError):
        confined.check_data(pasted.format(inside / "set"), files=DATASET_FILES)


# -- files that are there, folders that are not


@pytest.fixture
def material(tmp_path: Path) -> dict[str, str]:
    root = write_pictures(tmp_path / "set", {"1": "aoi, hat"})
    (tmp_path / "s.toml").write_text(TOML)
    return {"set": str(root), "toml": str(tmp_path / "s.toml"), "tmp": str(tmp_path)}


WRITING = [["plan", "{set}", "--save"], ["import", "{toml}", "-o"]]


@pytest.mark.parametrize("verb", WRITING, ids=lambda verb: verb[0])
def test_a_file_that_is_there_is_replaced_where_it_was_said(
    verb: list[str], material: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(material["tmp"]) / "run.json"
    out.write_text("mine")
    command = [*(part.format(**material) for part in verb), str(out)]
    assert main(command) == 2 and out.read_text() == "mine"
    told = capsys.readouterr()
    assert str(out) in told.err and "there is a file of this name already" in told.err and not told.out
    assert main([*command, "-f"]) == 0 and read_run(out)
    capsys.readouterr()


@pytest.mark.parametrize("verb", WRITING, ids=lambda verb: verb[0])
def test_a_folder_that_is_not_there_is_said_before_the_work(
    verb: list[str], material: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(material["tmp"]) / "no" / "such" / "run.json"
    assert main([*(part.format(**material) for part in verb), str(out)]) == 2
    told = capsys.readouterr()
    assert told.err.count("\n") == 1 and str(out.parent) in told.err and not told.out
    assert not out.parent.parent.exists()


def test_a_plan_may_be_saved_over_the_settings_that_it_read(
    material: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(material["tmp"]) / "run.json"
    assert main(["plan", material["set"], "--save", str(out)]) == 0
    assert main(["plan", material["set"], str(out), "--mend", "--save", f" {out} "]) == 0
    capsys.readouterr()
