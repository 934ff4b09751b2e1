"""Below a run: where its logs are, TensorBoard's command, and one button that makes a zip for a problem report."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from lib_pivotal.errors import PivotalError
from lib_pivotal.ui.page import Page, Shown, error_html, message, quiet

NOTIFY = (
    '<button type="button" class="pivotal-mini" data-notify="1" aria-pressed="false" hidden>Notify me at the end'
    "</button>"
)
"""Filled in by `pivotal_notify.js`, which knows whether the browser has notifications."""


def build_notify(page: Page) -> None:
    """The button that asks the browser for its permission."""
    page.html("notify", NOTIFY)


def build_logs_panel(page: Page) -> None:
    """The lines and the button."""
    parts = page.parts
    page.html("logs")
    with gr.Row(elem_classes=["pivotal-tools"]):
        parts["report"] = gr.Button("Report a problem", size="sm", elem_id="pivotal_report", scale=0, min_width=160)
    page.html("report_said")
    parts["report_file"] = gr.File(label="Report", visible=False, elem_id="pivotal_report_file")


def bind_logs_panel(page: Page) -> None:
    """The button writes the zip and offers it."""

    def report() -> Shown:
        from lib_pivotal.commands.report import report as write  # here: only a click needs it

        try:
            path = write(page.manager, program=page.extras.program())
        except PivotalError as error:
            return page.shown(report_said=error_html(error), report_file=gr.update(visible=False))
        told = "Folders, user names and tokens are taken out. Look through it before you attach it to an issue."
        return page.shown(report_said=message(told, "ok"), report_file=gr.update(value=str(path), visible=True))

    quiet(page.parts["report"].click, report, None, page.named("report_said", "report_file"))


def logs_html(snapshot: Any) -> str:
    """The run's folder, and TensorBoard's command where it writes for it; empty where a run keeps no logs."""
    folder = Path(snapshot["folder"]) if snapshot else None
    if folder is None or next(folder.glob("*.events.jsonl"), None) is None:
        return ""
    boards = sorted(folder.glob("*.tensorboard"))
    lines = [_copied("Logs", str(folder))] + [
        _copied("TensorBoard", f'tensorboard --logdir "{path}"') for path in boards
    ]
    return f'<div class="pivotal-logs">{"".join(lines)}</div>'


def _copied(title: str, text: str) -> str:
    shown = escape(text)
    button = f'<button type="button" class="pivotal-copy" data-copy="{shown}" title="Copy: {shown}">{shown}</button>'
    return f"<p><span>{title}</span>{button}</p>"
