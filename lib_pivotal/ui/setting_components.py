"""Components of the web UI's settings page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio


def setting_component(choices: Sequence[str], *, minimum: int, maximum: int) -> tuple[Any, dict[str, Any]]:
    """Component class and its arguments: a radio for choices, a slider for a range, else what fits the default."""
    if choices:
        return gradio.Radio, {"choices": list(choices)}
    if maximum:
        return gradio.Slider, {"minimum": minimum, "maximum": maximum, "step": 1}
    return None, {}
