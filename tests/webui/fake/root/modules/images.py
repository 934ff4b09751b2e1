"""Grids and files of pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modules.shared import opts
from PIL import Image, ImageColor, ImageDraw


def image_grid(imgs: Sequence[Image.Image], batch_size: int = 1, rows: int | None = None) -> Image.Image:
    if rows is None:
        if opts.n_rows > 0:
            rows = int(opts.n_rows)
        elif opts.n_rows == 0:
            rows = batch_size
        else:
            rows = round(math.sqrt(len(imgs)))
    rows = min(rows, len(imgs))
    columns = math.ceil(len(imgs) / rows)
    width, height = (max(sizes) for sizes in zip(*(img.size for img in imgs), strict=True))
    color = ImageColor.getcolor(opts.grid_background_color, "RGB")
    grid = Image.new("RGB", (columns * width, rows * height), color)
    for number, img in enumerate(imgs):
        grid.paste(img, (number % columns * width, number // columns * height))
    return grid


class GridAnnotation:
    def __init__(self, text: str = "", is_active: bool = True) -> None:
        self.text = text
        self.is_active = is_active
        self.size: Any = None


def draw_grid_annotations(
    im: Image.Image,
    width: int,
    height: int,
    hor_texts: Sequence[Sequence[GridAnnotation]],
    ver_texts: Sequence[Sequence[GridAnnotation]],
    margin: int = 0,
) -> Image.Image:
    """Texts above the columns and left of the rows, which takes three quarters of a cell where there are some."""
    columns, rows = im.width // width, im.height // height
    assert columns == len(hor_texts), f"bad number of horizontal texts: {len(hor_texts)}; must be {columns}"
    assert rows == len(ver_texts), f"bad number of vertical texts: {len(ver_texts)}; must be {rows}"
    left = 0 if not any(line.text for lines in ver_texts for line in lines) else width * 3 // 4
    line_height = (width + height) // 25
    top = max((len(lines) for lines in hor_texts), default=0) * line_height + (width + height) // 25
    size = (im.width + left + margin * (columns - 1), im.height + top + margin * (rows - 1))
    found = Image.new("RGB", size, ImageColor.getcolor(opts.grid_background_color, "RGB"))
    draw = ImageDraw.Draw(found)
    for row in range(rows):
        for column in range(columns):
            x, y = column * width, row * height
            cell = im.crop((x, y, x + width, y + height))
            found.paste(cell, (left + (width + margin) * column, top + (height + margin) * row))
    for column, lines in enumerate(hor_texts):
        for line in lines:
            draw.text((left + (width + margin) * column, 0), line.text, fill=opts.grid_text_active_color)
    for row, lines in enumerate(ver_texts):
        for line in lines:
            draw.text((0, top + (height + margin) * row), line.text, fill=opts.grid_text_active_color)
    return found


def save_image(
    image: Image.Image,
    path: str,
    basename: str,
    seed: Any = None,
    prompt: Any = None,
    extension: str = "png",
    info: str | None = None,
    grid: bool = False,
    p: Any = None,
    **_: Any,
) -> tuple[str, None]:
    """The next free number in the folder, the infotext inside."""
    from PIL import PngImagePlugin

    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    number = len(list(folder.glob(f"*.{extension}")))
    stem = f"{basename}-{number:04}" if basename else f"{number:05}-{seed}"
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", info or "")
    target = folder / f"{stem}.{extension}"
    image.save(target, pnginfo=text if extension == "png" else None)
    return str(target), None
