"""All runs of a sweep in one picture: the last parts grid of each, a row and a column a value."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from lib_pivotal.evaluation.parts_grid import MARGIN_PX, label_font
from lib_pivotal.files import replacing
from lib_pivotal.runs.queue import Axis
from lib_pivotal.runs.sweep import value_text

MOST_PX = 8192
"""Longest side of the picture: of many runs, each is made smaller."""
EMPTY_PX = (256, 192)
LABEL_PX = 18


def last_parts_grid(folder: Path, name: str) -> Path | None:
    """The parts grid of a run's last step, as it lies in the run's folder; None where it drew none."""
    pattern = re.compile(re.escape(name) + r"-(\d{6,8})\.png")
    found = [(int(match[1]), path) for path in folder.glob("*.png") if (match := pattern.fullmatch(path.name))]
    return max(found)[1] if found else None


def draw_sweep(cells: Mapping[tuple[int, ...], Path | str], axes: Sequence[Axis]) -> Image.Image:
    """One picture of all: the first axis is the rows, the second the columns; one axis alone is a row of columns.

    `cells` holds a picture's file by place (the number of the value of each axis), or a word where there is none.
    """
    rows, columns = axes if len(axes) == 2 else (Axis("", ("",)), axes[0])
    pictures = {place: _opened(cell) for place, cell in cells.items()}
    sizes = [picture.size for picture in pictures.values() if isinstance(picture, Image.Image)] or [EMPTY_PX]
    width, height = (max(sides) for sides in zip(*sizes, strict=True))
    wide, high = (width + MARGIN_PX) * len(columns.values), (height + MARGIN_PX) * len(rows.values)
    scale = min(1.0, MOST_PX / wide, MOST_PX / high)
    cell = max(int(width * scale), 1), max(int(height * scale), 1)
    sheet = _Sheet(rows, columns, cell)
    for row in range(len(rows.values)):
        for column in range(len(columns.values)):
            place = (row, column) if len(axes) == 2 else (column,)
            sheet.put(pictures.get(place, "not in the queue any more"), row, column)
    return sheet.picture


def save_sweep(path: Path, picture: Image.Image) -> Path:
    """Write the picture as PNG, in one step.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG")
    return path


class _Sheet:
    """White paper with the values at its edges."""

    def __init__(self, rows: Axis, columns: Axis, cell: tuple[int, int]) -> None:
        self._cell = cell
        self._font = label_font(LABEL_PX)
        titles = [_title(rows, value) for value in rows.values]
        self._left = max(self._width(title) for title in titles) + 2 * MARGIN_PX
        self._top = LABEL_PX + 3 * MARGIN_PX
        width = self._left + (cell[0] + MARGIN_PX) * len(columns.values)
        self.picture = Image.new("RGB", (width, self._top + (cell[1] + MARGIN_PX) * len(rows.values)), "white")
        self._draw = ImageDraw.Draw(self.picture)
        for number, title in enumerate(titles):
            self._write(title, MARGIN_PX, self._corner(number, 0)[1] + cell[1] // 2)
        for number, value in enumerate(columns.values):
            self._write(_title(columns, value), self._corner(0, number)[0], MARGIN_PX)

    def put(self, cell: Image.Image | str, row: int, column: int) -> None:
        """A picture at its place, or the word for which there is none."""
        left, top = self._corner(row, column)
        if isinstance(cell, str):
            self._write(cell, left + MARGIN_PX, top + self._cell[1] // 2)
            return
        smaller = min(self._cell[0] / cell.width, self._cell[1] / cell.height, 1.0)
        size = max(int(cell.width * smaller), 1), max(int(cell.height * smaller), 1)
        self.picture.paste(cell if size == cell.size else cell.resize(size, Image.Resampling.LANCZOS), (left, top))

    def _corner(self, row: int, column: int) -> tuple[int, int]:
        return self._left + column * (self._cell[0] + MARGIN_PX), self._top + row * (self._cell[1] + MARGIN_PX)

    def _write(self, text: str, left: int, top: int) -> None:
        self._draw.text((left, top), text, fill="black", font=self._font)

    def _width(self, text: str) -> int:
        return int(self._font.getbbox(text)[2])


def _title(axis: Axis, value: object) -> str:
    return f"{axis.path.rpartition('.')[2]} {value_text(value)}".strip()


def _opened(cell: Path | str) -> Image.Image | str:
    """The picture of a file; a file that cannot be read is a word, too."""
    if isinstance(cell, str):
        return cell
    try:
        with Image.open(cell) as picture:
            return picture.convert("RGB")
    except (OSError, ValueError) as error:
        return f"{cell.name}: {error}"
