"""The Compare page: a finished file's parts and weights on one sheet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from lib_pivotal.errors import PivotalError
from lib_pivotal.ui.page import Page, Shown, message, quiet, sentence, unchanged

if TYPE_CHECKING:
    from lib_pivotal.commands.grid import Comparison
    from lib_pivotal.ui.bundle_controller import BundleController

FIRST_EMBEDDINGS = 4
INTRO = (
    '<div class="pivotal-empty">Full, U-Net only, text encoder only and embeddings only, with the same seeds, '
    "on the loaded checkpoint.</div>"
)
FIELDS = ("file", "words", "prompts", "negative", "weights", "size", "steps", "cfg", "seed")


def build_compare_panel(page: Page) -> None:
    """What to draw on the left, the sheet on the right."""
    parts = page.parts
    with gr.Row(elem_id="pivotal_compare_body"):
        with gr.Column(scale=4, min_width=300):
            parts["compare_file"] = gr.Dropdown(
                [], label="File", info="A LoRA with embeddings inside.", elem_id="pivotal_compare_file"
            )
            parts["compare_words"] = gr.Dropdown(
                [],
                label="Embeddings",
                info="None chosen: all of the file.",
                multiselect=True,
                elem_id="pivotal_compare_words",
            )
            parts["compare_prompts"] = gr.Textbox(
                "{word}",
                label="Prompts, one per line",
                info="{word} stands for each embedding; without it the embedding goes in front.",
                lines=2,
                elem_id="pivotal_compare_prompts",
            )
            parts["compare_negative"] = gr.Textbox(
                "",
                label="Negative prompt",
                info="For all pictures.",
                max_lines=1,
                elem_id="pivotal_compare_negative",
            )
            with gr.Row(elem_classes=["pivotal-row"]):
                _numbers(page)
            parts["compare_draw"] = gr.Button("Generate grid", variant="primary", elem_id="pivotal_compare_draw")
        with gr.Column(scale=6, min_width=320):
            page.html("compare_said", INTRO)
            parts["compare_sheet"] = gr.Image(
                label="Sheet",
                show_label=False,
                type="filepath",
                interactive=False,
                visible=False,
                elem_id="pivotal_compare_sheet",
            )


def _numbers(page: Page) -> None:
    parts = page.parts
    parts["compare_weights"] = gr.Textbox(
        "1", label="Weights", max_lines=1, min_width=100, elem_id="pivotal_compare_weights", placeholder="1, 0.7, 0.4"
    )
    for name, label, value in (
        ("size", "Size (px)", 512),
        ("steps", "Steps", 20),
        ("cfg", "CFG scale", 7),
        ("seed", "Seed", 0),
    ):
        parts[f"compare_{name}"] = gr.Number(value, label=label, min_width=80, elem_id=f"pivotal_compare_{name}")


def bind_compare_panel(page: Page) -> None:
    """The file chooses the embeddings; the button generates."""
    parts = page.parts
    choices = [parts["compare_file"], parts["compare_words"]]

    def lists(chosen: str | None) -> Shown:
        try:
            summaries, names = page.bundles.listing()
        except (PivotalError, OSError):
            return page.shown(compare_file=unchanged())
        with_embeddings = [name for name, summary in zip(names, summaries, strict=True) if summary.embeddings]
        file = chosen if chosen in with_embeddings else (with_embeddings[0] if with_embeddings else None)
        return page.shown(
            compare_file=gr.update(choices=with_embeddings, value=file),
            compare_words=_embeddings_of(page.bundles, file),
        )

    quiet(page.hidden_button("compare_lists").click, lists, parts["compare_file"], choices)
    quiet(
        parts["compare_file"].input,
        lambda file: _embeddings_of(page.bundles, file),
        parts["compare_file"],
        parts["compare_words"],
    )

    def draw(*values: Any) -> Shown:
        try:
            from lib_pivotal.commands import grid  # here: only a click needs it

            path = grid.compare(page.manager, _wanted(page.bundles, dict(zip(FIELDS, values, strict=True))))
        except (PivotalError, OSError) as error:
            return page.shown(compare_said=message(sentence(error)))
        return page.shown(
            compare_said=message(f"Saved as {path.name} in the runs' folder, under compare.", "ok"),
            compare_sheet=gr.update(value=str(path), visible=True),
        )

    parts["compare_draw"].click(
        fn=draw,
        inputs=[parts[f"compare_{name}"] for name in FIELDS],
        outputs=[parts["compare_said"], parts["compare_sheet"]],
        show_progress="minimal",
        queue=False,
        api_name=False,
    )


def _embeddings_of(bundles: BundleController, file: str | None) -> Any:
    if not file:
        return gr.update(choices=[], value=[])
    try:
        embeddings = [embedding.name for embedding in bundles.summary(file).embeddings]
    except PivotalError:
        embeddings = []
    return gr.update(choices=embeddings, value=embeddings[:FIRST_EMBEDDINGS])


def _wanted(bundles: BundleController, values: dict[str, Any]) -> Comparison:
    """From the page's values.

    Raises:
        BundleError: a value makes no sense; says which.
    """
    from lib_pivotal.commands.grid import comparison  # here: only a click needs it

    return comparison(
        bundles.path(values["file"] or ""),
        embeddings=values["words"] or (),
        prompts=(values["prompts"] or "").splitlines(),
        weights=str(values["weights"] or ""),
        negative=values["negative"] or "",
        **{name: values[name] for name in ("size", "steps", "cfg", "seed")},
    )
