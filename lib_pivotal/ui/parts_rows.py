"""What the page adds to the web UI's own: the accordion "LoRA parts" (an empty frame which javascript/pivotal_parts.js
fills), the form of "Four rows", and the fields in the editor of a LoRA card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr

HINT = "No LoRA in the prompt. Click one on the Lora tab, or write &lt;lora:name:1&gt;."


def accordion(tab: str) -> gr.Accordion:
    """The accordion of a tab, `txt2img` or `img2img`; nothing of it is saved or passed on."""
    with gr.Accordion("LoRA parts", open=False, elem_id=f"pivotal_parts_{tab}", elem_classes=["pivotal-parts"]) as box:
        gr.HTML(f'<div class="pivotal-parts-rows" data-tab="{tab}"><p class="pivotal-lora-hint">{HINT}</p></div>')
    return box


def four_rows_form(elem_id: Callable[[str], str]) -> tuple[Any, Any, Any]:
    """Embeddings, prompts and margin of the script "Four rows"."""
    embeddings = gr.Textbox(
        label="Embeddings, one per column",
        info="separated by commas; empty: every embedding of the bundles in the prompt",
        elem_id=elem_id("words"),
    )
    prompts = gr.Textbox(
        label="Prompts, one per line",
        info="{word} stands for the embedding, which otherwise goes in front; empty: the prompt above",
        lines=2,
        elem_id=elem_id("prompts"),
    )
    margin = gr.Slider(label="Grid margins (px)", minimum=0, maximum=100, value=4, step=2, elem_id=elem_id("margin"))
    return embeddings, prompts, margin


def part_fields(parts: Mapping[str, str]) -> tuple[Any, Any, Any]:
    """Part, text encoder's weight, U-Net's weight; empty weights leave it to the bundle or the web UI.

    `parts`: what is stored, to what people read.
    """
    part = gr.Radio(
        label="Part to use", choices=[(title, part) for part, title in parts.items()], value="whole", interactive=True
    )
    with gr.Row():
        te = gr.Number(label="Text encoder weight", info="empty: the preferred weight", value=None, interactive=True)
        unet = gr.Number(label="U-Net weight", info="empty: the preferred weight", value=None, interactive=True)
    return part, te, unet
