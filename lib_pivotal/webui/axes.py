"""Axes for the built-in script "X/Y/Z plot": which part of the LoRAs acts, how strongly, and how their embeddings are
adjusted."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from modules import scripts

from lib_pivotal.embeddings.adjustment import EmbeddingAdjustment
from lib_pivotal.errors import EmbeddingNameError
from lib_pivotal.webui import catalog, parts, prompt_tags

logger = logging.getLogger(__name__)

PART, UNET, TE = "LoRA part", "LoRA U-Net weight", "LoRA TE weight"
NORM, INIT = "Embedding norm", "Embedding towards init text"


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
        grid.AxisOption(NORM, str, _apply_norm, confirm=_confirm_norms),
        grid.AxisOption(INIT, str, _apply_init, confirm=_confirm_inits),
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


def _apply_norm(p: Any, value: str, _: Any) -> None:
    name, number = _number_for(value)
    in_prompts(p, lambda text: prompt_tags.embeddings_adjusted(text, _embeddings, norm=number, only=name))


def _apply_init(p: Any, value: str, _: Any) -> None:
    name, number = _number_for(value)
    in_prompts(p, lambda text: prompt_tags.embeddings_adjusted(text, _embeddings, init_share=number, only=name))


def _confirm_norms(_: Any, values: list[str]) -> None:
    for value in values:
        _checked(NORM, value, lambda number: EmbeddingAdjustment(norm=number))


def _confirm_inits(_: Any, values: list[str]) -> None:
    for value in values:
        _checked(INIT, value, lambda number: EmbeddingAdjustment(init_share=number))


def _checked(label: str, value: str, made: Callable[[float], object]) -> None:
    try:
        made(_number_for(value)[1])
    except (ValueError, EmbeddingNameError) as error:
        raise RuntimeError(f"{label}: {value!r} is no number for it (or embedding=number): {error}") from error


def _number_for(value: str) -> tuple[str, float]:
    """`0.5`, or `hana=0.5` for one embedding."""
    name, _, number = value.rpartition("=")
    return name.strip(), float(number)


def _embeddings(name: str) -> list[str]:
    """Of a file by its name in a tag."""
    entry = catalog.find_on_disk(name)
    seen = "" if entry is None else catalog.catalog.look(entry.filename)
    return [] if isinstance(seen, str) else [embedding.name for embedding in seen.embeddings]


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
