"""`fake_webui`: what the web UI (v1.10.1) would be in this process; see `fake/install.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.conftest import write_pictures
from tests.webui.fake.install import FakeWebUI, installed


@pytest.fixture
def fake_webui(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[FakeWebUI]:
    """A web UI that has just started, on SD1 or on the kind that `@pytest.mark.parametrize(..., indirect=True)` names;
    without our extension: `fake_webui.load_extension()`, or a module's own `register()`."""
    kind = getattr(request, "param", "sd1")
    with installed(tmp_path / "webui", kinds=(kind,)) as webui:
        yield webui


@pytest.fixture
def client(fake_webui: FakeWebUI) -> Iterator[Any]:
    """The extension's API; whatever runs or waits has ended behind it."""
    fake_webui.load_extension()
    assert fake_webui.model is not None
    app = FastAPI()
    fake_webui.script_callbacks.app_started_callback(None, app)
    from lib_pivotal.webui.jobs import run_manager

    with TestClient(app) as made:
        yield made
    run_manager().queue.begin_no_more()
    run_manager().stop()
    assert run_manager().queue.join(60) and run_manager().join(60)
    run_manager().queue.close()


@pytest.fixture
def pictures(fake_webui: FakeWebUI) -> Path:
    """Two pictures of `aoi`, in a folder that the API may read."""
    return write_pictures(fake_webui.data / "pictures", {"aoi_1": "aoi, red", "aoi_2": "aoi, park"})
