"""Components of the web UI's settings page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio


def setting_component(
    choices: Sequence[str], *, minimum: int, maximum: int, lines: int = 1
) -> tuple[Any, dict[str, Any]]:
    """Component class and its arguments: a radio for choices, a slider for a range, a field of several lines, else
    what fits the default."""
    if choices:
        return gradio.Radio, {"choices": list(choices)}
    if maximum:
        return gradio.Slider, {"minimum": minimum, "maximum": maximum, "step": 1}
    if lines > 1:
        return gradio.Textbox, {"lines": lines}
    return None, {}
