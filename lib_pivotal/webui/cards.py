"""LoRA cards: a click writes the file's own weights, embeddings are searched for, the editor keeps te and unet apart.

The embeddings themselves are drawn on the cards by javascript/pivotal_parts.js.
"""

from __future__ import annotations

import html
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modules.ui_extra_networks import quote_js

from lib_pivotal.errors import BundleError
from lib_pivotal.ui import parts_rows
from lib_pivotal.webui import catalog, compat, prompt_tags
from lib_pivotal.webui.patches import Patches

FIELDS = "pivotal_fields"
"""Attribute of an editor: our components in it."""


@dataclass
class _Cards:
    patches: Patches = field(default_factory=Patches)


_cards = _Cards()


def register() -> None:
    """Wrap the Lora page and its editor."""
    unregister()
    page, editor = sys.modules.get("ui_extra_networks_lora"), sys.modules.get("ui_edit_user_metadata")
    if page is None or editor is None:
        return
    _cards.patches.wrap(page.ExtraNetworksPageLora, "create_item", _create_item)
    own = editor.LoraUserMetadataEditor
    _cards.patches.wrap(own, "create_extra_default_items_in_left_column", _create_fields)
    _cards.patches.wrap(own, "create_editor", _create_editor)
    _cards.patches.wrap(own, "setup_save_handler", _setup_save_handler)
    _cards.patches.wrap(own, "get_metadata_table", _get_metadata_table)


def unregister() -> None:
    """Take it back."""
    _cards.patches.undo()


def _create_item(original: Callable[..., Any], page: Any, name: str, *arguments: Any, **named: Any) -> Any:
    item = original(page, name, *arguments, **named)
    networks = compat.find_lora_networks()
    entry = networks.available_networks.get(name)
    if item is None or entry is None:
        return item
    facts = catalog.describe(entry)
    item["search_terms"] += [html.escape(embedding["name"]) for embedding in facts["words"]]
    user = item.get("user_metadata") or {}
    te, unet, embeddings = catalog.preferred(entry, user)
    one = user.get("preferred weight")
    if (te is None and unet is None) or (te == unet and te == one and embeddings):
        return item  # as the web UI does it
    text = user.get("activation text")
    item["prompt"] = quote_js(catalog.tag_of(entry, user)) + (f" + {quote_js(' ' + text)}" if text else "")
    return item


def _create_fields(original: Callable[..., Any], editor: Any) -> Any:
    answer = original(editor)
    setattr(editor, FIELDS, parts_rows.part_fields(prompt_tags.PART_TITLES))
    return answer


def _create_editor(original: Callable[..., Any], editor: Any) -> Any:
    answer = original(editor)
    fields = getattr(editor, FIELDS, ())

    def shown(name: str) -> list[Any]:
        user = editor.get_user_metadata(name)
        values = (user.get(catalog.PART) or "whole", user.get(catalog.TE_WEIGHT), user.get(catalog.UNET_WEIGHT))
        return list(values)

    if fields:
        editor.button_edit.click(fn=shown, inputs=[editor.edit_name_input], outputs=list(fields))
    return answer


def _setup_save_handler(original: Callable[..., Any], editor: Any, button: Any, function: Any, components: Any) -> Any:
    fields = list(getattr(editor, FIELDS, ()))
    if not fields:
        return original(editor, button, function, components)

    def save(name: str, *values: Any) -> None:
        part, te, unet = values[-3:]
        user = editor.get_user_metadata(name)
        for key, value in ((catalog.PART, part), (catalog.TE_WEIGHT, te), (catalog.UNET_WEIGHT, unet)):
            if value is None or value == "" or (key == catalog.PART and value == "whole"):
                user.pop(key, None)
            else:
                user[key] = value
        function(name, *values[:-3])  # writes the same record

    return original(editor, button, save, [*components, *fields])


def _get_metadata_table(original: Callable[..., Any], editor: Any, name: str) -> Any:
    table = original(editor, name)
    networks = compat.find_lora_networks()
    entry = networks.available_networks.get(name)
    if entry is None:
        return table
    facts = catalog.describe(entry)
    parts = {"unet": "U-Net", "te": "text encoder", "te2": "second text encoder"}
    rows = [("Parts:", ", ".join(parts[part] for part in facts["parts"]))]
    embeddings = [f"{embedding['name']} ({embedding['vectors']})" for embedding in facts["words"]]
    rows.append(("Embeddings (vectors):", html.escape(", ".join(embeddings))))
    rows += _card_rows(entry.filename)
    rows += [("Warnings:", html.escape(problem)) for problem in facts["problems"]]
    return table + [(label, value) for label, value in rows if value]


def _card_rows(file_name: str) -> list[tuple[str, str]]:
    """What the file's result card recommends and shows; nothing of a file that cannot be read."""
    from lib_pivotal.bundle.card import read_card  # here: to start, no file is looked at

    try:
        card = read_card(file_name)
    except BundleError:
        return []
    stem = Path(file_name).stem
    pruned = [f"{one.name}: {', '.join(one.pruned_tags)}" for one in card.embeddings if one.pruned_tags]
    drawn = [card.prompt_of(one.prompt, stem) for one in card.prompts]
    titles = (("unet", "U-Net"), ("te", "text encoder"))
    weights = ", ".join(f"{title} {card.weights[key]:g}" for key, title in titles if key in card.weights)
    rows = [
        ("Recommended:", ", ".join(filter(None, (weights, "" if card.cfg is None else f"CFG {card.cfg:g}")))),
        ("Pruned tags:", "; ".join(pruned)),
        ("Sampled with it:", "; ".join(drawn)),
        ("Licence:", card.licence),
    ]
    return [(label, html.escape(text)) for label, text in rows]
