"""Other trainers' settings in a real web UI: by its API, and by the tab's own button."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lib_pivotal.config import run_from_dict
from tests.live.conftest import CHROMIUM, Installation, RequestFailedError, WebUI, running
from tests.live.test_tab_page import Visitor

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright to drive the page")

pytestmark = [pytest.mark.webui, pytest.mark.slow]

TOML = """
network_module = "networks.lora"
network_dim = 12
unet_lr = 3e-4
text_encoder_lr = 0
resolution = 640
wild = 1
"""
YAML = """
_base_: [cfgs/train/train_base.yaml, cfgs/train/tuning_base.yaml]
tokenizer_pt: {train: [{name: hero, lr: 0.003}]}
lora_unet: [{lr: 1e-4, rank: 8, layers: ['re:.*\\.attn.?$', 're:.*\\.ff$']}]
data: {dataset1: {batch_size: 4, source: {pictures: {img_root: pictures}}}}
"""


@pytest.fixture
def webui(installation: Installation, checkpoint: Path, tmp_path: Path) -> Iterator[WebUI]:
    with running(installation, checkpoint, tmp_path / "data", linked=True, page=True) as it:
        yield it


def test_api_and_button(webui: WebUI, tmp_path: Path) -> None:
    path = tmp_path / "hcp.yaml"
    path.write_text(YAML, encoding="utf-8")
    for body in ({"file": str(path)}, {"name": "hcp.yaml", "text": YAML}):
        answer = webui.call("/pivotal/v1/import", body)
        run = run_from_dict(answer["run"])
        assert run.network.unet_lr == pytest.approx(4e-4) and run.embeddings_common.lr == pytest.approx(0.012)
        assert answer["report"]["peer"] == "hcp" and answer["faults"] == []
    with pytest.raises(RequestFailedError, match="422.*no trainer that is known"):
        webui.call("/pivotal/v1/import", {"name": "x.json", "text": '{"hello": 1}'})
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}")
    toml = tmp_path / "config.toml"
    toml.write_text(TOML, encoding="utf-8")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        visitor = Visitor(browser, webui.url)
        page = visitor.page
        visitor.open_tab("Train")
        page.locator("#pivotal_load .label-wrap").click()
        with page.expect_file_chooser() as chooser:
            page.click("#pivotal_upload")
        chooser.value.set_files(str(toml))
        page.wait_for_selector("text=Loaded from config.toml", timeout=60_000)
        assert page.locator("#pivotal_network_unet_rank input").first.input_value() == "12"
        assert page.locator("#pivotal_data_resolution_px input").first.input_value() == "640"
        assert page.locator("#pivotal_import_report tr.unknown").inner_text().startswith("wild")
        rows = "#pivotal_import_report tr[data-narrow]"
        page.locator("#pivotal_import_report input[type=search]").fill("wild")
        page.wait_for_function(
            "(rows) => [...document.querySelectorAll(rows)].filter((row) => !row.hidden).length === 1", arg=rows
        )
        page.locator("#pivotal_import_report input[type=search]").fill("")
        page.wait_for_function("(rows) => [...document.querySelectorAll(rows)].every((row) => !row.hidden)", arg=rows)
        visitor.shot("import")
        assert not visitor.own_errors
        browser.close()
