"""Pictures without captions: a button that has them written by what the process around has for it."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lib_pivotal.errors import PivotalError
from lib_pivotal.ui.page import Page, error_html, message, quiet


def build_captions_panel(page: Page) -> None:
    """A choice and a button, folded; nothing where nothing can write captions."""
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


def bind_captions_panel(page: Page) -> None:
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
