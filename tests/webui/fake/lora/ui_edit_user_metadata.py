"""The editor of a LoRA's card."""

from __future__ import annotations

import html
from typing import Any

import gradio as gr
from modules import ui_extra_networks_user_metadata


class LoraUserMetadataEditor(ui_extra_networks_user_metadata.UserMetadataEditor):
    def save_lora_user_metadata(
        self, name: str, desc: str, sd_version: str, activation_text: str, preferred_weight: float, *rest: str
    ) -> None:
        user = self.get_user_metadata(name)
        negative_text, notes = rest
        user["description"], user["sd version"] = desc, sd_version
        user["activation text"], user["preferred weight"] = activation_text, preferred_weight
        user["negative text"], user["notes"] = negative_text, notes
        self.write_user_metadata(name, user)

    def get_metadata_table(self, name: str) -> list[tuple[str, Any]]:
        table = super().get_metadata_table(name)
        metadata = self.page.items.get(name, {}).get("metadata") or {}
        for key, label in (("ss_output_name", "Output name:"), ("ss_network_module", "Kohya module:")):
            if metadata.get(key) is not None:
                table.append((label, html.escape(str(metadata[key]))))
        return table

    def create_extra_default_items_in_left_column(self) -> None:
        self.select_sd_version = gr.Dropdown(["SD1", "SD2", "SDXL", "Unknown"], value="Unknown")

    def create_editor(self) -> None:
        self.create_default_editor_elems()
        self.edit_activation_text = gr.Text(label="Activation text")
        self.slider_preferred_weight = gr.Slider(label="Preferred weight", minimum=0.0, maximum=2.0, step=0.01)
        self.edit_negative_text = gr.Text(label="Negative prompt")
        self.edit_notes = gr.TextArea(label="Notes")
        self.create_default_buttons()
        edited = [
            self.edit_description,
            self.select_sd_version,
            self.edit_activation_text,
            self.slider_preferred_weight,
            self.edit_negative_text,
            self.edit_notes,
        ]
        self.setup_save_handler(self.button_save, self.save_lora_user_metadata, edited)
