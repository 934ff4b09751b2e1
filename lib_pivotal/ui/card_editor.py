"""The fields that the editor of a LoRA card gets: which part, and a weight for each part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr


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
