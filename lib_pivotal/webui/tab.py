"""The page inside the web UI."""

from __future__ import annotations

from typing import Any

from lib_pivotal.ui.tab import TabExtras, build_tab
from lib_pivotal.webui import compat
from lib_pivotal.webui.jobs import run_manager

TITLE, ELEMENT_ID = "Pivotal tuning", "pivotal"

SEND_TO_TXT2IMG = "pivotalSendToTxt2img"
"""Defined in javascript/pivotal_webui.js."""


def build() -> list[tuple[Any, str, str]]:
    """For `on_ui_tabs`."""
    blocks = build_tab(run_manager(), extras=TabExtras(send_to_txt2img_js=SEND_TO_TXT2IMG, program=compat.program))
    return [(blocks, TITLE, ELEMENT_ID)]
