"""The user's way through the page, in a browser on a real web UI: scan, train, watch, and make a picture with it.

Needs a Chromium (`$PIVOTAL_CHROMIUM`, else /usr/bin/chromium).
Screenshots go to out/live/.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from examples import experiment
from examples.avatars import make
from examples.avatars.scores import load_scorer
from tests.live.conftest import ROOT, Installation, WebUI, running
from tests.live.test_tab import wait

pytest.importorskip("playwright.sync_api", reason="pip install playwright to drive the page")

pytestmark = [pytest.mark.webui, pytest.mark.slow]

SHOTS = ROOT / "out" / "live"
NOT_OURS = ("ERR_NAME_NOT_RESOLVED", "ERR_INTERNET_DISCONNECTED", "iframeResizer", "reading 'props'")
"""Noise of the web UI's own page on a machine without network."""

IN_VIEW = """() => {
    const box = document.querySelector("#pivotal_feedback .pivotal-said-now").getBoundingClientRect();
    return box.height > 0 && box.top >= 0 && box.bottom <= window.innerHeight;
}"""
"""Whether the whole answer of a button is to be seen."""
STEPS = 240
BAR = 0.75


@pytest.fixture(scope="module")
def setup() -> experiment.Setup:
    characters, _ = make.choose_embeddings(1)
    return replace(experiment.Setup(tuple(characters), (), seed=0), steps=STEPS)


@pytest.fixture(scope="module")
def pictures(setup: experiment.Setup, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return experiment.write_dataset(setup, tmp_path_factory.mktemp("avatars") / "pictures")


@pytest.fixture(scope="module")
def webui(installation: Installation, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebUI]:
    def add(data: Path) -> None:
        shutil.copytree(ROOT / "tests" / "live" / "probe", data / "extensions" / "probe")

    with running(installation, checkpoint, tmp_path_factory.mktemp("page"), linked=True, page=True, prepare=add) as it:
        yield it


class Visitor:
    """Somebody in front of the page."""

    def __init__(self, browser: Any, url: str) -> None:
        self.page = browser.new_page(viewport={"width": 1280, "height": 1000})
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda entry: entry.type == "error" and self.errors.append(entry.text))
        self.page.goto(f"{url}/?__theme=dark", wait_until="domcontentloaded", timeout=120_000)
        self.page.wait_for_selector("#txt2img_prompt textarea", timeout=120_000)
        self.page.wait_for_timeout(3000)

    def open_tab(self, name: str) -> None:
        self.page.locator("#tabs > div > button", has_text="Pivotal tuning").click()
        self.page.locator("#pivotal_tabs > div > button", has_text=name).first.click()
        self.page.wait_for_timeout(500)

    def fill(self, element_id: str, value: Any) -> None:
        field = self.page.locator(f"#{element_id} input, #{element_id} textarea").first
        field.fill(str(value))
        field.press("Tab")

    def choose(self, element_id: str, value: str) -> None:
        field = self.page.locator(f"#{element_id} input").first
        field.click()
        self.page.locator(f"#{element_id} ul.options li[data-value='{value}']").click()

    @property
    def feedback(self) -> str:
        """What stands above the settings: of them, or what the last button answered."""
        return str(self.page.locator("#pivotal_feedback").first.inner_text())

    def train(self) -> None:
        """Click Train, and wait until the run goes on; fails at once, with the page's words, where it is refused."""
        self.page.click("#pivotal_train")
        refused = self.page.locator("#pivotal_feedback .pivotal-said-now li.error").first
        self.page.locator("#pivotal_stop").or_(refused).locator("visible=true").first.wait_for()
        assert self.page.locator("#pivotal_stop").is_visible(), f"refused: {self.feedback}"

    def shot(self, name: str) -> None:
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=str(SHOTS / f"tab_{name}.png"), full_page=True)

    @property
    def own_errors(self) -> list[str]:
        return [error for error in self.errors if not any(noise in error for noise in NOT_OURS)]


def test_from_folder_to_picture(webui: WebUI, browser: Any, setup: experiment.Setup, pictures: Path) -> None:
    before = webui.call("/probe/model")
    visitor = Visitor(browser, webui.url)
    page = visitor.page
    visitor.open_tab("Data")
    visitor.fill("pivotal_data_folder", pictures)
    page.click("#pivotal_scan")
    page.wait_for_selector(f"#pivotal_words_table input[value='{setup.names[0]}']", timeout=30_000)
    page.wait_for_timeout(1500)
    visitor.shot("1_data")
    visitor.open_tab("Train")
    visitor.choose("pivotal_preset", "Character")
    page.wait_for_timeout(1000)
    for field, value in {
        "name": "browsed",
        "words_common_lr": 5e-3,
        "network_unet_lr": 2e-3,
        "network_unet_rank": 16,
        "schedule_batch_size": 8,
        "schedule_max_steps": STEPS,
    }.items():
        visitor.fill(f"pivotal_{field}", value)
    page.locator("#pivotal_group_network .label-wrap").click()
    visitor.choose("pivotal_network_unet_targets", "all")
    visitor.fill("pivotal_network_unet_alpha", 16)
    page.locator("#pivotal_group_saving .label-wrap").click()
    visitor.fill("pivotal_saving_preview_every_steps", 60)
    page.wait_for_timeout(1500)
    visitor.shot("2_train")
    visitor.train()
    wait(webui, "current", step=130)
    page.wait_for_timeout(3000)
    visitor.shot("3_running")
    assert page.locator("#pivotal_rows img").count() >= 4, "four rows were to be seen"

    # the browser is closed and another one opened: the run goes on, and the page finds it
    assert not visitor.own_errors
    page.close()
    visitor = Visitor(browser, webui.url)
    page = visitor.page
    visitor.open_tab("Train")
    page.wait_for_timeout(2500)
    assert page.locator("#pivotal_rows img").count() >= 4
    steps = 2 * STEPS  # as many again train the embedding alone
    assert f"of {steps}" in page.locator("#pivotal_progress").first.inner_text()
    view = wait(webui, "current")
    assert view["status"] == "finished", view["ended"]
    page.wait_for_timeout(4000)
    visitor.shot("4_done")
    assert "browsed" in page.locator("#pivotal_tab").first.inner_text()
    assert webui.call("/probe/model") == before

    _generate(visitor, f"<lora:browsed:1> {setup.names[0]}, smile, park background")
    visitor.shot("5_txt2img")
    scorer = load_scorer()
    prompts = experiment.identity_prompts(setup.names[0], 16, seed=0, by="word")
    made = [webui.txt2img(f"<lora:browsed:1>{prompt}", seed=seed).image for seed, prompt in enumerate(prompts)]
    assert scorer.identity(made, setup.names[0]) >= BAR
    _compare(visitor, webui)
    assert not visitor.own_errors


def _compare(visitor: Visitor, webui: WebUI) -> None:
    """The Compare page draws the finished file's sheet, saved with its settings inside."""
    page = visitor.page
    before = webui.call("/probe/model")  # with the LoRA of the last picture merged into the weights
    visitor.open_tab("Compare")
    page.wait_for_timeout(2000)
    visitor.choose("pivotal_compare_file", "browsed.safetensors")
    visitor.fill("pivotal_compare_prompts", "{word}, smile, park background")
    for name, value in (("weights", "1, 0.5"), ("size", 64), ("steps", 12), ("cfg", 4)):
        visitor.fill(f"pivotal_compare_{name}", value)
    page.click("#pivotal_compare_draw")
    page.wait_for_selector("#pivotal_compare_sheet img", timeout=120_000)
    page.wait_for_timeout(1500)
    visitor.shot("6_compare")
    [path] = webui.data.glob("pivotal_runs/compare/browsed-*.png")
    sheet = Image.open(path)
    assert "Seed: 0" in sheet.info["parameters"]
    assert sheet.height > 5 * 128, "the four rows, and one at half the weight"
    assert webui.call("/probe/model") == before


def _generate(visitor: Visitor, prompt: str) -> Image.Image:
    """txt2img as a person does it; the picture from the page."""
    page = visitor.page
    page.locator("#tabs > div > button", has_text="txt2img").click()
    page.fill("#txt2img_prompt textarea", prompt)
    for name, value in (("width", 64), ("height", 64), ("steps", 12)):
        visitor.fill(f"txt2img_{name}", value)
    page.click("#txt2img_generate")
    page.wait_for_selector("#txt2img_gallery img", timeout=120_000)
    page.wait_for_timeout(1500)
    return Image.open(io.BytesIO(page.locator("#txt2img_gallery img").first.screenshot()))


def test_why_a_start_was_refused_stays_to_be_read(webui: WebUI, browser: Any, pictures: Path) -> None:
    """What was typed just before is looked at half a second after the click: that must not wipe the answer away."""
    (webui.lora_folder / "there.safetensors").write_bytes(b"")
    visitor = Visitor(browser, webui.url)
    page = visitor.page
    visitor.open_tab("Data")
    visitor.fill("pivotal_data_folder", pictures)
    page.click("#pivotal_scan")
    page.wait_for_selector("#pivotal_words_table input", timeout=30_000)
    visitor.open_tab("Train")
    visitor.fill("pivotal_name", "there")
    page.wait_for_timeout(1500)
    assert "Before it starts" in visitor.feedback
    page.locator("#pivotal_schedule_max_steps input").first.fill("123")
    page.click("#pivotal_train")
    page.get_by_text("there is a file of this name already").first.wait_for()
    page.wait_for_timeout(2500)
    assert "there is a file of this name already" in visitor.feedback
    visitor.fill("pivotal_schedule_max_steps", 124)
    page.locator("#pivotal_feedback .pivotal-before").first.wait_for()

    # a button far down answers above: it is brought into view
    page.set_viewport_size({"width": 1280, "height": 300})
    page.locator("#pivotal_group_regularisation .label-wrap").click()
    page.click("#pivotal_class_pictures")
    page.locator("#pivotal_feedback .pivotal-said-now", has_text="Folder of class pictures").wait_for()
    page.wait_for_timeout(500)
    assert page.evaluate(IN_VIEW), "the answer is out of sight"
    (webui.lora_folder / "there.safetensors").unlink()
    assert not visitor.own_errors
    page.close()


def test_reload_ui_during_a_run(webui: WebUI, browser: Any, pictures: Path, setup: experiment.Setup) -> None:
    """ "Reload UI" takes the page and all scripts down and up again: the run goes on, and ends well."""
    before = webui.call("/probe/model")
    run = experiment.make_run(replace(setup, steps=150), pictures, "reloaded")
    from lib_pivotal.config import run_to_dict

    run_id = webui.call("/pivotal/v1/runs", {**run_to_dict(run), "overwrite": True})["id"]
    wait(webui, run_id, step=5)
    visitor = Visitor(browser, webui.url)
    visitor.page.locator("#footer a", has_text="Reload UI").click()
    visitor.page.wait_for_timeout(3000)
    _wait_for_page(webui)
    view = webui.call(f"/pivotal/v1/runs/{run_id}")
    assert view["step"] >= 5
    visitor = Visitor(browser, webui.url)
    visitor.open_tab("Train")
    visitor.page.wait_for_timeout(2500)
    assert "reloaded" in visitor.page.locator("#pivotal_tab").first.inner_html()
    view = wait(webui, run_id)
    assert view["status"] == "finished", view["ended"]
    assert webui.call("/probe/model") == before


def test_a_stopped_run_is_continued_on_the_page_after_reload_ui(
    webui: WebUI, browser: Any, pictures: Path, setup: experiment.Setup
) -> None:
    """Press *Continue*: the file is that of the run that was never stopped."""
    from lib_pivotal.config import run_to_dict

    run = experiment.make_run(replace(setup, steps=40), pictures, "whole")
    run = replace(run, saving=replace(run.saving, dtype="fp32"))
    whole = wait(webui, webui.call("/pivotal/v1/runs", {**run_to_dict(run), "overwrite": True})["id"])
    run_id = webui.call("/pivotal/v1/runs", {**run_to_dict(replace(run, name="parts")), "overwrite": True})["id"]
    wait(webui, run_id, step=5)
    webui.call(f"/pivotal/v1/runs/{run_id}/stop", {})
    stopped = wait(webui, run_id)
    assert stopped["status"] == "stopped" and stopped["step"] < 40
    visitor = Visitor(browser, webui.url)
    visitor.page.locator("#footer a", has_text="Reload UI").click()
    visitor.page.wait_for_timeout(3000)
    _wait_for_page(webui)
    visitor = Visitor(browser, webui.url)
    visitor.open_tab("Train")
    visitor.choose("pivotal_resumable", run_id)
    visitor.page.click("#pivotal_resume_run")
    visitor.page.wait_for_timeout(2000)
    visitor.shot("7_continued")
    view = wait(webui, run_id)
    assert view["status"] == "finished" and view["loss"]["steps"][0] == stopped["step"] + 1, view["ended"]
    first, second = load_file(whole["ended"]["bundle"]), load_file(view["ended"]["bundle"])
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def _wait_for_page(webui: WebUI) -> None:
    import time
    import urllib.request

    for _ in range(120):
        time.sleep(1)
        try:
            with urllib.request.urlopen(webui.url, timeout=5) as answer:
                if answer.status == 200:
                    webui.call("/pivotal/v1/runs/current")
                    return
        except Exception:
            continue
    raise AssertionError("the page did not come back")
