"""`fake_webui`: what the web UI (v1.10.1) would be in this process; see `fake/install.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.webui.fake.install import FakeWebUI, installed


@pytest.fixture
def fake_webui(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[FakeWebUI]:
    """A web UI that has just started, on SD1 or on the kind that `@pytest.mark.parametrize(..., indirect=True)` names;
    without our extension: `fake_webui.load_extension()`, or a module's own `register()`."""
    kind = getattr(request, "param", "sd1")
    with installed(tmp_path / "webui", kinds=(kind,)) as webui:
        yield webui
