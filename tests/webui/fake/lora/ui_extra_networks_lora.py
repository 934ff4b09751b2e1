"""The page of LoRA cards."""

from __future__ import annotations

from typing import Any

import networks
from modules import shared, ui_extra_networks
from modules.ui_extra_networks import quote_js
from ui_edit_user_metadata import LoraUserMetadataEditor


class ExtraNetworksPageLora(ui_extra_networks.ExtraNetworksPage):
    def __init__(self) -> None:
        super().__init__("Lora")

    def create_item(self, name: str, index: int | None = None, enable_filter: bool = True) -> dict[str, Any] | None:
        """None for one that the loaded checkpoint's kind cannot use."""
        entry = networks.available_networks.get(name)
        if entry is None:
            return None
        item: dict[str, Any] = {
            "name": name,
            "filename": entry.filename,
            "shorthash": entry.shorthash,
            "search_terms": [self.search_terms_from_path(entry.filename), *([entry.hash] if entry.hash else [])],
            "metadata": entry.metadata,
            "sd_version": entry.sd_version.name,
        }
        self.read_user_metadata(item)
        user = item["user_metadata"]
        weight = user.get("preferred weight", 0.0)
        multiplier = str(weight) if weight else "opts.extra_networks_default_multiplier"
        item["prompt"] = f"{quote_js(f'<lora:{entry.get_alias()}:')} + {multiplier} + {quote_js('>')}"
        if user.get("activation text"):
            item["prompt"] += " + " + quote_js(" " + user["activation text"])
        if enable_filter and not shared.opts.lora_show_all and shared.sd_model:
            loaded = "SDXL" if shared.sd_model.is_sdxl else "SD2" if shared.sd_model.is_sd2 else "SD1"
            hidden = loaded in shared.opts.lora_hide_unknown_for_versions
            if hidden if item["sd_version"] == "Unknown" else item["sd_version"] != loaded:
                return None
        return item

    def create_user_metadata_editor(self, ui: Any, tabname: str) -> LoraUserMetadataEditor:
        return LoraUserMetadataEditor(ui, tabname, self)
