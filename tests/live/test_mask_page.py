"""Painting a mask with the mouse on a real web UI's page; the next run finds it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lib_pivotal.data.dataset import scan
from tests.live.conftest import CHROMIUM, Installation, WebUI, running
from tests.live.test_tab_page import Visitor

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright to drive the page")

pytestmark = [pytest.mark.webui, pytest.mark.slow]


@pytest.fixture
def webui(installation: Installation, checkpoint: Path, tmp_path: Path) -> Iterator[WebUI]:
    with running(installation, checkpoint, tmp_path / "data", linked=True, page=True) as it:
        yield it


def test_strokes_become_a_mask(webui: WebUI, tmp_path: Path) -> None:
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}")
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (300, 200), (40, 90, 120)).save(folder / "a.png")
    (folder / "a.txt").write_text("aoi, hat")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        visitor = Visitor(browser, webui.url)
        page = visitor.page
        visitor.open_tab("Data")
        visitor.fill("pivotal_data_folder", folder)
        page.click("#pivotal_scan")
        page.click('[data-paint="a.png"]', timeout=30_000)
        page.wait_for_selector("#pivotal_mask_editor canvas", timeout=30_000)
        page.wait_for_timeout(2500)
        _stroke(page, (0.25, 0.5), (0.45, 0.5))
        page.click("#pivotal_mask_save")
        page.wait_for_selector("#pivotal_mask_note >> text=Saved as", timeout=30_000)
        page.wait_for_timeout(1000)
        visitor.shot("mask")
        assert not visitor.own_errors
        browser.close()
    mask = scan(folder)["a.png"].mask_path
    assert mask == folder / "mask" / "a.png"
    grey = np.asarray(Image.open(mask))
    rows, columns = np.nonzero(grey == 255)
    assert grey.shape == (200, 300) and set(np.unique(grey).tolist()) == {26, 255}
    assert abs(columns.mean() / 300 - 0.35) < 0.03 and abs(rows.mean() / 200 - 0.5) < 0.03


def _stroke(page: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    """With the left button held, in shares of the editor's picture."""
    canvas = page.locator("#pivotal_mask_editor canvas").first
    canvas.evaluate("canvas => canvas.scrollIntoView({block: 'center'})")
    page.wait_for_timeout(500)
    box = canvas.bounding_box()

    def place(share: float) -> tuple[float, float]:
        across = start[0] + (end[0] - start[0]) * share
        down = start[1] + (end[1] - start[1]) * share
        return box["x"] + box["width"] * across, box["y"] + box["height"] * down

    page.mouse.move(*place(0.0))
    page.mouse.down()
    for step in range(1, 11):
        page.mouse.move(*place(step / 10))
    page.mouse.up()
    page.wait_for_timeout(800)
