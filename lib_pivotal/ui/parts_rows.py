"""The accordion "LoRA parts", an empty frame which javascript/pivotal_parts.js fills; and "Four rows"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

HINT = "No LoRA in the prompt. Click one on the Lora tab, or write &lt;lora:name:1&gt;."


def accordion(tab: str) -> gr.Accordion:
    """The accordion of a tab, `txt2img` or `img2img`; nothing of it is saved or passed on."""
    with gr.Accordion("LoRA parts", open=False, elem_id=f"pivotal_parts_{tab}", elem_classes=["pivotal-parts"]) as box:
        gr.HTML(f'<div class="pivotal-parts-rows" data-tab="{tab}"><p class="pivotal-lora-hint">{HINT}</p></div>')
    return box


def four_rows_form(elem_id: Callable[[str], str]) -> tuple[Any, Any, Any]:
    """Words, prompts and margin of the script "Four rows"."""
    words = gr.Textbox(
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
    return words, prompts, margin
