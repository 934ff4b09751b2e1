"""In the stock web UI's page fails what test_parts.py shows with the extension: B7 (the cards), B16 (the counter)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.live.conftest import Installation, running
from tests.live.material import Material
from tests.live.situations import Situation

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
from tests.live.test_parts import ARGUMENTS, START_MS, find_chromium  # noqa: E402

NO_PATH = "expected str, bytes or os.PathLike object, not NoneType"
pytestmark = [pytest.mark.webui, pytest.mark.slow]


@pytest.fixture(scope="module")
def stock_page(
    installation: Installation, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Situation, Any]]:
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("no Chromium: set PIVOTAL_CHROMIUM")
    with (
        running(installation, checkpoint, tmp_path_factory.mktemp("stock_page"), page=True) as webui,
        sync_api.sync_playwright() as playwright,
    ):
        s = Situation(webui, Material(load_file(checkpoint)))
        s.bundle({"aoi": s.vectors(1, 4)}, name="gekidol")
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield s, browser.new_page(viewport={"width": 1400, "height": 1000})
        browser.close()


def opened(s: Situation, page: Any) -> None:
    page.goto(s.webui.url, timeout=START_MS, wait_until="domcontentloaded")
    page.wait_for_selector("#txt2img_prompt textarea", timeout=START_MS)
    page.wait_for_timeout(4000)


def test_the_pages_cannot_be_built_after_a_bundle_was_used(stock_page: tuple[Situation, Any]) -> None:
    """First: the web UI builds them when the page is opened for the first time."""
    s, page = stock_page
    s.webui.txt2img("<lora:gekidol:1> aoi")
    opened(s, page)
    assert NO_PATH in s.webui.log_text(), "a word without a file name stops every page of extra networks"
    s.webui.txt2img("a face")


def test_the_counter_counts_letters(stock_page: tuple[Situation, Any]) -> None:
    s, page = stock_page
    opened(s, page)
    page.fill("#txt2img_prompt textarea", "<lora:gekidol:1> aoi")
    page.locator("#txt2img_prompt textarea").press("End")
    page.wait_for_timeout(2500)
    assert page.locator("#txt2img_token_counter").first.inner_text().split("/")[0] != "4"
