"""Names that come by the page: the same sentences as elsewhere, nothing outside the folders, nothing written over."""

from __future__ import annotations

import html
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lib_pivotal.bundle.listing import list_bundle
from lib_pivotal.bundle.writer import write_bundle
from lib_pivotal.config import Run
from lib_pivotal.errors import BundleError, ConfigError, FileNameError, HostError
from lib_pivotal.file_names import name_reasons
from lib_pivotal.runs.presets import save_preset, saved_presets
from lib_pivotal.runs.view import RunView
from lib_pivotal.ui.bundle_controller import BundleController
from lib_pivotal.ui.page_controller import PageController
from tests.hostile_names import EMPTY, HOSTILE


def tree(folder: Path) -> dict[str, bytes]:
    """Every file: a page that is only looked at makes none."""
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def bundle(path: Path, name: str, value: float = 1.0) -> Path:
    return write_bundle(path, network={}, embeddings={name: (torch.full((2, 768), value),)}, metadata={})


@pytest.fixture
def bundles(backend: Any) -> BundleController:
    for stem, name in (("one", "aoi"), ("two", "hana")):
        bundle(backend.lora_folder() / f"{stem}.safetensors", name)
    return BundleController(backend)


@pytest.mark.parametrize(("name", "reason"), HOSTILE)
def test_a_run_of_a_hostile_name(browser: Any, manager: Any, tmp_path: Path, name: str, reason: str) -> None:
    before = tree(tmp_path)
    browser.set("pivotal_name", name)
    if name.strip() == name or name_reasons(name.strip()):  # the page takes blanks around a name off
        assert reason in html.unescape(browser.press("pivotal_train")["pivotal_feedback"])
    level, text = PageController(manager).name_note(name)
    assert level == "error" and reason in text
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", [*(name for name, _ in HOSTILE), *EMPTY])
def test_a_hostile_preset(backend: Any, tmp_path: Path, name: str) -> None:
    folder = backend.runs_folder() / "presets"
    before = tree(tmp_path)
    if name_reasons(name.strip()):
        with pytest.raises(ConfigError, match="is not a name for a preset: it "):
            save_preset(folder, name, Run())
        assert tree(tmp_path) == before
    else:  # blanks around it are taken off, as a name that is typed may have them
        assert save_preset(folder, name, Run()) == folder / f"{name.strip()}.json"


def test_a_preset_is_replaced_when_told(browser: Any, backend: Any) -> None:
    browser.set("pivotal_preset_name", "mine")
    assert "Saved" in browser.press("pivotal_preset_save")["pivotal_loaded"]
    path = saved_presets(backend.runs_folder() / "presets")["mine"]
    before = path.read_bytes()
    browser.set("pivotal_network_unet_rank", 3)
    assert "there is a file of this name" in browser.press("pivotal_preset_save")["pivotal_loaded"]
    assert path.read_bytes() == before
    browser.set("pivotal_preset_overwrite", True)
    assert "Saved" in browser.press("pivotal_preset_save")["pivotal_loaded"]
    assert path.read_bytes() != before
    browser.set("pivotal_preset_name", "Character")
    assert "always there" in browser.press("pivotal_preset_save")["pivotal_loaded"]


def test_a_run_does_not_take_anothers_file_unless_told(browser: Any, backend: Any, manager: Any) -> None:
    taken = bundle(backend.lora_folder() / "taken.safetensors", "aoi")
    before = taken.read_bytes()
    browser.set("pivotal_name", "taken")
    shown = browser.press("pivotal_train")["pivotal_feedback"]
    assert "there is a file of this name" in shown and manager.current is None
    browser.set("pivotal_overwrite", True)
    shown = browser.press("pivotal_train")
    assert "Before it starts" in shown["pivotal_feedback"]
    assert shown["pivotal_overwrite"] is False, "it was for this run"
    assert manager.join(20) and manager.current is not None and taken.read_bytes() == before


@pytest.mark.parametrize("name", ["../../private", "/etc", "..", ".", "private", "presets", ""])
def test_only_runs_of_the_list_go_on(browser: Any, backend: Any, manager: Any, tmp_path: Path, name: str) -> None:
    private = tmp_path / "process" / "private"
    (private / "x.state").mkdir(parents=True)
    (private / "x.state" / "state-00000001.pt").write_bytes(b"x")
    browser.set("pivotal_resumable", name)
    browser.press("pivotal_resume_run")
    assert manager.current is None
    if name:
        with pytest.raises(HostError, match="no interrupted run"):
            manager.resume_run(name)


@pytest.mark.parametrize("name", ["../runs/x.safetensors", "/etc/passwd", "one", "..", "a\x00b"])
def test_settings_are_loaded_from_files_of_the_list(browser: Any, backend: Any, name: str) -> None:
    bundle(backend.lora_folder() / "one.safetensors", "aoi")
    bundle(backend.runs_folder() / "x.safetensors", "aoi")
    browser.set("pivotal_load_bundle", name)
    assert "choose a file from the list" in browser.press("pivotal_load_bundle_now")["pivotal_loaded"]
    browser.set("pivotal_load_bundle", "one.safetensors")
    assert "carries no settings" in browser.press("pivotal_load_bundle_now")["pivotal_loaded"]


def test_a_link_in_the_folder_is_a_file_of_the_list(bundles: BundleController, backend: Any, tmp_path: Path) -> None:
    (backend.lora_folder() / "link.safetensors").symlink_to(bundle(tmp_path / "elsewhere.safetensors", "umi"))
    assert bundles.summary("link.safetensors").embeddings[0].name == "umi"


@pytest.mark.parametrize(("name", "reason"), HOSTILE)
def test_joined_under_a_hostile_name(bundles: BundleController, tmp_path: Path, name: str, reason: str) -> None:
    before = tree(tmp_path)
    if name_reasons(name.strip()):
        with pytest.raises(FileNameError) as caught:
            bundles.join("one.safetensors", ["two.safetensors"], name)
        assert reason in str(caught.value) and tree(tmp_path) == before


def test_joined_under_anothers_name(bundles: BundleController, backend: Any) -> None:
    with pytest.raises(BundleError, match="there is a file of this name"):
        bundles.join("one.safetensors", ["two.safetensors"], "two")
    assert [embedding.name for embedding in list_bundle(backend.lora_folder() / "two.safetensors").embeddings] == [
        "hana"
    ]


def test_what_is_split_or_converted_again_gets_another_place(bundles: BundleController, backend: Any) -> None:
    first = bundles.split("one.safetensors")
    kept = tree(backend.runs_folder())
    second = bundles.split("one.safetensors")
    assert first != second and kept.items() <= tree(backend.runs_folder()).items()


def test_a_kept_step_does_not_take_anothers_place(backend: Any, manager: Any, tmp_path: Path) -> None:
    controller, source = PageController(manager), bundle(tmp_path / "step.safetensors", "aoi")
    manager._view = view = RunView("x", "gekidol", max_steps=10, folder=tmp_path)
    view.snapshot = lambda: {  # type: ignore[method-assign]
        "name": "gekidol", "pictures": [{"step": 5, "bundle": str(source)}],
    }  # fmt: skip
    for _ in range(2):  # the same file may be kept twice
        assert "gekidol-000005" in controller.keep(5)
    other = bundle(backend.lora_folder() / "gekidol-000005.safetensors", "hana")
    before = other.read_bytes()
    with pytest.raises(FileNameError, match="there is a file of this name"):
        controller.keep(5)
    assert other.read_bytes() == before


@pytest.mark.parametrize("name", [name for name, _ in HOSTILE])
def test_a_run_json_to_download_stays_in_its_folder(manager: Any, name: str) -> None:
    path = PageController(manager).run_file(replace(Run(), name=name.replace("\ud800", "x")))
    assert path.parent.name.startswith("pivotal-") and path.resolve().parent == path.parent.resolve()
    assert [one.name for one in path.parent.iterdir()] == [path.name]
