"""The picture of a sweep: each run's last parts grid at its place, by pixels."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib_pivotal.runs import sweep_grid
from lib_pivotal.runs.queue import Axis
from lib_pivotal.runs.sweep_grid import draw_sweep, last_parts_grid, save_sweep

RATES = Axis("network.unet_lr", (1e-4, 3e-4))
RANKS = Axis("network.unet_rank", (4, 8, 16))


def plain(path: Path, colour: str, size: tuple[int, int] = (60, 40)) -> Path:
    Image.new("RGB", size, colour).save(path)
    return path


def box_of(sheet: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Left, top, width, height of all pixels of a colour."""
    rows, columns = np.nonzero((np.asarray(sheet) == colour).all(axis=2))
    return columns.min(), rows.min(), columns.max() - columns.min() + 1, rows.max() - rows.min() + 1


def test_the_last_grid_of_a_run(tmp_path):
    for name in ("x-000010.png", "x-000100.png", "x-2-000500.png", "x.loss.png"):
        plain(tmp_path / name, "red")
    assert last_parts_grid(tmp_path, "x") == tmp_path / "x-000100.png"
    assert last_parts_grid(tmp_path, "nobody") is None and last_parts_grid(tmp_path / "gone", "x") is None


def test_rows_and_columns_are_values(tmp_path):
    colours = {(0, 0): "red", (0, 2): "lime", (1, 1): "blue"}
    cells = {place: plain(tmp_path / f"{colour}.png", colour) for place, colour in colours.items()}
    sheet = draw_sweep({**cells, (1, 0): "failed"}, (RATES, RANKS))
    red, lime, blue = (box_of(sheet, rgb) for rgb in ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    assert {box[2:] for box in (red, lime, blue)} == {(60, 40)}
    assert red[1] == lime[1] < blue[1] and red[0] < blue[0] < lime[0]
    assert lime[0] - red[0] == 2 * (blue[0] - red[0])
    failed = np.asarray(sheet)[blue[1] : blue[1] + 40, red[0] : red[0] + 60]
    assert (failed < 128).any(), "the word stands where the picture would"


def test_one_setting_is_one_row(tmp_path):
    cells = {(0,): plain(tmp_path / "a.png", "red"), (1,): plain(tmp_path / "b.png", "blue", (30, 40))}
    sheet = draw_sweep(cells, (RATES,))
    red, blue = box_of(sheet, (255, 0, 0)), box_of(sheet, (0, 0, 255))
    assert red[1] == blue[1] and red[0] + 60 < blue[0] + 1 and blue[2:] == (30, 40)


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_what_cannot_be_opened_is_told_in_its_cell(tmp_path, content):
    (tmp_path / "bad.png").write_bytes(content)
    sheet = draw_sweep({(0,): tmp_path / "bad.png"}, (RATES,))
    assert (np.asarray(sheet) < 128).any()


def test_many_are_made_smaller(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_grid, "MOST_PX", 300)
    cells = {(column,): plain(tmp_path / f"{column}.png", "red", (400, 200)) for column in range(3)}
    sheet = draw_sweep(cells, (RANKS,))
    assert box_of(sheet, (255, 0, 0))[3] < 100
    path = save_sweep(tmp_path / "sweeps" / "x.png", sheet)
    assert Image.open(path).size == sheet.size and [one.name for one in path.parent.iterdir()] == ["x.png"]
