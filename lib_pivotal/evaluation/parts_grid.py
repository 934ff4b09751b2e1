"""The parts grid: full, U-Net only, text encoder only, embeddings only - side by side, same seeds.

This is the picture that shows where a trained character sits. Rows use the host's own sampler.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from lib_pivotal.errors import PivotalError
from lib_pivotal.ports import EmbeddingVectors, Host, SampleRequest

if TYPE_CHECKING:  # pages import this module for its rows: they need no networks
    from lib_pivotal.networks.network import Network


@dataclass(frozen=True)
class Row:
    """A row of the grid and the weights of the two parts; `label` is its key in events and API answers."""

    label: str
    unet: float
    te: float

    @property
    def title(self) -> str:
        """What people read."""
        return row_title(self.label)


ROWS = (
    Row("whole", 1.0, 1.0),
    Row("U-Net only", 1.0, 0.0),
    Row("text encoder only", 0.0, 1.0),
    Row("words only", 0.0, 0.0),
)
TITLES: Mapping[str, str] = MappingProxyType({"whole": "full", "words only": "embeddings only"})
"""What people read where the key of a row is an older term."""
MARGIN_PX = 6


def row_title(label: str) -> str:
    """The title of a row by its key.

    >>> row_title("whole"), row_title("U-Net only")
    ('full', 'U-Net only')
    """
    return TITLES.get(label, label)


def parts_pictures(
    host: Host,
    requests: Sequence[SampleRequest],
    *,
    embeddings: EmbeddingVectors,
    network: Network | None,
    rows: Sequence[Row] = ROWS,
) -> dict[str, list[Image.Image]]:
    """Pictures by row label, one a request; weights and multipliers are put back.

    The network is written into the weights, as the web UI does it: `(W + BA)x` and `Wx + B(Ax)` round differently, and
    only the former gives txt2img's picture to the last bit.
    """
    pictures: dict[str, list[Image.Image]] = {}
    for row in rows:
        if network is None:
            pictures[row.label] = host.sample(requests, embeddings)
            continue
        with network.with_multipliers(unet=row.unet, te=row.te), network.merged():
            pictures[row.label] = host.sample(requests, embeddings)
    return pictures


def embedding_requests(
    names: Sequence[str], prompts: Sequence[str], template: SampleRequest, *, first_seed: int = 0
) -> list[SampleRequest]:
    """One request for each embedding and prompt; `{word}` in a prompt stands for the embedding, which else is put in
    front."""
    requests = []
    for name in names:
        for number, prompt in enumerate(prompts):
            text = prompt.replace("{word}", name) if "{word}" in prompt else f"{name}, {prompt}".rstrip(", ")
            requests.append(replace(template, prompt=text, seed=first_seed + number))
    return requests


def draw_grid(
    rows: Mapping[str, Sequence[Image.Image]], columns: Sequence[str], *, title: str = "", cell_px: int = 128
) -> Image.Image:
    """Labelled rows of pictures on white, one column a label.

    Raises:
        PivotalError: a row has another number of pictures than there are columns.
    """
    for label, pictures in rows.items():
        if len(pictures) != len(columns):
            raise PivotalError(f"row {label!r} has {len(pictures)} pictures for {len(columns)} columns")
    font = label_font(max(11, cell_px // 9))
    left = max((_text_width(font, row_title(label)) for label in rows), default=0) + 2 * MARGIN_PX
    line = _text_height(font) + MARGIN_PX
    top = line * (2 if title else 1) + MARGIN_PX
    step = cell_px + MARGIN_PX
    grid = Image.new("RGB", (left + step * len(columns), top + step * len(rows)), "white")
    draw = ImageDraw.Draw(grid)
    if title:
        draw.text((MARGIN_PX, MARGIN_PX // 2), title, fill="black", font=font)
    for number, column in enumerate(columns):
        text = _shorten(font, column, cell_px)
        draw.text((left + number * step, top - line), text, fill="black", font=font)
    for number, (label, pictures) in enumerate(rows.items()):
        y = top + number * step
        draw.text((MARGIN_PX, y + (cell_px - line) // 2), row_title(label), fill="black", font=font)
        for column_number, picture in enumerate(pictures):
            cell = picture.convert("RGB").resize((cell_px, cell_px), Image.Resampling.LANCZOS)
            grid.paste(cell, (left + column_number * step, y))
    return grid


def label_font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A readable font where the system has one, else Pillow's built-in one."""
    for name in ("DejaVuSans.ttf", "Arial.ttf", "LiberationSans-Regular.ttf"):
        try:
            return ImageFont.truetype(name, size_px)
        except OSError:
            continue
    return ImageFont.load_default()


def _text_width(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, text: str) -> int:
    return int(font.getbbox(text)[2])


def _text_height(font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    return int(font.getbbox("Ag")[3])


def _shorten(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, text: str, width_px: int) -> str:
    if _text_width(font, text) <= width_px:
        return text
    while text and _text_width(font, text + "…") > width_px:
        text = text[:-1]
    return text + "…"
