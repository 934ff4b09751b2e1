"""Painting a mask over a picture: how much each part of it counts in the loss."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from PIL import Image

from lib_pivotal.errors import DataError, PivotalError
from lib_pivotal.ui.page import Page, Shown, error_html, message, quiet

if TYPE_CHECKING:
    from lib_pivotal.config import Run
    from lib_pivotal.data.records import Picture

EDITOR_PX = 768
"""Pictures are painted on at this size at most; the mask is saved at the picture's own."""

WHAT = (
    "White counts most, black not at all. With the scale hcp mid-grey (0.5) counts as if there were no mask, and white "
    "five times as much. Masks are used when Masks (Train, Pictures and masks) is not none."
)

INTO_VIEW_JS = """() => {
    document.querySelector("#pivotal_mask_box")?.scrollIntoView({block: "start", behavior: "smooth"});
}"""


def build_mask_panel(page: Page) -> None:
    """Hidden until a picture's *mask* is pressed."""
    parts = page.parts
    page.hidden_text("mask_key")
    page.hidden_button("mask_open")
    with gr.Column(visible=False, elem_id="pivotal_mask_box", elem_classes=["pivotal-section"]) as box:
        page.html("mask_title")
        with gr.Row():
            parts["mask_editor"] = gr.Image(
                label="Paint here",
                elem_id="pivotal_mask_editor",
                source="upload",
                tool="sketch",
                type="pil",
                image_mode="RGB",
                brush_color="#ffffff",
                interactive=True,
                height=440,
            )
            parts["mask_shown"] = gr.Image(
                label="The mask as it is: red counts", elem_id="pivotal_mask_shown", interactive=False, height=440
            )
        with gr.Row(elem_classes=["pivotal-row"]):
            parts["mask_weight"] = gr.Slider(
                0,
                1,
                value=1,
                step=0.05,
                label="What is painted becomes",
                elem_id="pivotal_mask_weight",
                info="How much it counts in the loss: 0 not at all, 1 fully.",
            )
            parts["mask_rest"] = gr.Slider(
                0,
                1,
                value=0.1,
                step=0.05,
                label="The rest of a new mask is",
                elem_id="pivotal_mask_rest",
                info="What is not painted, where there is no mask yet.",
            )
        with gr.Row(elem_classes=["pivotal-tools"]):
            for name, text in (
                ("save", "Add to the mask"),
                ("new", "Replace the mask with this"),
                ("gone", "Remove it"),
            ):
                parts[f"mask_{name}"] = gr.Button(text, size="sm", elem_id=f"pivotal_mask_{name}")
    parts["mask_box"] = box
    page.html("mask_note")


def bind_mask_panel(page: Page) -> None:
    """Open, add, begin anew, remove."""
    parts, form = page.parts, page.form

    def open_picture(key: str, *values: Any) -> Shown:
        try:
            picture = _picture(page, page.read(values)[0], key)
            shown = _small(picture)
        except PivotalError as error:
            return page.shown(mask_box=gr.update(visible=False), mask_title="", mask_note=error_html(error))
        title = f"<h3>Mask of {escape(picture.key)}</h3><p>{WHAT}</p>"
        return page.shown(
            mask_box=gr.update(visible=True),
            mask_title=title,
            mask_editor=shown,
            mask_shown=_shown(picture),
            mask_note="",
        )

    inputs = [parts["mask_key"], *form.components]
    names = ("mask_box", "mask_title", "mask_editor", "mask_shown", "mask_note")
    event = quiet(parts["mask_open"].click, open_picture, inputs, page.named(*names))
    event.then(fn=None, _js=INTO_VIEW_JS, queue=False)

    def painting(anew: bool) -> Any:
        def save(painted: Any, weight: float, rest: float, key: str, *values: Any) -> Shown:
            from lib_pivotal.data import masks  # here and below: the page is built at start-up

            try:
                picture = _picture(page, page.read(values)[0], key)
                strokes = _strokes(painted)
                current = None if anew else _current(picture)
                now = None if current is None else masks.read_mask(current)
                size = (picture.width_px, picture.height_px)
                made = masks.paint(now, strokes, weight=float(weight), rest=float(rest), size=size)
                place = masks.save_mask(picture.path, made)
            except PivotalError as error:
                return page.shown(mask_note=error_html(error))
            said = message(f"Saved as {place}. Scan again to see it in the list.", "info")
            return page.shown(mask_shown=_shown(picture), mask_note=said)

        return save

    inputs = [parts["mask_editor"], parts["mask_weight"], parts["mask_rest"], parts["mask_key"], *form.components]
    outputs = page.named("mask_shown", "mask_note")
    quiet(parts["mask_save"].click, painting(False), inputs, outputs)
    quiet(parts["mask_new"].click, painting(True), inputs, outputs)

    def remove(key: str, *values: Any) -> Shown:
        from lib_pivotal.data.masks import remove_mask

        try:
            picture = _picture(page, page.read(values)[0], key)
            gone = remove_mask(picture.path)
        except (PivotalError, OSError) as error:
            said = error_html(error if isinstance(error, PivotalError) else DataError(str(error)))
            return page.shown(mask_note=said)
        text = "The mask is gone. Scan again to see it in the list." if gone else "There is no painted mask to remove."
        return page.shown(mask_shown=_shown(picture), mask_note=message(text, "info"))

    quiet(parts["mask_gone"].click, remove, [parts["mask_key"], *form.components], outputs)


def _picture(page: Page, run: Run, key: str) -> Picture:
    dataset = page.controller.dataset(run.data.folder)
    if dataset is None:
        raise DataError("the folder is not scanned. Scan it, and press mask below a picture")
    return dataset[key]


def _strokes(painted: Any) -> Image.Image:
    """What the editor gives beside the picture."""
    strokes = painted.get("mask") if isinstance(painted, dict) else None
    if strokes is None:
        raise DataError("nothing is painted yet. Draw over the picture on the left")
    found: Image.Image = strokes
    return found


def _current(picture: Picture) -> Path | None:
    """The mask that the next scan finds."""
    from lib_pivotal.data.masks import mask_place

    for path in (mask_place(picture.path), picture.mask_path):
        if path is not None and path.exists():
            return path
    return None


def _shown(picture: Picture) -> Image.Image | None:
    """The mask over its picture; nothing where there is none."""
    from lib_pivotal.data.masks import heat_map, read_mask

    current = _current(picture)
    return None if current is None else heat_map(_small(picture), read_mask(current))


def _small(picture: Picture) -> Image.Image:
    """The picture as it is painted on."""
    from lib_pivotal.data.pictures import open_picture

    shown = open_picture(picture.path)
    shown.thumbnail((EDITOR_PX, EDITOR_PX))
    return shown
