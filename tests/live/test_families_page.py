"""The Training tab in a browser with a checkpoint of another family: sizes follow it, and what differs is explained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.live.conftest import Installation, TinyCheckpoints, WebUI, no_live_previews, running
from tests.live.test_tab_page import Visitor

pytest.importorskip("playwright.sync_api", reason="pip install playwright to drive the page")

pytestmark = [pytest.mark.webui, pytest.mark.slow]

REFUSED = {
    "refiner": "Choose the base checkpoint to train",
    "sd3": "sd3 is an SD3 checkpoint, which this version does not train",
    "xlmr": "xlmr is an AltDiffusion checkpoint",
}
"""Checkpoint -> part of the sentence that the page shows for it."""

SIZES = {"sd1": 512, "sd2v": 768, "sdxl": 1024}
"""Checkpoint -> what a scan of large pictures proposes."""


@pytest.fixture(scope="module")
def webui(
    installation: Installation, tiny_checkpoints: TinyCheckpoints, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WebUI]:
    def prepare(data: Path) -> None:
        tiny_checkpoints.lay_out(data, *SIZES, *REFUSED)

    data, first = tmp_path_factory.mktemp("families_page"), tiny_checkpoints.path("sd1")
    variables = {"HUGGINGFACE_HUB_CACHE": str(tiny_checkpoints.hub)}
    with running(installation, first, data, linked=True, page=True, prepare=prepare, variables=variables) as found:
        no_live_previews(found)
        yield found


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large") / "aoi"
    folder.mkdir()
    for number in range(6):
        Image.new("RGB", (1100, 1000), (40 * number, 90, 30)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("aoi, 1girl, smile", encoding="utf-8")
    return folder


def test_size_and_settings_follow_the_checkpoint(webui: WebUI, browser: Any, pictures: Path) -> None:
    for name, size in SIZES.items():
        webui.use(name)
        visitor = Visitor(browser, webui.url)
        page = visitor.page
        visitor.open_tab("Data")
        visitor.fill("pivotal_data_folder", pictures)
        page.click("#pivotal_scan")
        page.wait_for_selector("#pivotal_words_table input[value='aoi']", timeout=60_000)
        page.wait_for_timeout(1500)
        visitor.open_tab("Train")
        page.wait_for_timeout(1500)
        field = page.locator("#pivotal_data_resolution_px input").first
        assert int(field.input_value()) == size, name
        visitor.fill("pivotal_data_resolution_px", 448)
        visitor.choose("pivotal_network_te_targets", "attention")
        page.wait_for_timeout(2500)
        told = page.locator("#pivotal_tab").first.inner_text()
        assert f"is made for {size}, and the pictures allow {size}" in told
        assert ("lora_te2_" in told) == (name == "sdxl")
        second = page.locator("#pivotal_network_te2_lr").first
        assert ("pivotal-idle" in (second.get_attribute("class") or "")) == (name != "sdxl"), "dimmed, with a sentence"
        visitor.shot(f"family_{name}")
        assert not visitor.own_errors
        page.close()


@pytest.mark.parametrize("name", list(REFUSED))
def test_a_checkpoint_that_cannot_be_trained_is_said_on_the_page(
    webui: WebUI, browser: Any, pictures: Path, name: str
) -> None:
    webui.use(name)
    runs = webui.data / "pivotal_runs"
    made = sorted(runs.rglob("*"))
    visitor = Visitor(browser, webui.url)
    page = visitor.page
    visitor.open_tab("Data")
    visitor.fill("pivotal_data_folder", pictures)
    page.click("#pivotal_scan")
    page.wait_for_selector("#pivotal_words_table input[value='aoi']", timeout=60_000)
    visitor.open_tab("Train")
    page.wait_for_timeout(1500)
    page.click("#pivotal_train")
    page.get_by_text(REFUSED[name]).first.wait_for(timeout=30_000)
    visitor.shot(f"family_{name}")
    assert not visitor.own_errors
    assert sorted(runs.rglob("*")) == made, "nothing has started"
    page.close()
    webui.use("sd1")
    assert webui.txt2img("a face", steps=2).image.size == (64, 64)
