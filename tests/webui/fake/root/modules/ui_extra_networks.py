"""Pages of cards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modules import extra_networks


def quote_js(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


class ExtraNetworksPage:
    def __init__(self, title: str) -> None:
        self.title = title
        self.name = title.lower()
        self.items: dict[str, dict[str, Any]] = {}

    def search_terms_from_path(self, filename: str) -> str:
        return Path(filename).name

    def read_user_metadata(self, item: dict[str, Any]) -> None:
        metadata = extra_networks.get_user_metadata(item["filename"])
        description = metadata.get("description")
        if description is not None:
            item["description"] = description
        item["user_metadata"] = metadata
