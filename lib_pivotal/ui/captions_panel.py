"""Captions into their files: missing ones by a tagger; all as they are trained, after a preview and with a way back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from lib_pivotal.data import caption_files
from lib_pivotal.errors import DataError, PivotalError
from lib_pivotal.ui.data_panel import DATA_PARTS, data_shown
from lib_pivotal.ui.page import CHECK_JS, Page, Shown, error_html, message, quiet

if TYPE_CHECKING:
    from lib_pivotal.commands.captions import CaptionsWritten
    from lib_pivotal.config import Run
    from lib_pivotal.data.caption_files import Changes

SHOWN = 8
"""Changes that the preview shows."""
WHAT = (
    "Training does not need this: captions are pruned on the fly. Write them for other programs, or to continue "
    "by hand. "
    "Proposed embeddings keep their settings, though their tags are gone from the files."
)


def build_captions_panel(page: Page) -> None:
    """Two parts, folded; what confirms is hidden until there is a preview."""
    _build_missing(page)
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


def bind_captions_panel(page: Page) -> None:
    """Write what is missing; look, write or leave, take back."""
    _bind_missing(page)
    parts, form = page.parts, page.form
    shown = [parts[f"writing_{name}"] for name in ("shown", "box", "write", "note", "digest")]
    drawn = [*shown, *(parts[name] for name in DATA_PARTS)]

    def closed(note: str) -> Shown:
        """The preview goes: what it showed is written, or is out of date."""
        return {
            parts["writing_shown"]: "",
            parts["writing_box"]: gr.update(visible=False),
            parts["writing_note"]: note,
            parts["writing_digest"]: "",
        }

    def drawn_again(run: Run) -> Shown:
        """The folder scanned anew; its embeddings count as the user's own from now on, since their tags may be gone."""
        page.controller.scan(run.data.folder, run.data)
        return data_shown(page, run)

    def look(*values: Any) -> Shown:
        try:
            found = changes_of(page, page.read(values)[0])
        except PivotalError as error:
            return closed(error_html(error))
        count = len(found.changes)
        return {
            parts["writing_shown"]: preview(found),
            parts["writing_box"]: gr.update(visible=count > 0),
            parts["writing_write"]: gr.update(value=f"Write {count} file{'s' if count != 1 else ''}"),
            parts["writing_note"]: "",
            parts["writing_digest"]: found.digest,
        }

    quiet(parts["writing_look"].click, look, form.components, shown)

    def cancel() -> Shown:
        return closed("")

    quiet(parts["writing_cancel"].click, cancel, None, shown)

    def work(act: Callable[..., CaptionsWritten], what: str) -> Callable[..., Shown]:
        def done(digest: str, *values: Any) -> Shown:
            run = page.read(values)[0]
            try:
                return closed(_done(act(run, digest), what)) | drawn_again(run)
            except PivotalError as error:
                return closed(error_html(error))

        return done

    def write(run: Run, digest: str) -> CaptionsWritten:
        from lib_pivotal.commands import captions  # here: only a click needs it

        home = page.manager.backend.runs_folder()
        return captions.write(changes_of(page, run), run.data.folder, home=home, digest=digest)

    def back(run: Run, digest: str) -> CaptionsWritten:
        from lib_pivotal.commands import captions  # here: only a click needs it

        return captions.take_back(run.data.folder, home=page.manager.backend.runs_folder())

    inputs = [parts["writing_digest"], *form.components]
    for name, act, what in (("write", write, "written"), ("back", back, "as before")):
        event = quiet(parts[f"writing_{name}"].click, work(act, what), inputs, drawn)
        event.then(fn=None, _js=CHECK_JS, queue=False)


def changes_of(page: Page, run: Run) -> Changes:
    """What would be written for the scanned folder.

    Raises:
        DataError: the folder is not scanned, or a file cannot be read.
    """
    analysis = page.controller.analysis(run)
    if analysis is None:
        raise DataError("the folder is not scanned. Press Scan first")
    return caption_files.caption_changes(analysis.dataset, analysis.wording)


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


def _done(done: CaptionsWritten, what: str) -> str:
    text = f"{done.written} caption file{'s' if done.written != 1 else ''} {what}."
    note = message(text, "ok" if not done.left else "warning")
    return note + message(f"Left alone: {_listed(done.left)}", "warning") if done.left else note


def _listed(texts: Sequence[str], most: int = 5) -> str:
    more = f" ... and {len(texts) - most} more" if len(texts) > most else ""
    return "; ".join(texts[:most]) + more


# ---- missing captions ----


def _build_missing(page: Page) -> None:
    """A tagger and a button, folded; nothing where nothing can write captions."""
    choices = [(tagger.title, tagger.name) for tagger in page.manager.backend.taggers()]
    with (
        gr.Accordion("Pictures without captions", open=False, elem_id="pivotal_captions", visible=bool(choices)),
        gr.Row(elem_classes=["pivotal-row"]),
    ):
        page.parts["tagger"] = gr.Dropdown(
            choices,
            value=choices[0][1] if choices else None,
            label="Written by the web UI's own",
            info="Which of its interrogators writes.",
            elem_id="pivotal_tagger",
            interactive=True,
            scale=3,
        )
        page.parts["write_captions"] = gr.Button(
            "Write missing captions", scale=1, min_width=160, elem_id="pivotal_write_captions"
        )
    page.html("captions_note")


def _bind_missing(page: Page) -> None:
    """A click begins it, or says why it cannot."""

    def write(tagger: str | None, *values: Any) -> str:
        from lib_pivotal.commands import captions  # here: only a click needs it

        asked = captions.FillRequest(page.read(values)[0].data, tagger or "")
        try:
            return message(captions.fill(page.manager, asked).said, "info")
        except PivotalError as error:
            return error_html(error)

    inputs: list[Any] = [page.parts["tagger"], *page.form.components]
    begun = quiet(page.parts["write_captions"].click, write, inputs, page.parts["captions_note"])
    begun.then(fn=None, _js="() => { document.querySelector('#pivotal_refresh')?.click(); }", queue=False)
