"""The page inside the web UI."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from tests.webui.fake.install import FakeWebUI

ROOT = Path(__file__).parents[2]


def test_the_tab_is_built_without_loading_a_checkpoint(fake_webui: FakeWebUI) -> None:
    from lib_pivotal.webui import tab

    [(blocks, title, element)] = tab.build()
    assert isinstance(blocks, gr.Blocks)
    assert (title, element) == ("Pivotal tuning", "pivotal")
    assert fake_webui.sd_models.model_data.sd_model is None


def test_the_script_of_the_page_has_what_the_tab_calls(fake_webui: FakeWebUI) -> None:
    from lib_pivotal.webui import tab

    assert tab.SEND_TO_TXT2IMG in (ROOT / "javascript" / "pivotal_webui.js").read_text(encoding="utf-8")
