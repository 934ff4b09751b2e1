"""The plan on the Data page, and what the lint finds; redrawn with every check of the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from lib_pivotal.config import Run
from lib_pivotal.errors import PivotalError
from lib_pivotal.later import later
from lib_pivotal.ui.page import Page, note

if TYPE_CHECKING:
    from lib_pivotal.ui import dataset_html, findings_html, plan_html
else:
    dataset_html = later("lib_pivotal.ui.dataset_html")
    findings_html = later("lib_pivotal.ui.findings_html")
    plan_html = later("lib_pivotal.ui.plan_html")

PLAN_PARTS = ("summary", "findings", "plan_box", "plan")


def build_plan_panel(page: Page) -> None:
    """Hidden until a folder is scanned."""
    with gr.Column(elem_classes=["pivotal-section"], visible=False, elem_id="pivotal_plan_box") as box:
        gr.HTML("<h3>Plan</h3>", elem_classes=["pivotal-html"])
        page.html("plan")
    page.parts["plan_box"] = box


def plan_outputs(page: Page, run: Run) -> list[Any]:
    """The line, what to look at, and the plan, in the order of PLAN_PARTS; only for a scanned folder."""
    dataset = page.desk.dataset(run.data.folder)
    if dataset is None:
        return [gr.update(), "", gr.update(visible=False), ""]
    try:
        plan = page.desk.plan(run)
        drawn = "" if plan is None else plan_html.plan_html(plan, max_tokens=run.data.max_tokens)
    except PivotalError as error:  # a setting of now is none: the Train page says which
        drawn = note("warning", f"No plan with these settings: {error}")
    found = page.desk.findings(run)
    return [
        dataset_html.summary(dataset, len(run.words), len(found)),
        findings_html.findings_html(found, dataset),
        gr.update(visible=True),
        drawn,
    ]
