"""One run manager a process."""

from __future__ import annotations

from tests.webui.fake.install import FakeWebUI


def test_always_the_same_also_after_reload_ui(fake_webui: FakeWebUI) -> None:
    fake_webui.load_extension()
    from lib_pivotal.webui.backend import WebUIBackend
    from lib_pivotal.webui.jobs import run_manager

    first = run_manager()
    assert isinstance(first.backend, WebUIBackend)
    fake_webui.reload_ui()
    fake_webui.load_extension()
    assert run_manager() is first
