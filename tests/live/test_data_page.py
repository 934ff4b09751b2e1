"""The workbench in a browser on a real web UI: thumbnails, filters, keys, a tag moved, the plan, a remedy."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lib_pivotal.runs.manager import RunManager
from lib_pivotal.standalone.page import StandaloneBackend
from lib_pivotal.ui.standalone_page import serve
from tests.live.conftest import CHROMIUM, ROOT, Installation, WebUI, running
from tests.live.test_tab_page import Visitor

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright to drive the page")

pytestmark = [pytest.mark.webui, pytest.mark.slow]

CHECKPOINT = ROOT / "examples" / "avatars" / "weights" / "avatars.safetensors"
PLACES = ("park", "sea", "sky", "city", "hill", "night", "beach", "school")


@pytest.fixture
def webui(installation: Installation, checkpoint: Path, tmp_path: Path) -> Iterator[WebUI]:
    with running(installation, checkpoint, tmp_path / "data", linked=True, page=True) as it:
        yield it


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """60 pictures: 40 of aoi, 20 of hana; two pages of thumbnails."""
    made = tmp_path / "pictures"
    made.mkdir()
    for number in range(60):
        name, looks = ("aoi", "blue hair, hat") if number < 40 else ("hana", "green hair, hat")
        size = ((96, 96), (120, 80), (80, 120))[number % 3]
        Image.new("RGB", size, (number * 4, 90, 120)).save(made / f"{number:02d}.png")
        (made / f"{number:02d}.txt").write_text(f"{name}, 1girl, {looks}, {PLACES[number % 8]}")
    return made


def test_a_folder_becomes_a_plan(webui: WebUI, folder: Path) -> None:
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        _visit(Visitor(browser, webui.url), folder)
        browser.close()


def _visit(visitor: Visitor, folder: Path) -> None:
    visitor.open_tab("Data")
    visitor.fill("pivotal_data_folder", folder)
    visitor.page.click("#pivotal_scan")
    visitor.page.wait_for_selector("#pivotal_plan .row", timeout=60_000)
    _thumbnails_and_filters(visitor)
    _keys(visitor)
    _a_tag_moved(visitor)
    _plan_and_remedy(visitor)
    _scan_again(visitor)
    visitor.shot("data")
    assert not visitor.own_errors


def _cells(page: Any) -> int:
    return int(page.locator("#pivotal_gallery figure").count())


def _settled(page: Any, count: int) -> None:
    """So many cells, all of them with their pictures."""
    page.wait_for_function(
        """(count) => {
            const images = [...document.querySelectorAll("#pivotal_gallery figure img")];
            return images.length === count && images.every((image) => image.naturalWidth > 0);
        }""",
        arg=count,
        timeout=30_000,
    )


def _thumbnails_and_filters(visitor: Visitor) -> None:
    page = visitor.page
    _settled(page, 48)
    page.click("#pivotal_gallery [data-page='1'] >> nth=0")
    _settled(page, 12)
    page.click("#pivotal_filters [data-part='word:hana']")
    _settled(page, 20)
    page.click("#pivotal_filters [data-part='tag:park']")
    page.wait_for_selector("#pivotal_filters >> text=of 60 pictures")
    page.wait_for_timeout(1000)
    both = _cells(page)
    assert 0 < both < 20
    page.locator("#pivotal_filters [data-part='tag:park']").click(modifiers=["Alt"])
    _settled(page, 20 - both)
    page.click("#pivotal_filters [data-filter='']")
    _settled(page, 48)


def _keys(visitor: Visitor) -> None:
    page = visitor.page
    page.click("#pivotal_gallery [data-caption='02.png']")
    for key, shown in (("", "02.png"), ("ArrowRight", "03.png"), ("PageDown", "04.png"), ("ArrowLeft", "03.png")):
        if key:
            page.keyboard.press(key)
        page.wait_for_selector(f"#pivotal_caption_title [data-open='{shown}']", timeout=15_000)
    assert page.locator("#pivotal_gallery figure.chosen").get_attribute("data-key") == "03.png"
    box = page.locator("#pivotal_caption_text textarea")
    box.click()
    page.keyboard.press("End")
    page.keyboard.type(", rain", delay=20)
    page.keyboard.press("ArrowLeft")  # moves in the text, not to another picture
    page.wait_for_selector("#pivotal_caption_shown >> text=rain", timeout=15_000)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#pivotal_caption_note >> text=Saved as", timeout=15_000)
    page.keyboard.press("Escape")
    page.wait_for_selector("#pivotal_caption_box", state="hidden", timeout=15_000)


def _a_tag_moved(visitor: Visitor) -> None:
    page = visitor.page
    page.click("#pivotal_tags [data-tags='hana']")
    page.wait_for_selector("#pivotal_tags table[data-word-name='hana']", timeout=15_000)
    row = "#pivotal_tags tr[data-tag='green hair']"
    page.click(f"{row} [data-fate='kept']")
    page.click("#pivotal_tags tr[data-tag='hat'] [data-fate='absorbed']")  # at once: both must arrive
    page.wait_for_selector(f"{row}.kept", timeout=15_000)
    page.wait_for_selector("#pivotal_tags tr[data-tag='hat'].absorbed", timeout=15_000)
    embeddings = {
        embedding["name"]: embedding
        for embedding in json.loads(page.locator("#pivotal_words input, #pivotal_words textarea").input_value())
    }
    assert embeddings["hana"]["keep_tags"] == ["green hair"] and embeddings["hana"]["prune_tags"] == ["hat"]
    trained = page.locator("#pivotal_tags .pivotal-examples p >> nth=1").inner_text()
    assert "green hair" in trained and "hat" not in trained


def _plan_and_remedy(visitor: Visitor) -> None:
    page = visitor.page
    visitor.open_tab("Train")
    for steps in (500, 400, 60):  # the last one counts, however fast they come
        visitor.fill("pivotal_schedule_max_steps", steps)
    visitor.open_tab("Data")
    page.wait_for_selector("#pivotal_plan >> text=120 steps", timeout=15_000)
    page.wait_for_selector("#pivotal_plan .row.low", timeout=15_000)
    button = page.locator("#pivotal_findings [data-remedy]", has_text="steps").first
    label = button.text_content()
    button.dispatch_event("click")  # it may be among the folded ones
    asked = int(label.split()[1])
    assert asked > 60
    total = 2 * asked  # the preset's embeddings-only share is a half
    page.wait_for_selector(f"#pivotal_plan >> text={total} steps", timeout=15_000)
    page.wait_for_selector("#pivotal_plan .row.low", state="detached", timeout=15_000)


def _scan_again(visitor: Visitor) -> None:
    page = visitor.page
    page.click("#pivotal_scan")
    page.wait_for_selector("#pivotal_preset_help >> text=Scanned again", state="attached", timeout=30_000)
    embeddings = {
        embedding["name"]: embedding
        for embedding in json.loads(page.locator("#pivotal_words input, #pivotal_words textarea").input_value())
    }
    assert embeddings["hana"]["keep_tags"] == ["green hair"]


class AloneVisitor(Visitor):
    """The same on the page that stands alone: no web UI, no tabs around."""

    def __init__(self, browser: Any, url: str) -> None:
        self.page = browser.new_page(viewport={"width": 1280, "height": 1000})
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(f"{url}/?__theme=dark", wait_until="domcontentloaded", timeout=120_000)
        self.page.wait_for_selector("#pivotal_tab[data-greeted]", timeout=60_000)

    def open_tab(self, name: str) -> None:
        self.page.locator("#pivotal_tabs > div > button", has_text=name).first.click()
        self.page.wait_for_timeout(500)


def test_the_same_on_the_page_that_stands_alone(folder: Path, tmp_path: Path) -> None:
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}")
    manager = RunManager(StandaloneBackend(CHECKPOINT, tmp_path / "out"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    served = serve(manager, root=ROOT, port=port, forever=False)
    try:
        with sync_api.sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
            _visit(AloneVisitor(browser, f"http://127.0.0.1:{port}"), folder)
            browser.close()
    finally:
        served.close()
