"""The rows, the cards and the scripts in a real page, with a real browser (Playwright and a Chromium).

`$PIVOTAL_CHROMIUM` names the browser, else one is looked for; without Playwright these tests are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import Family, Installation, TinyCheckpoints, WebUI, no_live_previews, running
from tests.live.material import Material
from tests.live.situations import Situation

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytestmark = [pytest.mark.webui, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "out" / "live"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
START_MS = 120_000


def find_chromium() -> str | None:
    named = os.environ.get("PIVOTAL_CHROMIUM")
    return named or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def page_webui(
    installation: Installation,
    checkpoint: Path,
    tiny_checkpoints: TinyCheckpoints,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[WebUI]:
    folder, prepare = tmp_path_factory.mktemp("page"), tiny_checkpoints.lay_out_families
    with running(installation, checkpoint, folder, linked=True, page=True, prepare=prepare) as webui:
        no_live_previews(webui)
        yield webui


VERSIONS = {"sd1": {}, "sd2": {"ss_v2": "True"}, "sdxl": {"ss_base_model_version": "sdxl_base_v1-0"}}
"""By which the web UI knows a LoRA's family, whose cards it shows."""


@pytest.fixture(scope="module")
def situation(page_webui: WebUI, family: Family, material: Material) -> Situation:
    page_webui.use(family.checkpoint.stem)
    s = Situation(page_webui, material, family.checkpoint.stem)
    s.bundle({"aoi": s.vectors(1, 4), "hana": s.vectors(2, 3)}, name="gekidol", parts=("unet", "te"))
    s.bundle({}, name="style-x", parts=("unet",))
    metadata = {"pivotal.recommended": '{"te": 0.5}', **VERSIONS[family.name]}
    s.bundle({"pico": s.vectors(3)}, name="second", parts=("te",), metadata=metadata)
    page_webui.txt2img("<lora:second:1> pico")  # B7: before the page is opened for the first time
    return s


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("no Chromium: set PIVOTAL_CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield started
        started.close()


class Page:
    """The txt2img tab as a user has it before him."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", self._note)

    def _note(self, error: Any) -> None:
        """Errors of our script; gradio 3.41 has some of its own."""
        if "pivotal" in str(error.stack):
            self.errors.append(str(error.stack))

    def open(self, url: str) -> None:
        self.page.goto(url, timeout=START_MS, wait_until="domcontentloaded")
        self.page.wait_for_selector("#txt2img_prompt textarea", timeout=START_MS)
        self.page.wait_for_selector(".pivotal-lora-hint", state="attached", timeout=START_MS)
        self.page.wait_for_timeout(1500)

    @property
    def prompt(self) -> str:
        return str(self.page.input_value("#txt2img_prompt textarea"))

    def write(self, text: str) -> None:
        self.page.fill("#txt2img_prompt textarea", text)
        self.page.wait_for_timeout(250)

    def show_rows(self) -> None:
        if not self.page.locator("#pivotal_parts_txt2img .pivotal-parts-rows").is_visible():
            self.page.click("#pivotal_parts_txt2img .label-wrap")

    def row(self, name: str) -> Any:
        return self.page.locator(f"#pivotal_parts_txt2img .pivotal-lora-row[data-name='{name}']")

    def press(self, name: str, part: str) -> None:
        self.row(name).locator(f"button[data-part={part}]").click()

    def numbers(self, name: str) -> list[float]:
        """U-Net, then text encoder."""
        fields = self.row(name).locator("input[type=number]")
        return [float(fields.nth(number).input_value()) for number in range(fields.count())]

    def shot(self, name: str) -> None:
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=str(PICTURES / f"{name}.png"))


@pytest.fixture
def page(situation: Situation, browser: Any) -> Iterator[Page]:
    made = Page(browser.new_page(viewport={"width": 1400, "height": 1000}))
    made.open(situation.webui.url)
    made.show_rows()
    yield made
    made.page.close()
    assert made.errors == []


def test_rows_follow_typing(page: Page) -> None:
    page.write("a face")
    assert page.page.locator("#pivotal_parts_txt2img .pivotal-lora-row").count() == 0
    page.write("<lora:gekidol:0.7> aoi, <lora:style-x:1>")
    assert page.numbers("gekidol") == [0.7, 0.7]
    assert "no text encoder weights" in page.row("style-x").inner_text()
    assert "no embeddings" in page.row("style-x").inner_text()
    page.write("<lora:gekidol:0.7:0.2> aoi, <lora:style-x:1>")
    assert page.numbers("gekidol") == [0.2, 0.7]
    page.shot("parts_rows")


def test_the_four_buttons_remember_the_weights(page: Page) -> None:
    page.write("<lora:gekidol:0.7:0.9> aoi")
    for part, tag in (("unet", "0:0.9"), ("te", "0.7:0"), ("words", "0:0"), ("whole", "0.7:0.9")):
        page.press("gekidol", part)
        assert page.prompt == f"<lora:gekidol:{tag}> aoi"
        assert page.row("gekidol").locator(".pivotal-lora-chosen").get_attribute("data-part") == part


def test_switches_and_numbers_write_the_tag(page: Page) -> None:
    page.write("<lora:gekidol:0.7> aoi")
    boxes = page.row("gekidol").locator("input[type=checkbox]")
    boxes.nth(1).uncheck()
    assert page.prompt == "<lora:gekidol:0:0.7> aoi"
    boxes.nth(1).check()
    assert page.prompt == "<lora:gekidol:0.7:0.7> aoi"
    boxes.nth(2).uncheck()
    assert page.prompt == "<lora:gekidol:0.7:0.7:words=0> aoi"
    boxes.nth(2).check()
    page.row("gekidol").locator("input[type=number]").nth(0).fill("0.45")
    assert page.prompt == "<lora:gekidol:0.7:0.45> aoi"


def test_the_trap_is_shown_and_mended(page: Page) -> None:
    page.write("<lora:gekidol:1:te=0> aoi")
    assert page.numbers("gekidol") == [0, 0]
    page.row("gekidol").get_by_text("write <lora:gekidol:0:1>").click()
    assert page.prompt == "<lora:gekidol:0:1> aoi"


def test_fields_of_other_extensions_pass_through(page: Page) -> None:
    page.write("<lora:gekidol:1:1:8:lbw=MIDD:stop=10> __colour__ {a|b}, <lora:second:0@0,1@1:unet=0>")
    page.press("gekidol", "unet")
    assert page.prompt == "<lora:gekidol:0:1:8:lbw=MIDD:stop=10> __colour__ {a|b}, <lora:second:0@0,1@1:unet=0>"
    assert "another extension" in page.row("second").inner_text()


def test_all_loras_at_once(page: Page) -> None:
    page.write("<lora:gekidol:0.7> aoi, <lora:style-x:0.5>")
    page.page.locator("#pivotal_parts_txt2img .pivotal-lora-all button[data-part=unet]").click()
    assert page.prompt == "<lora:gekidol:0:0.7> aoi, <lora:style-x:0:0.5>"
    page.page.locator("#pivotal_parts_txt2img .pivotal-lora-all button[data-part=whole]").click()
    assert page.prompt == "<lora:gekidol:0.7:0.7> aoi, <lora:style-x:0.5:0.5>"


def test_the_network_that_a_setting_adds_has_a_row(page: Page) -> None:
    page.page.evaluate("opts.sd_lora = 'gekidol'")
    try:
        page.write("aoi, a face")
        page.press("gekidol", "unet")
        assert page.prompt.startswith("aoi, a face<lora:gekidol:0:1>")
    finally:
        page.page.evaluate("opts.sd_lora = 'None'")


def test_a_click_on_a_embedding_inserts_it(page: Page) -> None:
    page.write("a face, <lora:gekidol:1>")
    page.row("gekidol").locator(".pivotal-lora-chip").nth(1).click()
    assert "hana" in page.prompt
    page.write("a face")
    page.page.click("#txt2img_extra_tabs .tab-nav button:has-text('Lora')")
    card = page.page.locator("#txt2img_lora_cards .card[data-name=second]")
    card.locator(".pivotal-lora-chip").first.click()
    assert page.prompt == "a face <lora:second:0.5:1>, pico"
    assert page.page.locator("#txt2img_lora_cards .card[data-name=gekidol] .pivotal-lora-badge").count() == 2
    page.shot("parts_cards")
    card.locator(".name").click()
    assert "<lora:second" not in page.prompt, "a second click takes the tag away again, whatever its weights"


def test_weights_of_its_own_in_the_cards_editor(page: Page, situation: Situation) -> None:
    page.write("")
    page.page.click("#txt2img_extra_tabs .tab-nav button:has-text('Lora')")
    card = page.page.locator("#txt2img_lora_cards .card[data-name=style-x]")
    card.hover()
    card.locator(".edit-button").click()
    editor = page.page.locator("#txt2img_lora_edit_user_metadata")
    editor.get_by_label("U-Net weight").wait_for()
    page.page.wait_for_timeout(500)
    editor.get_by_label("U-Net weight").fill("0.6")
    editor.get_by_label("Text encoder weight").fill("0")
    page.page.wait_for_timeout(300)
    page.shot("parts_editor")
    editor.get_by_role("button", name="Save").click()
    page.page.wait_for_timeout(1500)
    saved = json.loads((situation.webui.lora_folder / "style-x.json").read_text(encoding="utf-8"))
    assert saved["pivotal unet weight"] == 0.6
    page.page.locator("#txt2img_lora_cards .card[data-name=style-x] .name").click()
    assert "<lora:style-x:0:0.6>" in page.prompt


def test_the_counter_counts_vectors(page: Page) -> None:
    counter = page.page.locator("#txt2img_token_counter").first

    def count(text: str) -> int:
        page.write(text)
        page.page.locator("#txt2img_prompt textarea").press("End")
        page.page.wait_for_timeout(1800)
        return int(counter.inner_text().split("/")[0])

    assert count("<lora:gekidol:1> aoi") == 4
    assert count("<lora:gekidol:1> hana, aoi") == 8
    assert count("<lora:gekidol:1:words=0> hana") == count("hana")


def test_what_happened_stands_under_the_picture(page: Page, situation: Situation) -> None:
    situation.embedding(situation.vectors(9), "aoi")
    generate(page, "<lora:gekidol:1> aoi")
    assert '"aoi" means that of gekidol' in page.page.inner_text("#txt2img_results")
    page.shot("names_comment")


def test_the_pages_of_extra_networks_after_a_bundle(page: Page, situation: Situation) -> None:
    page.page.click("#txt2img_extra_tabs .tab-nav button:has-text('Textual Inversion')")
    page.page.click("#txt2img_extra_tabs .tab-nav button:has-text('Lora')")
    page.page.wait_for_selector("#txt2img_lora_cards .card[data-name=gekidol]", timeout=10_000)
    assert "os.PathLike object, not NoneType" not in situation.webui.log_text()


def test_a_pasted_infotext_finds_a_renamed_file(page: Page, situation: Situation) -> None:
    digest = "fedcba9876543210" * 4
    situation.bundle({"rin": situation.vectors(7)}, name="oldname", metadata={"sshs_model_hash": digest})
    infotexts = [situation.webui.txt2img(f"<{kind}:oldname> rin").infotext for kind in ("lora", "words")]
    folder = situation.webui.lora_folder
    (folder / "oldname.safetensors").rename(folder / "newname.safetensors")
    situation.webui.call("/sdapi/v1/refresh-loras", {})
    for kind, infotext in zip(("lora", "words"), infotexts, strict=True):
        page.write(infotext)
        page.page.click("#paste")
        page.page.wait_for_timeout(2500)
        assert page.prompt == f"<{kind}:newname> rin"


def generate(page: Page, prompt: str) -> None:
    page.write(prompt)
    for name, value in (("width", 64), ("height", 64), ("steps", 4)):
        field = page.page.locator(f"#txt2img_{name} input[type=number]")
        field.fill(str(value))
        field.press("Tab")
    page.page.click("#txt2img_generate")
    page.page.wait_for_selector("#txt2img_gallery img", timeout=START_MS)
    page.page.wait_for_timeout(2500)


def test_embeddings_are_completed(page: Page) -> None:
    area = page.page.locator("#txt2img_prompt textarea")
    page.write("<lora:gekidol:1> ")
    area.press("End")
    area.type("a face, ha")
    listed = page.page.locator("#txt2img_prompt .pivotal-lora-completion > div")
    assert listed.all_inner_texts()[0].startswith("hana")
    page.shot("names_completion")
    area.press("Tab")
    assert page.prompt == "<lora:gekidol:1> a face, hana"
    page.write("")
    area.type("ha")
    assert listed.count() == 0, "no bundle in the prompt"


@pytest.mark.parametrize(("width", "height", "theme"), [(1920, 1080, "dark"), (390, 844, "light")])
def test_pictures_of_the_rows(situation: Situation, browser: Any, width: int, height: int, theme: str) -> None:
    made = Page(browser.new_page(viewport={"width": width, "height": height}))
    made.open(f"{situation.webui.url}/?__theme={theme}")
    made.write("<lora:gekidol:0.7:1> aoi, smile, <lora:second:1:te=0>")
    made.show_rows()
    made.page.locator("#pivotal_parts_txt2img").scroll_into_view_if_needed()
    made.page.wait_for_timeout(600)
    made.shot(f"parts_{width}_{theme}")
    box = made.row("gekidol").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width + 1
    made.page.close()
