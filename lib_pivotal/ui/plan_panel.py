"""The plan on the Data page, and what the lint finds; redrawn with every check of the settings."""

from __future__ import annotations

import gradio as gr

from lib_pivotal.config import Run
from lib_pivotal.errors import PivotalError
from lib_pivotal.ui import dataset_html, findings_html, plan_html
from lib_pivotal.ui.page import Page, Shown, note

PLAN_PARTS = ("summary", "findings", "plan_box", "plan")


def build_plan_panel(page: Page) -> None:
    """Hidden until a folder is scanned."""
    with gr.Column(elem_classes=["pivotal-section"], visible=False, elem_id="pivotal_plan_box") as box:
        gr.HTML("<h3>Plan</h3>", elem_classes=["pivotal-html"])
        page.html("plan")
    page.parts["plan_box"] = box


def plan_shown(page: Page, run: Run) -> Shown:
    """The line, what to look at, and the plan; the line stays as it is where the folder is not scanned."""
    dataset = page.desk.dataset(run.data.folder)
    if dataset is None:
        return page.shown(findings="", plan_box=gr.update(visible=False), plan="")
    try:
        plan = page.desk.plan(run)
        drawn = "" if plan is None else plan_html.plan_html(plan, max_tokens=run.data.max_tokens)
    except PivotalError as error:  # a setting of now is none: the Train page says which
        drawn = note("warning", f"No plan with these settings: {error}")
    found = page.desk.findings(run)
    return page.shown(
        summary=dataset_html.summary(dataset, len(run.words), len(found)),
        findings=findings_html.findings_html(found, dataset),
        plan_box=gr.update(visible=True),
        plan=drawn,
    )
