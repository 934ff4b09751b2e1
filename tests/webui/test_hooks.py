"""Every callback of the web UI, through starts, "Reload UI" and --nowebui."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from tests.webui.fake.install import FakeWebUI, installed
from tests.webui.files import write_lora

OURS = "/pivotal/"


def callbacks(webui: FakeWebUI) -> dict[str, int]:
    """How many of ours wait for each event."""
    return {
        name: sum("lib_pivotal" in each.callback.__module__ for each in found)
        for name, found in webui.script_callbacks.callback_map.items()
    }


def routes(app: FastAPI) -> list[str]:
    return [route.path for route in app.routes if route.path.startswith(OURS)]


def test_a_start_and_reload_ui_hook_everything_once(fake_webui: FakeWebUI) -> None:
    module = fake_webui.load_extension()
    assert set(module.__all__) == {"FourRows", "LoraParts"}
    first = callbacks(fake_webui)
    assert first == {
        "callbacks_app_started": 1,
        "callbacks_model_loaded": 0,
        "callbacks_ui_tabs": 1,
        "callbacks_ui_settings": 1,
        "callbacks_infotext_pasted": 1,
        "callbacks_script_unloaded": 1,
        "callbacks_before_ui": 1,
        "callbacks_before_token_counter": 1,
    }
    patched = fake_webui.extra_networks.activate
    for _ in range(2):
        fake_webui.reload_ui()
        assert callbacks(fake_webui) == dict.fromkeys(first, 0)
        assert fake_webui.extra_networks.activate is not patched
        assert not hasattr(fake_webui.extra_networks.activate, "__wrapped__")
        fake_webui.load_extension()
        fake_webui.script_callbacks.before_ui_callback()
        assert callbacks(fake_webui) == first
        assert hasattr(fake_webui.extra_networks.activate, "__wrapped__")
        assert not hasattr(fake_webui.extra_networks.activate.__wrapped__, "__wrapped__")
    assert fake_webui.errors.exception_records == []


def test_unregistering_leaves_the_web_ui_as_it_was(fake_webui: FakeWebUI) -> None:
    write_lora(fake_webui, "one", {"hana": 1}, parts=("unet",))
    before = fake_webui.pixels("<lora:one:1>hana"), fake_webui.pixels("face")
    fake_webui.networks.load_networks([])
    fake_webui.load_extension()
    assert (fake_webui.pixels("<lora:one:1>hana"), fake_webui.pixels("face")) == before
    fake_webui.script_callbacks.script_unloaded_callback()
    fake_webui.lora_script.load()
    fake_webui.networks.load_networks([])
    assert (fake_webui.pixels("<lora:one:1>hana"), fake_webui.pixels("face")) == before


@pytest.mark.parametrize(("api", "nowebui"), [(True, False), (False, True), (False, False)])
def test_routes(tmp_path: Path, api: bool, nowebui: bool) -> None:
    with installed(tmp_path, api=api, nowebui=nowebui) as webui:
        webui.load_extension()
        app = FastAPI()
        webui.script_callbacks.app_started_callback(None, app)
        found = routes(app)
        assert "/pivotal/internal/loras" in found
        assert ("/pivotal/v1/runs" in found) is (api or nowebui)
        assert webui.errors.exception_records == []
        assert webui.sd_models.model_data.sd_model is None, "nothing is loaded to start"


def test_the_page(fake_webui: FakeWebUI) -> None:
    fake_webui.load_extension()
    fake_webui.script_callbacks.ui_settings_callback()
    assert "pivotal_runs_folder" in fake_webui.opts.data_labels
    tabs = fake_webui.script_callbacks.ui_tabs_callback()
    assert [(title, element) for _, title, element in tabs] == [("Pivotal tuning", "pivotal")]
    assert fake_webui.errors.exception_records == []


def test_an_old_web_ui_is_told_and_left_alone(fake_webui: FakeWebUI, caplog: pytest.LogCaptureFixture) -> None:
    (fake_webui.data / "CHANGELOG.md").write_text("## 1.6.1\n")
    fake_webui.load_extension()
    assert "needs web UI 1.7.0 or newer; this is 1.6.1" in caplog.text
    assert not any(callbacks(fake_webui).values())
    assert not hasattr(fake_webui.extra_networks.activate, "__wrapped__")


def test_without_lora_the_rest_works(tmp_path: Path) -> None:
    with installed(tmp_path, lora=False) as webui:
        webui.load_extension()
        app: Any = FastAPI()
        webui.script_callbacks.app_started_callback(None, app)
        assert "/pivotal/v1/runs" in routes(app)
        assert webui.pixels("a face")
        webui.script_callbacks.script_unloaded_callback()
        assert webui.errors.exception_records == []
