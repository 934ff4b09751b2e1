"""Where the face is: from a JSON file beside the picture, or from the name that kohya's face tool gives."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lib_pivotal.data.buckets import Box
from lib_pivotal.data.records import Picture
from lib_pivotal.plain_json import parse_json

KEYS = ("face", "faces", "focus", "box")
"""Under these a JSON file has one box or several: [left, top, right, bottom] in px, or as shares of the sides."""

_KOHYA = re.compile(r"_(\d{4})_(\d{4})_(\d{4})_(\d{4})$")
"""Middle (x, y) and size (w, h) in px: tools/detect_face_rotate.py of kohya's sd-scripts, 48d368f."""


def with_focus(pictures: Sequence[Picture]) -> list[Picture]:
    """The pictures, each with the box that can be found for it; one that has a box keeps it."""
    return [p if p.focus_px is not None else replace(p, focus_px=find_focus(p)) for p in pictures]


def find_focus(picture: Picture) -> Box | None:
    """The box of a picture's (largest) face; None where nothing tells it, or what tells it cannot be read."""
    for path in (picture.path.with_suffix(".json"), picture.path.with_name(picture.path.name + ".json")):
        try:
            told = parse_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(told, dict):
            for key in KEYS:
                if boxes := _boxes(told.get(key), picture):
                    return max(boxes, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
    if match := _KOHYA.search(picture.path.stem):
        x, y, width, height = (int(number) for number in match.groups())
        return _box([x - width / 2, y - height / 2, x + width / 2, y + height / 2], picture)
    return None


def _boxes(told: Any, picture: Picture) -> list[Box]:
    if isinstance(told, dict):
        told = told.get("box") or told.get("bbox")
    if not isinstance(told, list) or not told:
        return []
    several = told if isinstance(told[0], list | dict) else [told]
    boxes = []
    for one in several:
        one = (one.get("box") or one.get("bbox")) if isinstance(one, dict) else one
        if (box := _box(one, picture)) is not None:
            boxes.append(box)
    return boxes


def _box(numbers: Any, picture: Picture) -> Box | None:
    """Four numbers as a box inside the picture; shares become px."""
    if not isinstance(numbers, list) or len(numbers) != 4:
        return None
    if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers):
        return None
    left, top, right, bottom = (float(number) for number in numbers)
    width, height = float(picture.width_px), float(picture.height_px)
    if max(left, top, right, bottom) <= 1.0:
        left, right, top, bottom = left * width, right * width, top * height, bottom * height
    left, right = max(0.0, left), min(width, right)
    top, bottom = max(0.0, top), min(height, bottom)
    return (left, top, right, bottom) if left < right and top < bottom else None
