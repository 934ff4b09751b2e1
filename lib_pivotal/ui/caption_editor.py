"""Changing a picture's caption in a drawer: as written and as trained; the file changes on Save only.

Goes through the pictures of the filter by buttons, or by keys (javascript/pivotal_data.js).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from lib_pivotal.data import caption_files, captions
from lib_pivotal.errors import DataError, PivotalError
from lib_pivotal.ui import caption_html, thumbs
from lib_pivotal.ui.gallery_panel import GALLERY_PARTS, gallery_shown, groups_of, keys_by_name, places_of
from lib_pivotal.ui.page import CHECK_JS, Page, Shown, error_html, message, quiet
from lib_pivotal.ui.tags_panel import TAGS_PARTS, tags_shown

if TYPE_CHECKING:
    from lib_pivotal.config import Run
    from lib_pivotal.data.records import Picture

NOTHING = ["", "", ""]
"""What is open: the picture's key, what its file held, and where the picture is."""
PICTURE_PX = 900
LEGEND = (
    '<div class="pivotal-legend"><span><b class="pivotal-word">embedding</b></span><span>stays</span>'
    '<span><s class="absorbed">pruned</s></span><span><s class="init">pruned, part of the init text</s></span>'
    '<span><s class="dropped">left out</s></span></div>'
)


def build_caption_editor(page: Page) -> None:
    """Hidden until a picture is clicked."""
    parts = page.parts
    page.hidden_text("caption_key")
    page.hidden_button("caption_open")
    parts["caption_opened"] = gr.State(NOTHING)
    page.html("caption_note")  # outside of the drawer: in sight also where none opens
    with gr.Column(visible=False, elem_id="pivotal_caption_box", elem_classes=["pivotal-drawer"]) as box:
        with gr.Row(elem_classes=["pivotal-tools"], elem_id="pivotal_caption_head"):
            page.html("caption_title")
            for name, sign in (("previous", "‹"), ("next", "›"), ("close", "✕")):
                parts[f"caption_{name}"] = gr.Button(
                    sign, size="sm", elem_id=f"pivotal_caption_{name}", min_width=36, scale=0
                )
        page.html("caption_picture")
        parts["caption_text"] = gr.Textbox(label="Caption", lines=4, max_lines=12, elem_id="pivotal_caption_text")
        page.html("caption_shown")
        with gr.Row(elem_classes=["pivotal-tools"]):
            parts["caption_save"] = gr.Button(
                "Save", variant="primary", size="sm", elem_id="pivotal_caption_save", min_width=80
            )
            parts["caption_undo"] = gr.Button("Take back", size="sm", elem_id="pivotal_caption_undo", min_width=80)
            parts["caption_backup"] = gr.Checkbox(
                False, label="Keep the old file as .bak", elem_id="pivotal_caption_backup", container=False
            )
    parts["caption_box"] = box


def bind_caption_editor(page: Page) -> None:
    """Open, go to another one, type, save, take back, close."""
    parts, form = page.parts, page.form
    shown = [parts[f"caption_{name}"] for name in ("box", "title", "picture", "text", "shown", "opened", "note")]
    typed = [parts["caption_text"], parts["caption_opened"]]

    def failed(error: PivotalError) -> Shown:
        return page.shown(caption_note=error_html(error))

    def open_picture(key: str, text: str, before: list[str], query: str, *values: Any) -> Shown:
        try:
            if before[0] and before[0] != key:
                _refuse_unsaved(text, before)
            elif before[0] and _is_changed(text, before):  # the same picture again: go on typing
                return page.shown(caption_box=gr.update(visible=True))
            return _opened(page, page.read(values)[0], key, query)
        except PivotalError as error:
            return failed(error)

    inputs = [*typed, parts["filter"], *form.components]
    quiet(parts["caption_open"].click, open_picture, [parts["caption_key"], *inputs], shown)

    def beside(step: int) -> Any:
        def go(text: str, before: list[str], query: str, *values: Any) -> Shown:
            try:
                _refuse_unsaved(text, before)
                run = page.read(values)[0]
                order = _order(page, run, query)
                here = order.index(before[0]) if before[0] in order else -1 if step > 0 else 0
                return _opened(page, run, order[(here + step) % len(order)], query) if order else failed(_none_left())
            except PivotalError as error:
                return failed(error)

        return go

    quiet(parts["caption_previous"].click, beside(-1), inputs, shown)
    quiet(parts["caption_next"].click, beside(1), inputs, shown)

    def undo(before: list[str], query: str, *values: Any) -> Shown:
        try:
            return _opened(page, page.read(values)[0], before[0], query)
        except PivotalError as error:
            return failed(error)

    quiet(parts["caption_undo"].click, undo, inputs[1:], shown)

    def close(text: str, before: list[str]) -> Shown:
        try:
            _refuse_unsaved(text, before)
        except PivotalError as error:
            return failed(error)
        return page.shown(caption_box=gr.update(visible=False), caption_opened=NOTHING, caption_note="")

    quiet(parts["caption_close"].click, close, typed, page.named("caption_box", "caption_opened", "caption_note"))

    def type_on(text: str, before: list[str], *values: Any) -> str:
        try:
            run = page.read(values)[0]
            return side_by_side(page, run, _picture(page, run, before[0]), text)
        except PivotalError:  # another folder is scanned by now: Save says so
            return escape(text or "")

    quiet(parts["caption_text"].input, type_on, [*typed, *form.components], parts["caption_shown"])
    _bind_save(page, typed)


def _opened(page: Page, run: Run, key: str, query: str) -> Shown:
    """What the drawer shows of a picture."""
    picture = _picture(page, run, key)
    text = caption_files.file_text(picture.path)
    return page.shown(
        caption_box=gr.update(visible=True),
        caption_title=_title(picture, _order(page, run, query)),
        caption_picture=_shown(picture),
        caption_text=text,
        caption_shown=side_by_side(page, run, picture, text),
        caption_opened=[picture.key, text, str(picture.path)],
        caption_note="",
    )


def _title(picture: Picture, order: Sequence[str]) -> str:
    place = caption_files.caption_place(picture.path)
    what = f"in {place.name}" if place.exists() else f"no file yet; Save writes {place.name}"
    where = f"{order.index(picture.key) + 1} of {len(order)}" if picture.key in order else "not in the filter"
    return (
        f'<div data-open="{escape(picture.key)}"><h3 title="{escape(picture.key)}">{escape(picture.path.name)}</h3>'
        f"<small>{where} · {picture.width_px}×{picture.height_px} · {escape(what)}</small></div>"
    )


def _shown(picture: Picture) -> str:
    uri = thumbs.thumbnail(picture.path, PICTURE_PX)
    key = escape(picture.key)
    image = f'<img src="{uri}" alt="{key}" data-zoom="1" title="Click to enlarge">' if uri else "<em>unreadable</em>"
    tool = f'<button type="button" class="pivotal-mini" data-paint="{key}" title="Paint a mask">mask</button>'
    return f'<div class="pivotal-opened">{image}{tool}</div>'


def _order(page: Page, run: Run, query: str) -> list[str]:
    """Keys of the pictures of the filter, in order."""
    analysis = page.controller.analysis(run)
    if analysis is None:
        return []
    problems = keys_by_name(groups_of(page, run))
    return [analysis.dataset.pictures[place].key for place in places_of(analysis, query, problems)[1]]


def _bind_save(page: Page, typed: list[Any]) -> None:
    parts, form = page.parts, page.form
    outputs = page.named("caption_opened", "caption_note", "words_table", *TAGS_PARTS, *GALLERY_PARTS)

    def save(text: str, before: list[str], backup: bool, *more: Any) -> Shown:
        view, query, number, *values = more
        run = page.read(values)[0]
        try:
            picture = _picture(page, run, before[0])
            if str(picture.path) != before[2]:
                raise DataError(
                    f"{before[2]}: the page shows another folder now. Scan the folder of this picture again"
                )
            place = caption_files.save_caption(picture.path, text, before=before[1], backup=backup)
            found = captions.read_captions(place, run.data.caption_lines)[0]
            page.controller.recaption(run.data.folder, picture.key, found)
        except PivotalError as error:
            return page.shown(caption_note=error_html(error))
        return {
            **page.shown(
                caption_opened=[picture.key, caption_files.file_text(picture.path), str(picture.path)],
                caption_note=message(f"Saved as {place}. The next scan updates its warnings.", "ok"),
                words_table=page.embeddings_table(run),
            ),
            **tags_shown(page, run, view),
            **gallery_shown(page, run, query, number),
        }

    inputs = [*typed, *page.named("caption_backup", "tags_view", "filter", "gallery_page"), *form.components]
    event = quiet(parts["caption_save"].click, save, inputs, outputs)
    event.then(fn=None, _js=CHECK_JS, queue=False)


def side_by_side(page: Page, run: Run, picture: Picture, text: str) -> str:
    """The caption with its embeddings coloured, and what is trained of it."""
    analysis = page.controller.analysis(run)
    if analysis is None:
        return ""
    joined = ", ".join(part for line in (text or "").splitlines() if (part := line.strip().strip(",").strip()))
    named, trained = analysis.wording.of_caption(replace(picture, caption=joined, alternatives=()))
    writer = caption_html.CaptionHtml([embedding.name for embedding in run.embeddings])
    before = writer.before(named, trained, analysis.fates(analysis.wording.find(named.caption)), written=joined)
    return (
        f'<div class="pivotal-beside"><div><small>as written</small><p>{before}</p></div>'
        f"<div><small>as trained</small><p>{writer.after(trained)}</p></div></div>{LEGEND}"
    )


def _picture(page: Page, run: Run, key: str) -> Picture:
    dataset = page.controller.dataset(run.data.folder)
    if dataset is None:
        raise DataError("the folder is not scanned. Scan it, and click a picture")
    return dataset[key]


def _none_left() -> DataError:
    return DataError("no picture is in the filter. Press show all above the pictures")


def _is_changed(text: str, before: list[str]) -> bool:
    return (text or "").strip() != before[1].strip()


def _refuse_unsaved(text: str, before: list[str]) -> None:
    if before[0] and _is_changed(text, before):
        raise DataError(f"{before[0]}: its caption has changes that are not saved. Press Save or Take back first")
