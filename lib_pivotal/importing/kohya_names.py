"""The names of bmaltais' GUI for the scripts' flags, and lists of `key=value` taken apart."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

GUI_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "optimizer": "optimizer_type",
        "max_resolution": "resolution",
        "lora_network_weights": "network_weights",
        "sdxl_no_half_vae": "no_half_vae",
        "sdxl_cache_text_encoder_outputs": "cache_text_encoder_outputs",
    }
)
"""GUI -> script; all other keys that both have are called alike."""

ARGUMENT_LISTS = ("network_args", "optimizer_args", "lr_scheduler_args")
MOST_ARGUMENTS = 200


def expanded(flat: Mapping[str, Any]) -> dict[str, Any]:
    """`network_args = ["conv_dim=4"]` -> `network_args = {"conv_dim": "4"}`, so that each has a line of its own."""
    return {key: _arguments(value) if key in ARGUMENT_LISTS else value for key, value in flat.items()}


def _arguments(written: Any) -> Any:
    """`key=value` pairs of a list or of a line of text; as it was if it is neither."""
    if isinstance(written, str):
        written = written.replace('"', " ").replace("'", " ").split()
    if not isinstance(written, list):
        return written
    pairs = [str(item).strip().strip("\"'").partition("=") for item in written[:MOST_ARGUMENTS]]
    return {key.strip(): value.strip().strip("\"'") for key, _, value in pairs if key.strip()}


def gui_flags(plain: Mapping[str, Any]) -> dict[str, Any]:
    """A GUI's settings, with the flags typed into its field "additional parameters" beside or over the others."""
    flat = dict(plain)
    typed = flat.get("additional_parameters")
    script_to_gui = {script: gui for gui, script in GUI_NAMES.items()}
    for name, value in _command_line(typed if isinstance(typed, str) else "").items():
        target = script_to_gui.get(name, name)
        flat[target if target in flat else name] = value
    return expanded(flat)


def _command_line(text: str) -> dict[str, Any]:
    """`--a=1 --b "x=1" "y=2" --c` -> `{a: "1", b: "x=1 y=2", c: True}`."""
    found: dict[str, Any] = {}
    for name, equals, rest in re.findall(r"--([a-z_0-9]+)(=?)\s*((?:(?!\s--[a-z]|^--).)*)", text[:4000], re.DOTALL):
        value = rest.strip()
        plain = value.strip("\"'") if value.count('"') <= 2 else value
        found[name] = plain if value or equals else True
    return found
