"""The plan on the Data page, and remedies for what the lint finds; redrawn with every check of the settings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import gradio as gr

from lib_pivotal.config import Run
from lib_pivotal.errors import PivotalError
from lib_pivotal.later import later
from lib_pivotal.ui.page import Page, note

if TYPE_CHECKING:
    from lib_pivotal.data import findings
    from lib_pivotal.runs import remedies
    from lib_pivotal.ui import dataset_html, plan_html
else:
    dataset_html = later("lib_pivotal.ui.dataset_html")
    findings = later("lib_pivotal.data.findings")
    plan_html = later("lib_pivotal.ui.plan_html")
    remedies = later("lib_pivotal.runs.remedies")

PLAN_PARTS = ("summary", "findings", "plan_box", "plan")


def build_plan_panel(page: Page) -> None:
    """Hidden until a folder is scanned."""
    with gr.Column(elem_classes=["pivotal-section"], visible=False, elem_id="pivotal_plan_box") as box:
        gr.HTML("<h3>Plan</h3>", elem_classes=["pivotal-html"])
        page.html("plan")
    page.parts["plan_box"] = box


def plan_outputs(page: Page, run: Run, remarks: tuple[str, ...] = ()) -> list[Any]:
    """The line, what to look at, and the plan, in the order of PLAN_PARTS; only for a scanned folder."""
    dataset = page.desk.dataset(run.data.folder)
    if dataset is None:
        return [gr.update(), "", gr.update(visible=False), ""]
    try:
        plan = page.desk.plan(run)
        drawn = "" if plan is None else plan_html.plan_html(plan, max_tokens=run.data.max_tokens)
    except PivotalError as error:  # a setting of now is none: the Train page says which
        drawn = note("warning", f"No plan with these settings: {error}")
    found = page.desk.findings(run, remarks)
    return [
        dataset_html.summary(dataset, len(run.words), len(found)),
        dataset_html.problems_list(found),
        gr.update(visible=True),
        drawn,
    ]


def remedied(page: Page, run: Run, asked: str) -> Run:
    """The run with the remedy that a button names, as JSON.

    Raises:
        PivotalError: it is none, or it does not fit the run any more.
    """
    try:
        plain = json.loads(asked or "{}")
    except json.JSONDecodeError:
        plain = None
    return remedies.apply_remedy(run, findings.Remedy.from_dict(plain))
