"""Pictures of a job, kept as one sheet a row: a line for each word, so that they can be looked at and scored again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

SIDE_PX = 64


def save_sheet(pictures: Sequence[Image.Image], path: Path, *, per_line: int) -> None:
    """Write pictures, line by line, as one lossless PNG; the folder is made."""
    lines = -(-len(pictures) // per_line)
    sheet = Image.new("RGB", (per_line * SIDE_PX, lines * SIDE_PX))
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (number % per_line * SIDE_PX, number // per_line * SIDE_PX))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def load_sheet(path: Path) -> list[list[Image.Image]]:
    """The pictures of a sheet, a list for each line."""
    with Image.open(path) as opened:
        sheet = opened.convert("RGB")
    return [
        [sheet.crop((left, top, left + SIDE_PX, top + SIDE_PX)) for left in range(0, sheet.width, SIDE_PX)]
        for top in range(0, sheet.height, SIDE_PX)
    ]
