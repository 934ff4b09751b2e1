"""The Data page: the folder, what to look at, and the embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from lib_pivotal.config import EmbeddingConfig, Run, check_run
from lib_pivotal.errors import PivotalError
from lib_pivotal.plain_json import parse_json
from lib_pivotal.runs.presets import preset
from lib_pivotal.ui.changes_panel import (
    CHANGES_PARTS,
    Changes,
    build_changes,
    changed,
    changes_shown,
    with_change,
)
from lib_pivotal.ui.embeddings_table import NO_EMBEDDINGS, embeddings_json
from lib_pivotal.ui.gallery_panel import GALLERY_PARTS, gallery_shown
from lib_pivotal.ui.page import CHECK_JS, Page, Shown, answer, error_html, message, note, quiet
from lib_pivotal.ui.plan_panel import PLAN_PARTS, plan_shown
from lib_pivotal.ui.tags_panel import TAGS_PARTS, tags_shown

EMPTY = (
    '<div class="pivotal-empty">Give a folder of pictures. A caption is a text file of the same name; '
    "sub-folders and kohya's <code>10_name</code> folders are read as well.</div>"
)


BAR = (
    '<div class="pivotal-find" hidden><input type="search" data-narrows="#pivotal_findings" '
    'placeholder="Find in the warnings" aria-label="Find in the warnings" '
    'title="Only lines with this text; the name of a file or an embedding finds its lines too"><small></small></div>'
)
"""Outside of the list, which is drawn anew with every check; shown by `pivotal_findings.js` where the list is long."""

DATA_PARTS = (*PLAN_PARTS, "words_table", *TAGS_PARTS, "pictures", *GALLERY_PARTS, "proposed")
"""What a scan, or settings of before, fill beside the form."""
NOTHING_PROPOSED = ["", "[]"]
"""The folder whose embeddings were proposed last, and these embeddings."""


def build_data_panel(page: Page) -> None:
    """Make the elements; `bind_data_panel` makes them act."""
    with gr.Row(elem_id="pivotal_data_top", elem_classes=["pivotal-top"]):
        page.form.add(
            "data.folder",
            scale=8,
            placeholder="Folder, zip, tar, or a trainer's dataset file (.toml, .yaml, .json), where the web UI runs",
            show_label=False,
            container=False,
        )
        page.parts["scan"] = gr.Button("Scan", variant="primary", scale=1, min_width=120, elem_id="pivotal_scan")
    page.html("summary", EMPTY)
    page.html("findings_bar", BAR)
    build_changes(page)
    page.html("findings")
    with gr.Column(elem_classes=["pivotal-section", "pivotal-group"]):
        gr.HTML("<h3>Embeddings</h3>", elem_classes=["pivotal-html"])
        page.html("words_table", NO_EMBEDDINGS)
        with gr.Row(elem_classes=["pivotal-tools"]):
            page.parts["add_word"] = gr.Button(
                "Add an embedding", size="sm", elem_id="pivotal_add_word", min_width=180, scale=0
            )
            page.parts["anew"] = gr.Button(
                "Reset from captions", size="sm", elem_id="pivotal_anew", min_width=180, scale=0
            )
            gr.HTML('<div class="pivotal-help"></div>', elem_classes=["pivotal-html"])
        page.form.add("embeddings", elem_classes=["pivotal-hidden"], show_label=False)
    page.parts["proposed"] = gr.State(NOTHING_PROPOSED)
    page.hidden_text("change", "{}")
    page.hidden_button("change_now")


def bind_data_panel(page: Page) -> None:
    """Scan, propose anew, add an embedding."""
    parts, form = page.parts, page.form
    names = ("preset", "preset_help", *DATA_PARTS, *CHANGES_PARTS)
    outputs = [*form.components, *page.named(*names)]

    def scan(changes: Changes, proposed: Sequence[str], *values: Any) -> Shown:
        run = page.read(values)[0]
        return _scanned(page, run, proposed, label="Scan", before=run, changes=changes)

    def anew(changes: Changes, *values: Any) -> Shown:
        run = page.read(values)[0]
        emptied = replace(run, embeddings=())
        return _scanned(page, emptied, NOTHING_PROPOSED, label="Reset from captions", before=run, changes=changes)

    inputs = [parts["changes"], parts["proposed"], *form.components]
    for event, act, given in (
        (parts["scan"].click, scan, inputs),
        (form["data.folder"].submit, scan, inputs),
        (parts["anew"].click, anew, [inputs[0], *form.components]),
    ):
        event(fn=act, inputs=given, outputs=outputs, show_progress="minimal", queue=False, api_name=False).then(
            fn=None, _js=CHECK_JS, queue=False
        )

    def add_word(*values: Any) -> Shown:
        run = page.read(values)[0]
        run = replace(run, embeddings=(*run.embeddings, EmbeddingConfig(name=_free_name(run))))
        return {
            form["embeddings"]: embeddings_json(run.embeddings),
            **page.shown(words_table=page.embeddings_table(run)),
        }

    quiet(parts["add_word"].click, add_word, form.components, [form["embeddings"], parts["words_table"]])
    _bind_changes(page)


def _bind_changes(page: Page) -> None:
    """A button of a warning, or Undo, changes the run and draws everything anew."""
    parts, form = page.parts, page.form

    def change(asked: str, changes: Changes, proposed: list[str], *values: Any) -> Shown:
        try:
            run, changes, told = changed(page, page.read(values)[0], asked, changes)
        except PivotalError as error:
            return page.shown(told=error_html(error), change_answered=answer())
        return {
            **form.fill(run),
            **data_shown(page, run),
            **changes_shown(page, changes, message(told, "ok") if told else ""),
            **page.shown(proposed=proposed, change_answered=answer()),
        }

    outputs = [*form.components, *page.named(*CHANGES_PARTS, *DATA_PARTS), page.answered("change")]
    inputs = [parts["change"], parts["changes"], parts["proposed"], *form.components]
    quiet(parts["change_now"].click, change, inputs, outputs).then(fn=None, _js=CHECK_JS, queue=False)


def _scanned(page: Page, run: Run, proposed: Sequence[str], *, label: str, before: Run, changes: Changes) -> Shown:
    """What a scan shows; where it fails, only the reason.

    A first scan of a folder begins the list of changes anew; one that changes embeddings or settings can be taken back.
    """
    folder, embeddings = proposed
    known = bool(folder) and folder == run.data.folder
    try:
        old = check_run({"embeddings": parse_json(embeddings)})[0].embeddings
        found = page.controller.propose(run, before=old, known=known)
    except PivotalError as error:
        return page.shown(told=error_html(error))
    chosen = page.shown(preset_help=note("info", "Scanned again; settings are unchanged."))
    if found.preset:
        taken = preset(found.preset)
        chosen = page.shown(preset=gr.update(value=taken.label), preset_help=note("info", taken.said))
    again = known or label != "Scan"
    kept = with_change(changes, label, before, found.run) if again else []
    told = "".join(message(remark, "info") for remark in found.remarks)
    return {
        **page.form.fill(found.run),
        **chosen,
        **data_shown(page, found.run),
        **page.shown(proposed=[run.data.folder, embeddings_json(found.proposed)]),
        **changes_shown(page, kept, told),
    }


def data_shown(page: Page, run: Run) -> Shown:
    """What stands below the folder, of a run whose folder was scanned (or was not): all of DATA_PARTS."""
    scanned = page.controller.dataset(run.data.folder) is not None
    return {
        **page.shown(
            summary=EMPTY,  # of a scanned folder, the plan has a line for it
            words_table=page.embeddings_table(run),
            pictures=gr.update(visible=scanned),
            proposed=[run.data.folder, "[]"] if scanned else NOTHING_PROPOSED,
        ),
        **plan_shown(page, run),
        **tags_shown(page, run),
        **gallery_shown(page, run),
    }


def _free_name(run: Run) -> str:
    base = Path(run.data.folder).name.lower() if run.data.folder else ""
    taken = {embedding.name for embedding in run.embeddings}
    letters = "".join(character for character in base if character.isalpha() and character.isascii()) or "myword"
    names = (letters + suffix for suffix in ("", "-b", "-c", "-d", "-e", "-f", "-g", "-h"))
    return next((name for name in names if name not in taken), "")
