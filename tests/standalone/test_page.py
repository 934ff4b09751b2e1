"""The page that stands alone: its backend, and that the page holds script and style."""

from pathlib import Path

import pytest

from lib_pivotal.config import Run
from lib_pivotal.runs.manager import RunManager
from lib_pivotal.standalone.page import StandaloneBackend

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "examples/avatars/weights/avatars.safetensors"


@pytest.fixture
def backend(tmp_path):
    return StandaloneBackend(CHECKPOINT, tmp_path)


def test_the_checkpoint_is_named_and_not_loaded(backend):
    assert backend.checkpoint().startswith("avatars.safetensors [")
    assert backend._host is None
    assert backend.lora_folder().is_dir() and backend.runs_folder().is_dir() and backend.taken_names() == {}


def test_the_kind_is_known_before_it_is_loaded(backend):
    assert backend.model_info().family == "sd1" and backend._host is None
    with backend.exclusive(Run()) as host:
        assert backend.model_info() is host.info


def test_the_model_is_lent_to_one_at_a_time(backend):
    with backend.exclusive(Run()) as host:
        assert host.info.family == "sd1"
        assert backend._lock.locked()
    with backend.exclusive(Run()) as again:
        assert again is host
    assert not backend.model_yield().wanted()


def test_the_page_is_whole(backend):
    gradio = pytest.importorskip("gradio")
    from lib_pivotal.ui.standalone_page import build_page

    page = build_page(RunManager(backend), root=ROOT)
    assert isinstance(page, gradio.Blocks) and ".pivotal-rows" in page.css
    scripts = [dependency["js"] for dependency in page.dependencies if dependency["js"]]
    assert any("pivotal_tab" in script or 'find("tab")' in script for script in scripts)
