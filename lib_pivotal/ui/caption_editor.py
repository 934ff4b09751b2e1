"""Changing a picture's caption on the page: as written and as trained side by side; the file changes on Save only."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from lib_pivotal.config import Run
from lib_pivotal.errors import DataError, PivotalError
from lib_pivotal.later import later
from lib_pivotal.ui.data_panel import gallery_of
from lib_pivotal.ui.page import Page, error_html, message, quiet, unchanged

if TYPE_CHECKING:
    from lib_pivotal.data import caption_files, captions
    from lib_pivotal.data.records import Picture
    from lib_pivotal.runs import proposal
    from lib_pivotal.ui import dataset_html, words_html
else:
    caption_files = later("lib_pivotal.data.caption_files")
    captions = later("lib_pivotal.data.captions")
    proposal = later("lib_pivotal.runs.proposal")
    dataset_html = later("lib_pivotal.ui.dataset_html")
    words_html = later("lib_pivotal.ui.words_html")

NOTHING = ["", "", ""]
"""What is open: the picture's key, what its file held, and where the picture is."""

SHOW_JS = """() => {
    const box = document.querySelector("#pivotal_caption_box");
    if (box?.offsetParent) box.scrollIntoView({block: "nearest", behavior: "smooth"});
    const tips = {
        caption_text: "The caption as it will stand in the file. Nothing is written before Save.",
        caption_backup: "Copies the file that is there to NAME.txt.bak first. A copy of before is not replaced.",
        caption_save: "Writes the caption file.",
        caption_undo: "Shows the file as it is; what you typed is dropped.",
        caption_close: "Hides the editor. Not while there are changes that are not saved."
    };
    for (const [name, tip] of Object.entries(tips)) {
        document.querySelector("#pivotal_" + name)?.setAttribute("title", tip);
    }
}"""


def build_caption_editor(page: Page) -> None:
    """Hidden until a picture's *caption* is pressed."""
    parts = page.parts
    page.hidden_text("caption_key")
    page.hidden_button("caption_open")
    parts["caption_opened"] = gr.State(NOTHING)
    page.html("caption_note")  # above the box: in sight where the box is, and also where no box opens
    with gr.Column(visible=False, elem_id="pivotal_caption_box", elem_classes=["pivotal-section"]) as box:
        page.html("caption_title")
        parts["caption_text"] = gr.Textbox(label="Caption", lines=3, max_lines=12, elem_id="pivotal_caption_text")
        page.html("caption_shown")
        with gr.Row(elem_classes=["pivotal-tools"]):
            parts["caption_save"] = gr.Button("Save", variant="primary", size="sm", elem_id="pivotal_caption_save")
            parts["caption_undo"] = gr.Button("Take back", size="sm", elem_id="pivotal_caption_undo")
            parts["caption_close"] = gr.Button("Close", size="sm", elem_id="pivotal_caption_close")
            parts["caption_backup"] = gr.Checkbox(
                False, label="Keep the old file as .bak", elem_id="pivotal_caption_backup", container=False
            )
    parts["caption_box"] = box


def bind_caption_editor(page: Page) -> None:
    """Open, type, save, take back, close."""
    parts, form = page.parts, page.form
    shown = [parts[f"caption_{name}"] for name in ("box", "title", "text", "shown", "opened", "note")]
    typed = [parts["caption_text"], parts["caption_opened"]]

    def opened(run: Run, key: str) -> list[Any]:
        picture = _picture(page, run, key)
        text = caption_files.file_text(picture.path)
        place = caption_files.caption_place(picture.path)
        what = f"in {place.name}" if place.exists() else f"no file yet; Save writes {place.name}"
        title = f"<h3>Caption of {escape(picture.key)}</h3><p>{escape(what)}</p>"
        return [
            gr.update(visible=True),
            title,
            text,
            side_by_side(page, run, text),
            [picture.key, text, str(picture.path)],
            "",
        ]

    def open_picture(key: str, text: str, before: list[str], *values: Any) -> list[Any]:
        try:
            if before[0] and before[0] != key:
                _refuse_unsaved(text, before)
            elif before[0] and _is_changed(text, before):  # the same picture again: go on typing
                return [gr.update(visible=True), *(unchanged() for _ in shown[1:])]
            return opened(page.read(values)[0], key)
        except PivotalError as error:
            return [*(unchanged() for _ in shown[1:]), error_html(error)]

    event = quiet(parts["caption_open"].click, open_picture, [parts["caption_key"], *typed, *form.components], shown)
    event.then(fn=None, _js=SHOW_JS, queue=False)

    def undo(before: list[str], *values: Any) -> list[Any]:
        try:
            return opened(page.read(values)[0], before[0])
        except PivotalError as error:
            return [*(unchanged() for _ in shown[1:]), error_html(error)]

    quiet(parts["caption_undo"].click, undo, [parts["caption_opened"], *form.components], shown)

    def close(text: str, before: list[str]) -> list[Any]:
        try:
            _refuse_unsaved(text, before)
        except PivotalError as error:
            return [unchanged(), unchanged(), error_html(error)]
        return [gr.update(visible=False), NOTHING, ""]

    outputs = [parts["caption_box"], parts["caption_opened"], parts["caption_note"]]
    quiet(parts["caption_close"].click, close, typed, outputs)
    quiet(
        parts["caption_text"].input,
        lambda text, *values: side_by_side(page, page.read(values)[0], text),
        [parts["caption_text"], *form.components],
        parts["caption_shown"],
    )
    _bind_save(page, typed)


def _bind_save(page: Page, typed: list[Any]) -> None:
    parts, form = page.parts, page.form
    outputs = [parts[name] for name in ("caption_opened", "caption_note", "words_table", "tags", "cards", "gallery")]

    def save(text: str, before: list[str], backup: bool, query: str, number: str, *values: Any) -> list[Any]:
        run = page.read(values)[0]
        try:
            picture = _picture(page, run, before[0])
            if str(picture.path) != before[2]:
                raise DataError(
                    f"{before[2]}: the page shows another folder now. Scan the folder of this picture again"
                )
            place = caption_files.save_caption(picture.path, text, before=before[1], backup=backup)
            page.desk.recaption(run.data.folder, picture.key, captions.read_caption(place)[0])
        except PivotalError as error:
            return [unchanged(), error_html(error), *(unchanged() for _ in outputs[2:])]
        rows = page.desk.rows(run)
        cards = words_html.tag_cards(rows)
        return [
            [picture.key, caption_files.file_text(picture.path), str(picture.path)],
            message(f"Saved as {place}. Remarks on files are renewed by the next scan.", "ok"),
            words_html.words_table(rows, proposal.draws_of(run, rows)),
            gr.update(visible=bool(cards)),
            cards,
            gallery_of(page, run, query, number),
        ]

    inputs = [*typed, *(parts[name] for name in ("caption_backup", "filter", "gallery_page")), *form.components]
    event = quiet(parts["caption_save"].click, save, inputs, outputs)
    event.then(fn=None, _js="() => { document.querySelector('#pivotal_check')?.click(); }", queue=False)


def side_by_side(page: Page, run: Run, text: str) -> str:
    """The caption with its words coloured, and what is trained of it."""
    rows = page.desk.rows(run)
    joined = ", ".join(part for line in (text or "").splitlines() if (part := line.strip().strip(",").strip()))
    trained = escape(dataset_html.pruned(joined, rows)) or "<em>nothing</em>"
    return (
        f'<div class="pivotal-beside"><div><small>as written</small><p>{dataset_html.caption(joined, rows)}</p></div>'
        f"<div><small>without what the words take over</small><p>{trained}</p></div></div>"
    )


def _picture(page: Page, run: Run, key: str) -> Picture:
    dataset = page.desk.dataset(run.data.folder)
    if dataset is None:
        raise DataError("the folder is not scanned. Scan it, and press caption below a picture")
    return dataset[key]


def _is_changed(text: str, before: list[str]) -> bool:
    return (text or "").strip() != before[1].strip()


def _refuse_unsaved(text: str, before: list[str]) -> None:
    if before[0] and _is_changed(text, before):
        raise DataError(f"{before[0]}: its caption has changes that are not saved. Press Save or Take back first")
