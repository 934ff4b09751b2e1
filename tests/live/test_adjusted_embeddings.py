"""Embeddings adjusted by their file's tag, in a real web UI: sliders, pictures, the file that is written from them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import Installation, no_live_previews, running
from tests.live.material import Material
from tests.live.situations import Situation

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
from tests.live.test_parts import Page, browser  # noqa: E402, F401 (a fixture)

pytestmark = [pytest.mark.webui, pytest.mark.slow]

FACTS = {
    "aoi": {"init_text": "blue hair, smile"},
    "hana": {"init_text": "red hair, girl, park"},
    "pico": {"init_text": "random"},
}
METADATA = {"pivotal.words": json.dumps(FACTS), "ss_v2": "False", "ss_base_model_version": "sd_v1"}


def bundle(s: Situation, name: str = "") -> str:
    vectors = {name: s.vectors(seed, 3) for seed, name in enumerate(FACTS, 1)}
    return s.bundle(vectors, name=name, parts=("unet", "te"), metadata=METADATA)


def test_pictures_of_the_tag_and_of_the_file_that_is_written_from_it(pivotal: Situation) -> None:
    file, settings = bundle(pivotal), {"negative_prompt": "aoi"}
    tail = "0.6> hana, aoi, a face"
    plain = pivotal.pixels(f"<lora:{file}:{tail}", **settings)
    assert pivotal.pixels(f"<lora:{file}:0.6:emb=hana*1~0:emb=aoi*1~0> hana, aoi, a face", **settings) == plain
    adjusted = pivotal.pixels(f"<lora:{file}:0.6:emb=hana*0.5~0.2:emb=aoi*0.8~0> hana, aoi, a face", **settings)
    body = {"name": file, "new_name": f"{file}-two", "adjustments": {"hana": {"norm": 0.5, "init_share": 0.2}}}
    body["adjustments"]["aoi"] = {"norm": 0.8}
    pivotal.webui.call("/pivotal/v1/bundles/adjust", body)
    assert adjusted != plain
    assert pivotal.pixels(f"<lora:{file}-two:{tail}", **settings) == adjusted
    assert pivotal.pixels(f"<lora:{file}:{tail}", **settings) == plain


def test_both_passes_and_batches(pivotal: Situation) -> None:
    file = bundle(pivotal)
    body = {"name": file, "new_name": f"{file}-two", "adjustments": {"hana": {"norm": 0.5, "init_share": 0.2}}}
    pivotal.webui.call("/pivotal/v1/bundles/adjust", body)
    settings = {"enable_hr": True, "hr_scale": 2, "hr_second_pass_steps": 4, "denoising_strength": 0.6, "batch_size": 2}

    def pictures(tag: str, second: str) -> list[bytes]:
        hr_prompt = f"<lora:{second}> hana, a face"
        answer = pivotal.webui.ask_txt2img(f"<lora:{tag}> hana AND smile", hr_prompt=hr_prompt, **settings)
        return pivotal.webui.pictures(answer)

    adjusted = f"{file}:1:emb=hana*0.5~0.2"
    assert (
        pictures(f"{file}:1", adjusted) == pictures(f"{file}:1", f"{file}-two:1") != pictures(f"{file}:1", f"{file}:1")
    )
    assert pictures(adjusted, adjusted) == pictures(f"{file}-two:1", f"{file}-two:1")


def test_the_stock_web_ui_passes_over_the_field(stock: Situation) -> None:
    file = bundle(stock)
    plain = stock.pixels(f"<lora:{file}:0.6:0.8> hana, a face")
    before = len(stock.webui.log_text())
    assert stock.pixels(f"<lora:{file}:0.6:0.8:emb=hana*0.5~0.2:emb=aoi*2~0> hana, a face") == plain
    assert "Traceback" not in stock.webui.log_text()[before:]


@pytest.fixture(scope="module")
def situation(
    installation: Installation, checkpoint: Path, material: Material, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Situation]:
    with running(installation, checkpoint, tmp_path_factory.mktemp("sliders"), linked=True, page=True) as webui:
        no_live_previews(webui)
        made = Situation(webui, material, checkpoint.stem)
        bundle(made, "gekidol")
        yield made


@pytest.fixture
def page(situation: Situation, browser: Any) -> Iterator[Page]:  # noqa: F811
    made = Page(browser.new_page(viewport={"width": 1280, "height": 1000}))
    made.open(f"{situation.webui.url}/?__theme=dark")
    made.show_rows()
    yield made
    made.page.close()
    assert made.errors == []


def slider(page: Page, label: str) -> Any:
    return page.row("gekidol").locator(f"input[type=range][aria-label='{label}']")


def test_sliders_write_the_tag_and_follow_it(page: Page) -> None:
    page.write("<lora:gekidol:0.7> hana, <lora:other:1>")
    assert page.row("gekidol").locator("input[type=range]").count() == 2, "the weights alone"
    page.row("gekidol").get_by_text("adjust").click()
    slider(page, "norm of hana").fill("0.5")
    assert page.prompt == "<lora:gekidol:0.7:emb=hana*0.5~0> hana, <lora:other:1>"
    slider(page, "init text share of hana").fill("0.2")
    slider(page, "norm of aoi").fill("1.5")
    assert page.prompt == "<lora:gekidol:0.7:emb=hana*0.5~0.2:emb=aoi*1.5~0> hana, <lora:other:1>"
    assert slider(page, "init text share of pico").is_disabled() and slider(page, "norm of pico").is_enabled()
    page.page.locator("#pivotal_parts_txt2img").scroll_into_view_if_needed()
    page.page.mouse.move(0, 0)
    page.page.wait_for_timeout(400)
    page.shot("adjusted_embeddings")
    page.press("gekidol", "unet")
    assert page.prompt == "<lora:gekidol:0:0.7:emb=hana*0.5~0.2:emb=aoi*1.5~0> hana, <lora:other:1>"
    slider(page, "norm of aoi").fill("1")
    page.row("gekidol").get_by_text("reset").nth(1).click()
    assert page.prompt == "<lora:gekidol:0:0.7> hana, <lora:other:1>"


def test_a_tag_that_is_typed_moves_the_sliders(page: Page) -> None:
    page.write("<lora:gekidol:1:emb=Hana~0.3:lbw=A> hana")
    values = [slider(page, label).input_value() for label in ("norm of hana", "init text share of hana")]
    assert values == ["1", "0.3"]
    slider(page, "norm of hana").fill("0.9")
    assert page.prompt == "<lora:gekidol:1:lbw=A:emb=Hana*0.9~0.3> hana"


def test_a_pasted_infotext_brings_the_sliders(page: Page, situation: Situation) -> None:
    infotext = situation.webui.txt2img("<lora:gekidol:1:emb=hana*0.5~0.2> hana").infotext
    page.write(infotext)
    page.page.click("#paste")
    page.page.wait_for_timeout(2500)
    assert page.prompt == "<lora:gekidol:1:emb=hana*0.5~0.2> hana"
    assert slider(page, "norm of hana").input_value() == "0.5"


def test_the_bundles_page_writes_what_the_tag_says(page: Page, situation: Situation) -> None:
    page.page.click("#tabs > .tab-nav button:has-text('Pivotal tuning')")
    page.page.click("#pivotal_tab .tab-nav button:has-text('Bundles')")
    page.page.locator("#pivotal_bundle_list [data-bundle='gekidol.safetensors']").click()
    page.page.locator("#pivotal_bundle_more .label-wrap").click()
    field = page.page.locator("#pivotal_bundle_adjustments textarea, #pivotal_bundle_adjustments input")
    field.fill("<lora:gekidol:1:emb=hana*0.5~0.2> hana")
    page.page.click("#pivotal_bundle_adjust")
    page.page.get_by_text("hana was adjusted in gekidol-adjusted.safetensors").wait_for()
    page.shot("adjusted_bundles_page")
    written = situation.pixels("<lora:gekidol-adjusted:1> hana, a face")
    assert situation.pixels("<lora:gekidol:1:emb=hana*0.5~0.2> hana, a face") == written
