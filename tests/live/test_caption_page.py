"""A caption changed by typing on a real web UI's page; the picture and the file show it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.live.conftest import CHROMIUM, Installation, WebUI, running
from tests.live.test_tab_page import Visitor

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright to drive the page")

pytestmark = [pytest.mark.webui, pytest.mark.slow]


@pytest.fixture
def webui(installation: Installation, checkpoint: Path, tmp_path: Path) -> Iterator[WebUI]:
    with running(installation, checkpoint, tmp_path / "data", linked=True, page=True) as it:
        yield it


def test_typed_text_is_kept_and_saved(webui: WebUI, tmp_path: Path) -> None:
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}")
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (300, 200), (40, 90, 120)).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text("aoi, hat")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        visitor = Visitor(browser, webui.url)
        page = visitor.page
        visitor.open_tab("Data")
        visitor.fill("pivotal_data_folder", folder)
        page.click("#pivotal_scan")
        page.click('figure [data-caption="a.png"]', timeout=30_000)  # thumbnails of warnings are folded
        box = page.locator("#pivotal_caption_text textarea")
        box.wait_for(state="visible", timeout=30_000)
        page.wait_for_timeout(1000)
        box.press("End")
        box.type(", rain", delay=20)
        page.wait_for_selector("#pivotal_caption_shown >> text=rain", timeout=30_000)
        page.click('figure [data-caption="b.png"]')
        page.wait_for_selector("#pivotal_caption_note >> text=not saved", timeout=30_000)
        assert box.input_value() == "aoi, hat, rain" and (folder / "a.txt").read_text() == "aoi, hat"
        visitor.shot("caption")
        page.click("#pivotal_caption_save")
        page.wait_for_selector("#pivotal_caption_note >> text=Saved as", timeout=30_000)
        page.wait_for_selector('figure:has([data-caption="a.png"]) p >> text=rain', timeout=30_000)
        assert not visitor.own_errors
        browser.close()
    assert (folder / "a.txt").read_text() == "aoi, hat, rain\n" and (folder / "b.txt").read_text() == "aoi, hat"
