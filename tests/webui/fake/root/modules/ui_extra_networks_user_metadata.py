"""The editor of a card, and the .json beside the file that it writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr


class UserMetadataEditor:
    def __init__(self, ui: Any, tabname: str, page: Any) -> None:
        self.ui, self.tabname, self.page = ui, tabname, page
        self.id_part = f"{tabname}_{page.name}_edit_user_metadata"

    def get_user_metadata(self, name: str) -> dict[str, Any]:
        item = self.page.items.get(name, {})
        found = item.get("user_metadata")
        if not found:
            found = item["user_metadata"] = {"description": item.get("description", "")}
        return found

    def create_extra_default_items_in_left_column(self) -> None: ...

    def create_default_editor_elems(self) -> None:
        self.edit_name = gr.HTML()
        self.edit_description = gr.Textbox(label="Description")
        self.create_extra_default_items_in_left_column()

    def create_default_buttons(self) -> None:
        self.button_save = gr.Button("Save")

    def get_metadata_table(self, name: str) -> list[tuple[str, str]]:
        item = self.page.items.get(name, {})
        return [("Filename: ", Path(item["filename"]).name), ("Hash: ", item.get("shorthash"))]

    def write_user_metadata(self, name: str, metadata: dict[str, Any]) -> None:
        path = Path(self.page.items[name]["filename"]).with_suffix(".json")
        path.write_text(json.dumps(metadata, indent=4, ensure_ascii=False), encoding="utf8")

    def setup_save_handler(self, button: Any, func: Callable[..., Any], components: list[Any]) -> None:
        button.click(fn=func, inputs=[self.edit_name_input, *components], outputs=[])

    def create_editor(self) -> None:
        raise NotImplementedError

    def create_ui(self) -> None:
        with gr.Box(visible=False, elem_id=self.id_part) as self.box:
            self.edit_name_input = gr.Textbox("Edit user metadata card id", visible=False)
            self.button_edit = gr.Button("Edit user metadata", visible=False)
            self.create_editor()
