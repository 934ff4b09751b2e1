"""Findings and settings of the workbench in a browser on a real web UI: two clicks to a plan, undo, what follows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from examples import many
from tests.live.conftest import Installation, WebUI, running
from tests.live.test_tab_page import Visitor

pytest.importorskip("playwright.sync_api", reason="pip install playwright to drive the page")

pytestmark = [pytest.mark.webui, pytest.mark.slow]

PAIRS = 14


@pytest.fixture(scope="module")
def webui(installation: Installation, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebUI]:
    with running(installation, checkpoint, tmp_path_factory.mktemp("bench") / "data", linked=True, page=True) as it:
        yield it


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """kgrid's tree with 16 words; 14 pictures are there twice, the second time scaled and saved as JPEG."""
    made = many.write_pictures(tmp_path_factory.mktemp("many") / "pictures", pictures=8, pairs=2, seed=0)
    for path in sorted(made.rglob("*.png"))[::5][:PAIRS]:
        copy = path.with_name(f"{path.stem}-again.jpg")
        Image.open(path).convert("RGB").resize((60, 60)).resize((64, 64)).save(copy, quality=93)
        copy.with_suffix(".txt").write_text(path.with_suffix(".txt").read_text())
    return made


def _opened(browser: Any, webui: WebUI, folder: Path) -> Visitor:
    visitor = Visitor(browser, webui.url)
    visitor.open_tab("Data")
    visitor.fill("pivotal_data_folder", folder)
    visitor.page.click("#pivotal_scan")
    visitor.page.wait_for_selector("#pivotal_plan .row", timeout=60_000)
    return visitor


def _embeddings(page: Any) -> dict[str, Any]:
    text = page.locator("#pivotal_words input, #pivotal_words textarea").input_value()
    return {embedding["name"]: embedding for embedding in json.loads(text)}


def _warnings(page: Any) -> int:
    return int(page.locator("#pivotal_findings .pivotal-problems > li:is(.warning, .error)").count())


def test_two_clicks_from_a_folder_to_a_plan_without_warnings(browser: Any, webui: WebUI, folder: Path) -> None:
    visitor = _opened(browser, webui, folder)  # the first click: Scan
    page = visitor.page
    doubles = page.locator("#pivotal_findings li.warning", has_text="look the same").first
    assert f"{PAIRS} groups" in doubles.locator("summary").inner_text()
    assert doubles.locator("img").count() == 2 * PAIRS
    before = page.locator("#pivotal_summary").first.inner_text()
    mend = page.locator("#pivotal_findings [data-mend]")
    (mend if mend.count() else doubles.locator("[data-remedy]").first).click()  # the second
    page.wait_for_selector("#pivotal_undo [data-undo]", timeout=30_000)
    page.wait_for_function("() => !document.querySelector('#pivotal_findings li.warning, #pivotal_findings li.error')")
    assert len(_embeddings(page)) == 16 and page.locator("#pivotal_plan .row").count() == 16
    page.wait_for_function(  # the thumbnails are those of the new scan
        "(before) => document.querySelector('#pivotal_summary').innerText !== before", arg=before, timeout=30_000
    )
    total = page.locator("#pivotal_summary b").first.inner_text().split()[0]
    page.wait_for_selector(f"#pivotal_filters >> text={total} pictures", timeout=30_000)
    page.click("#pivotal_undo [data-undo]")
    page.wait_for_selector("#pivotal_findings li.warning", timeout=30_000)
    page.wait_for_function("(text) => document.querySelector('#pivotal_summary').innerText === text", arg=before)
    assert not visitor.own_errors
    page.close()


def test_findings_by_keyboard_filter_and_thumbnails(browser: Any, webui: WebUI, folder: Path) -> None:
    visitor = _opened(browser, webui, folder)
    page = visitor.page
    group = page.locator("#pivotal_findings li.warning", has_text="look the same").first
    assert not group.locator("img").first.is_visible()
    group.locator("summary").focus()
    page.keyboard.press("Enter")
    page.wait_for_function(
        """(count) => {
            const images = [...document.querySelectorAll("#pivotal_findings details[open] img")];
            return images.length === count && images.every((image) => image.naturalWidth > 0);
        }""",
        arg=2 * PAIRS,
        timeout=30_000,
    )
    key = group.locator("img").nth(3).get_attribute("data-caption")
    visitor.open_tab("Train")
    visitor.fill("pivotal_schedule_batch_size", 3)  # the list is drawn anew: what is open stays open
    visitor.open_tab("Data")
    page.wait_for_selector("#pivotal_plan >> text=× 3", timeout=30_000)
    assert group.locator("img").first.is_visible()
    page.locator(".pivotal-find input").fill(Path(key).name)
    page.wait_for_function("() => document.querySelector('.pivotal-find small').textContent.startsWith('1 of')")
    shown = [line for line in group.locator("details li").all() if line.is_visible()]
    assert len(shown) == 1 and shown[0].locator(f'img[alt="{key}"]').count() == 1
    shown[0].locator("img").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#pivotal_caption_box >> text=as trained", timeout=30_000)
    page.keyboard.press("Escape")
    shown[0].locator("[data-show]").click()
    page.wait_for_selector("#pivotal_filters >> text=2 of", timeout=30_000)
    page.locator(".pivotal-find input").fill("")
    group.locator("[data-show=near_double]").click()
    page.wait_for_selector(f"#pivotal_filters >> text={2 * PAIRS} of", timeout=30_000)
    assert not visitor.own_errors
    page.close()


def test_everything_follows_settings(browser: Any, webui: WebUI, folder: Path) -> None:
    visitor = _opened(browser, webui, folder)
    page = visitor.page
    name = next(iter(embedding for embedding, facts in _embeddings(page).items() if facts["prune"]))
    bar = f"#pivotal_plan .row:has-text('{name}') > span"
    before = float(page.locator(bar).inner_text().replace("\u202f", "").replace(" ", ""))

    def draws() -> float:
        return float(page.locator(bar).inner_text().replace("\u202f", "").replace(" ", ""))

    def until(condition: str, **more: Any) -> None:
        page.wait_for_function(condition, timeout=30_000, **more)

    visitor.open_tab("Train")
    batch = int(page.locator("#pivotal_schedule_batch_size input").first.input_value())
    visitor.fill("pivotal_schedule_batch_size", 2 * batch)
    visitor.open_tab("Data")
    page.wait_for_selector(f"#pivotal_plan >> text=× {2 * batch}", timeout=30_000)
    assert draws() == pytest.approx(2 * before, rel=0.01)
    table = page.locator(f"#pivotal_words_table tbody:has(input[value='{name}'])")
    assert float(table.locator(".c-draws span span").inner_text()) == pytest.approx(2 * before, rel=0.01)

    longest = page.locator("#pivotal_plan .tokens p").inner_text()
    table.locator("[data-key=vectors]").fill("40")
    table.locator("[data-key=vectors]").press("Tab")
    until("(text) => document.querySelector('#pivotal_plan .tokens p').innerText !== text", arg=longest)

    page.click(f"#pivotal_tags [data-tags='{name}']")
    page.wait_for_selector(f"#pivotal_tags table[data-word-name='{name}'] tr.init, #pivotal_tags tr.absorbed")
    struck = "() => document.querySelectorAll('#pivotal_gallery s').length"
    assert page.evaluate(struck) > 0
    table.locator("[data-key=prune]").uncheck()
    page.wait_for_selector("#pivotal_tags >> text=Nothing is pruned now", timeout=30_000)
    left = int(page.locator("#pivotal_summary b").first.inner_text().split()[0]) - PAIRS
    visitor.open_tab("Train")
    page.locator("#pivotal_group_pictures .label-wrap").click()
    visitor.choose("pivotal_data_duplicates", "skip_near")
    visitor.open_tab("Data")
    page.wait_for_selector(f"#pivotal_summary >> text={left} pictures", timeout=30_000)
    page.wait_for_selector(f"#pivotal_filters >> text={left} pictures", timeout=30_000)
    assert not visitor.own_errors
    page.close()


def test_a_second_quick_undo_takes_back_the_change_before(browser: Any, webui: WebUI, folder: Path) -> None:
    visitor = _opened(browser, webui, folder)
    page = visitor.page
    name = next(iter(embedding for embedding, facts in _embeddings(page).items() if facts["prune"]))
    page.click(f"#pivotal_tags [data-tags='{name}']")
    page.wait_for_selector(f"#pivotal_tags table[data-word-name='{name}']", timeout=30_000)
    embeddings = _embeddings(page)
    rows = page.locator("#pivotal_tags tr.kept")
    tags = [rows.nth(number).get_attribute("data-tag") for number in range(3)]
    for tag in tags:  # three at once: none is lost
        page.click(f'#pivotal_tags tr[data-tag="{tag}"] [data-fate=absorbed]')
    page.wait_for_selector("#pivotal_undo >> text=last 3 changes", timeout=30_000)
    page.wait_for_function("() => document.querySelectorAll('#pivotal_tags tr.absorbed').length >= 3", timeout=30_000)
    undo = page.locator("#pivotal_undo [data-undo='1']").first
    undo.dispatch_event("click")
    undo.dispatch_event("click")
    page.wait_for_selector(f"#pivotal_undo >> text={tags[0]}", timeout=30_000)
    page.wait_for_selector("#pivotal_undo details", state="detached", timeout=30_000)
    page.click("#pivotal_undo [data-undo]")
    page.wait_for_selector("#pivotal_undo [data-undo]", state="detached", timeout=30_000)
    assert _embeddings(page) == embeddings
    assert not visitor.own_errors
    page.close()
