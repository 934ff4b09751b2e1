"""Lora's scripts/lora_script.py: what is hooked where."""

from __future__ import annotations

import re
from typing import Any

import extra_networks_lora
import lora_patches
import networks
import ui_extra_networks_lora
from modules import extra_networks, script_callbacks, shared

re_lora = re.compile("<lora:([^:]+):")


def unload() -> None:
    networks.originals.undo()


def before_ui() -> None:
    networks.extra_network_lora = extra_networks_lora.ExtraNetworkLora()
    extra_networks.register_extra_network(networks.extra_network_lora)
    extra_networks.register_extra_network_alias(networks.extra_network_lora, "lyco")


def infotext_pasted(infotext: str, d: dict[str, Any]) -> None:
    """`<lora:name:…` by its hash."""
    if not d.get("Lora hashes"):
        return
    pairs = [pair.strip().split(":", 1) for pair in d["Lora hashes"].split(",")]
    known = {name.strip().replace(",", ""): digest.strip() for name, digest in pairs}

    def replaced(match: re.Match[str]) -> str:
        entry = networks.available_network_hash_lookup.get(known.get(match[1]))
        return match[0] if entry is None else f"<lora:{entry.get_alias()}:"

    d["Prompt"] = re.sub(re_lora, replaced, d["Prompt"])


def load() -> None:
    """What executing the script does."""
    networks.originals = lora_patches.LoraPatches()
    script_callbacks.on_model_loaded(networks.assign_network_names_to_compvis_modules)
    script_callbacks.on_script_unloaded(unload)
    script_callbacks.on_before_ui(before_ui)
    script_callbacks.on_infotext_pasted(infotext_pasted)
    shared.opts.data_labels["lora_in_memory_limit"].onchange = networks.purge_networks_from_memory


__all__ = ["load", "ui_extra_networks_lora"]
