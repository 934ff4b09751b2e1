"""The tab as a page of its own: the web UI's theme, this project's style sheet and script, nothing from elsewhere."""

from __future__ import annotations

import time
from pathlib import Path

import gradio as gr

from lib_pivotal.runs.manager import RunManager
from lib_pivotal.ui.tab import build_tab

FONTS = ("Source Sans Pro", "ui-sans-serif", "system-ui", "sans-serif")
SCRIPTS = ("pivotal.js", "pivotal_data.js", "pivotal_findings.js", "pivotal_notify.js")
"""The others speak to txt2img."""
BASE_CSS = """
:root, .dark { --block-background-fill: transparent; --section-header-text-size: 12pt; }
.block.padded:not(.gradio-accordion) { padding: 0 !important; }
div.gradio-container { max-width: unset !important; }
div.form { border-width: 0; box-shadow: none; background: transparent; overflow: visible; gap: 0.5em; }
.block.gradio-dropdown, .block.gradio-slider, .block.gradio-checkbox, .block.gradio-textbox, .block.gradio-radio,
.block.gradio-number { border-width: 0 !important; box-shadow: none !important; }
div.gradio-group, div.styler { border-width: 0 !important; background: none; }
footer { display: none !important; }
"""
"""The rules of the web UI's style sheet that change what our elements look like."""


def build_page(manager: RunManager, *, root: Path) -> gr.Blocks:
    """The page as Blocks; `root` holds `style.css` and the scripts in `javascript`."""
    style = (root / "style.css").read_text(encoding="utf-8")
    script = "\n".join((root / "javascript" / name).read_text(encoding="utf-8") for name in SCRIPTS)
    tab = build_tab(manager)
    theme = gr.themes.Default(font=list(FONTS), font_mono=["ui-monospace", "monospace"])
    for block in tab.blocks.values():  # the web UI marks every element so; style sheets rely on it
        block.elem_classes = [f"gradio-{block.get_block_name()}", *(getattr(block, "elem_classes", None) or [])]
    with gr.Blocks(theme=theme, css=BASE_CSS + style, title="Pivotal tuning", analytics_enabled=False) as page:
        tab.render()
        page.load(fn=None, _js=f"() => {{\n{script}\n}}", queue=False)
    return page


def serve(manager: RunManager, *, root: Path, port: int, forever: bool = True) -> gr.Blocks:
    """Serve the page on this machine; with `forever`, until it is interrupted (then a run is stopped and saved)."""
    page = build_page(manager, root=root)
    page.launch(server_name="127.0.0.1", server_port=port, prevent_thread_lock=True, show_api=False, quiet=not forever)
    try:
        while forever:
            time.sleep(1)
    except KeyboardInterrupt:
        manager.stop()
        manager.join()
        page.close()
    return page
