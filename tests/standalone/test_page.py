"""The page that stands alone: its studio, and that the page holds script and style."""

from pathlib import Path

import pytest

from lib_pivotal.config import Run
from lib_pivotal.runs.manager import RunManager
from lib_pivotal.standalone.page import StandaloneStudio

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "examples/avatars/weights/avatars.safetensors"


@pytest.fixture
def studio(tmp_path):
    return StandaloneStudio(CHECKPOINT, tmp_path)


def test_the_checkpoint_is_named_and_not_loaded(studio):
    assert studio.checkpoint().startswith("avatars.safetensors [")
    assert studio._host is None
    assert studio.lora_folder().is_dir() and studio.runs_folder().is_dir() and studio.taken_names() == {}


def test_the_kind_is_known_before_it_is_loaded(studio):
    assert studio.model_info().family == "sd1" and studio._host is None
    with studio.exclusive(Run()) as host:
        assert studio.model_info() is host.info


def test_the_model_is_lent_to_one_at_a_time(studio):
    with studio.exclusive(Run()) as host:
        assert host.info.family == "sd1"
        assert studio._lock.locked()
    with studio.exclusive(Run()) as again:
        assert again is host
    assert not studio.aside().wanted()


def test_the_page_is_whole(studio):
    gradio = pytest.importorskip("gradio")
    from lib_pivotal.ui.standalone_page import build_page

    page = build_page(RunManager(studio), root=ROOT)
    assert isinstance(page, gradio.Blocks) and ".pivotal-rows" in page.css
    scripts = [dependency["js"] for dependency in page.dependencies if dependency["js"]]
    assert any("pivotal_tab" in script or 'find("tab")' in script for script in scripts)
