"""Axes for the built-in script "X/Y/Z plot": which part of the LoRAs acts, and how strongly."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from modules import scripts

from lib_pivotal.webui import parts, prompt_tags

logger = logging.getLogger(__name__)

PART, UNET, TE = "LoRA part", "LoRA U-Net weight", "LoRA TE weight"


def register() -> None:
    """Add the axes, once; to be called while scripts are loaded and in `on_before_ui`, whichever finds the plot."""
    grid = next((data.module for data in scripts.scripts_data if data.script_class.__module__ == "xyz_grid.py"), None)
    if grid is None:
        logger.debug("there is no X/Y/Z plot (yet) to add axes to")
        return
    known = {option.label for option in grid.axis_options}
    rows = (
        grid.AxisOption(
            PART, str, _apply_part, confirm=_confirm_parts, choices=lambda: list(prompt_tags.PART_TITLES.values())
        ),
        grid.AxisOption(UNET, float, _apply_unet),
        grid.AxisOption(TE, float, _apply_te),
    )
    grid.axis_options.extend(row for row in rows if row.label not in known)


def in_prompts(p: Any, change: Callable[[str], str]) -> None:
    """Change the prompt and the second pass' prompt of a picture to be made, be they texts or lists."""
    for name in ("prompt", "hr_prompt"):
        value = getattr(p, name, None)
        if isinstance(value, list):
            setattr(p, name, [change(parts.with_added_network(text)) for text in value])
        elif value:
            setattr(p, name, change(parts.with_added_network(value)))


def _apply_part(p: Any, value: str, _: Any) -> None:
    name, part = _split(value)
    in_prompts(p, lambda text: prompt_tags.part_switched(text, part, only=name))


def _apply_te(p: Any, value: float, _: Any) -> None:
    in_prompts(p, lambda text: prompt_tags.weight_set(text, te=value))


def _apply_unet(p: Any, value: float, _: Any) -> None:
    in_prompts(p, lambda text: prompt_tags.weight_set(text, unet=value))


def _confirm_parts(_: Any, values: list[str]) -> None:
    for value in values:
        if _split(value)[1] not in prompt_tags.PARTS:
            raise RuntimeError(
                f"{PART}: {value!r} is none of {', '.join(prompt_tags.PART_TITLES.values())} (or file=part)"
            )


def _split(value: str) -> tuple[str, str]:
    """`U-Net`, or `gekidol=U-Net` for one file."""
    name, equals, part = value.rpartition("=")
    by_case = {name.lower(): part for part, title in prompt_tags.PART_TITLES.items() for name in (part, title)}
    part = part.strip()
    return (name.strip() if equals else "", by_case.get(part.lower(), part))
