"""JSON that came from outside: whatever is wrong with it is a ValueError."""

from __future__ import annotations

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """The values in `text`.

    Raises:
        ValueError: it is no JSON (json.JSONDecodeError), no UTF-8, has a number of thousands of digits, or is nested
            too deeply to be read, for which Python has a RecursionError.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
