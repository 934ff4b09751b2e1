"""Writing captions as they are trained into their files: a preview, a confirmation, and the way back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from lib_pivotal.data import caption_files
from lib_pivotal.errors import DataError, PivotalError
from lib_pivotal.ui.data_panel import DATA_PARTS, data_shown
from lib_pivotal.ui.page import CHECK_JS, Page, error_html, message, quiet, unchanged

if TYPE_CHECKING:
    from lib_pivotal.config import Run
    from lib_pivotal.data.caption_files import Changes, Outcome

SHOWN = 8
"""Changes that the preview shows."""
WHAT = (
    "Training does not need this: captions are pruned on the fly. Write them for other programs, or to continue "
    "by hand. "
    "Proposed embeddings keep their settings, though their tags are gone from the files."
)


def build_writing_panel(page: Page) -> None:
    """Folded; what confirms is hidden until there is a preview."""
    parts = page.parts
    with gr.Accordion("Write captions to their files", open=False, elem_id="pivotal_writing"):
        gr.HTML(f'<div class="pivotal-note info">{WHAT}</div>', elem_classes=["pivotal-html"])
        with gr.Row(elem_classes=["pivotal-tools"]):
            parts["writing_look"] = gr.Button(
                "Show what would change", size="sm", elem_id="pivotal_writing_look", min_width=230, scale=0
            )
            parts["writing_back"] = gr.Button(
                "Undo the last write", size="sm", elem_id="pivotal_writing_back", min_width=230, scale=0
            )
        page.html("writing_shown")
        with gr.Row(visible=False, elem_classes=["pivotal-tools"], elem_id="pivotal_writing_box") as box:
            parts["writing_write"] = gr.Button(
                "Write these files",
                variant="primary",
                size="sm",
                elem_id="pivotal_writing_write",
                min_width=180,
                scale=0,
            )
            parts["writing_cancel"] = gr.Button(
                "Leave them", size="sm", elem_id="pivotal_writing_cancel", min_width=120, scale=0
            )
        parts["writing_box"] = box
        page.html("writing_note")
    parts["writing_digest"] = gr.State("")


def bind_writing_panel(page: Page) -> None:
    """Look, write or leave, take back."""
    parts, form = page.parts, page.form
    names = ("writing_shown", "writing_box", "writing_write", "writing_note", "writing_digest")
    shown = [parts[name] for name in names]

    def look(*values: Any) -> list[Any]:
        try:
            found = changes_of(page, page.read(values)[0])
        except PivotalError as error:
            return ["", gr.update(visible=False), unchanged(), error_html(error), ""]
        count = len(found.changes)
        label = f"Write {count} file{'s' if count != 1 else ''}"
        return [preview(found), gr.update(visible=count > 0), gr.update(value=label), "", found.digest]

    quiet(parts["writing_look"].click, look, form.components, shown)
    quiet(parts["writing_cancel"].click, lambda: ["", gr.update(visible=False), unchanged(), "", ""], None, shown)
    drawn = [*shown, *(parts[name] for name in DATA_PARTS)]

    def write(digest: str, *values: Any) -> list[Any]:
        run = page.read(values)[0]
        try:
            found = changes_of(page, run)
            if not digest or found.digest != digest:
                raise DataError(
                    "settings, embeddings or files have changed since the preview. Press Show what would change again"
                )
            record = records_folder(page, run) / f"{time.strftime('%Y%m%d-%H%M%S')}-{digest[:6]}.json"
            outcome = caption_files.write_changes(found.changes, record)
            return [*_done(outcome, "written"), *_drawn_again(page, run)]
        except PivotalError as error:
            return _refused(error)

    inputs = [parts["writing_digest"], *form.components]
    quiet(parts["writing_write"].click, write, inputs, drawn).then(fn=None, _js=CHECK_JS, queue=False)

    def back(*values: Any) -> list[Any]:
        run = page.read(values)[0]
        try:
            records = sorted(records_folder(page, run).glob("*.json"))
            if not records:
                raise DataError("no captions of this folder were written from here, so there is nothing to take back")
            outcome = caption_files.take_back(records[-1])
            return [*_done(outcome, "as before"), *_drawn_again(page, run)]
        except PivotalError as error:
            return _refused(error)

    quiet(parts["writing_back"].click, back, form.components, drawn).then(fn=None, _js=CHECK_JS, queue=False)


def changes_of(page: Page, run: Run) -> Changes:
    """What would be written for the scanned folder.

    Raises:
        DataError: the folder is not scanned, or a file cannot be read.
    """
    survey = page.desk.survey(run)
    if survey is None:
        raise DataError("the folder is not scanned. Press Scan first")
    return caption_files.caption_changes(survey.dataset, survey.wording)


def records_folder(page: Page, run: Run) -> Path:
    """Where the ways back of a folder's captions are kept: beside the runs, not among the pictures."""
    return caption_files.records_place(page.manager.studio.runs_folder(), run.data.folder)


def preview(found: Changes) -> str:
    """How many files, and the first of them before and after."""
    several = (
        f"<p>{len(found.several)} pictures have several captions; their files are left alone.</p>"
        if found.several
        else ""
    )
    if not found.changes:
        return f'<div class="pivotal-empty">Every file already holds its caption as trained.{several}</div>'
    rows = "".join(
        f'<div><span title="{escape(change.key)}">{escape(change.place.name)}</span>'
        f"<p>{escape(change.text_before) or '<em>no file yet</em>'}</p><p>{escape(change.text_after)}</p></div>"
        for change in found.changes[:SHOWN]
    )
    rest = len(found.changes) - SHOWN
    more = f"<p>and {rest} more</p>" if rest > 0 else ""
    head = '<div class="head"><span>file</span><span>holds now</span><span>would hold</span></div>'
    return f'<div class="pivotal-examples pivotal-files">{head}{rows}</div>{more}{several}'


def _done(outcome: Outcome, what: str) -> list[Any]:
    """What was done, in the order of the panel's outputs."""
    text = f"{outcome.written} caption file{'s' if outcome.written != 1 else ''} {what}."
    note = message(text, "ok" if not outcome.left else "warning")
    if outcome.left:
        note += message(f"Left alone: {_listed(outcome.left)}", "warning")
    return ["", gr.update(visible=False), unchanged(), note, ""]


def _listed(texts: Sequence[str], most: int = 5) -> str:
    more = f" ... and {len(texts) - most} more" if len(texts) > most else ""
    return "; ".join(texts[:most]) + more


def _drawn_again(page: Page, run: Run) -> list[Any]:
    """The folder looked at anew; its words count as the user's own from now on, since their tags may be gone."""
    page.desk.scan(run.data.folder, run.data)
    shown = data_shown(page, run)
    return [shown[page.parts[name]] for name in DATA_PARTS]


def _refused(error: PivotalError) -> list[Any]:
    """Nothing was written: the preview goes, the rest of the page stays."""
    return ["", gr.update(visible=False), unchanged(), error_html(error), "", *(unchanged() for _ in DATA_PARTS)]
