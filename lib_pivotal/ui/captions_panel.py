"""Pictures without captions: a button that has them written by what the process around has for it."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lib_pivotal.errors import PivotalError
from lib_pivotal.ui.page import Page, error_html, message, quiet

STARTED = (
    "Captions are being written for the pictures that have none; the line on top tells how far it is, and Stop ends "
    "it. Scan the folder again when it is done."
)


def build_captions_panel(page: Page) -> None:
    """A choice and a button, folded; nothing where nothing can write captions."""
    taggers = page.manager.backend.taggers()
    titles = [tagger.title for tagger in taggers]
    with (
        gr.Accordion("Pictures without captions", open=False, elem_id="pivotal_captions", visible=bool(taggers)),
        gr.Row(elem_classes=["pivotal-row"]),
    ):
        page.parts["tagger"] = gr.Dropdown(
            titles,
            value=titles[0] if titles else None,
            label="Written by the web UI's own",
            elem_id="pivotal_tagger",
            interactive=True,
            scale=3,
        )
        page.parts["write_captions"] = gr.Button(
            "Write missing captions", scale=1, min_width=160, elem_id="pivotal_write_captions"
        )
    page.html("captions_note")


def bind_captions_panel(page: Page) -> None:
    """A click begins it, or says why it cannot."""
    manager, form = page.manager, page.form

    def write(title: str, *values: Any) -> str:
        data = page.read(values)[0].data
        name = next((one.name for one in manager.backend.taggers() if one.title == title), title or "")
        if not data.folder.strip():
            return message("Give the folder of pictures first.", "info")
        try:
            manager.write_captions(data, name)
        except PivotalError as error:
            return error_html(error)
        return message(STARTED, "info")

    inputs: list[Any] = [page.parts["tagger"], *form.components]
    begun = quiet(page.parts["write_captions"].click, write, inputs, page.parts["captions_note"])
    begun.then(fn=None, _js="() => { document.querySelector('#pivotal_refresh')?.click(); }", queue=False)
