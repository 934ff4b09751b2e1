"""The dial on a real web UI's page, from Scan to the four rows: what it sets, and what a run tells of the balance.

Needs a Chromium (`$PIVOTAL_CHROMIUM`, else /usr/bin/chromium). Screenshots go to out/live/.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.avatars import make
from lib_pivotal.bundle.listing import list_bundle
from lib_pivotal.bundle.metadata import separation_shares
from lib_pivotal.runs.balance import said_of_parts, said_of_shares, stop
from tests.live.conftest import Installation, WebUI, running
from tests.live.test_tab import wait
from tests.live.test_tab_page import Visitor

pytest.importorskip("playwright.sync_api", reason="pip install playwright to drive the page")

pytestmark = [pytest.mark.webui, pytest.mark.slow]

STEPS, SAMPLES_EVERY, SEPARATION_EVERY = 12, 8, 6
PATIENCE_MS = 120_000
"""A busy machine draws the page slowly."""
NAMES = make.choose_embeddings(2)[0]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("avatars") / "pictures"
    make.write(make.plan(NAMES, [], pictures=8), folder, layout="plain")
    return folder


@pytest.fixture(scope="module")
def webui(installation: Installation, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebUI]:
    with running(installation, checkpoint, tmp_path_factory.mktemp("dial"), linked=True, page=True) as it:
        yield it


def turn(visitor: Visitor, key: str) -> None:
    """Click a stop, and wait until the page has taken it over."""
    chosen = stop(key)
    visitor.page.locator("#pivotal_balance").get_by_text(chosen.label, exact=True).click()
    visitor.page.locator("#pivotal_balance_help .pivotal-note", has_text=chosen.help).wait_for()
    visitor.page.wait_for_timeout(1000)


def fields(visitor: Visitor) -> dict[str, Any]:
    """What the fields show of the settings that stops set, and the vectors in the table."""

    def value(element_id: str) -> str:
        return str(visitor.page.locator(f"#{element_id} input").first.input_value())

    vectors = visitor.page.locator("#pivotal_words_table input[data-key='vectors']")
    return {
        "share": float(value("pivotal_schedule_embeddings_only_share")),
        "control": value("pivotal_words_common_control"),
        "vectors": [int(vectors.nth(number).input_value()) for number in range(vectors.count())],
    }


def set_by(key: str) -> dict[str, Any]:
    """What the fields are to show at a stop that sets vectors."""
    settings = stop(key).settings
    share, control = settings["schedule.embeddings_only_share"], settings["embeddings_common.control"]
    return {"share": share, "control": control, "vectors": [stop(key).vectors] * len(NAMES)}


def test_the_dial_from_scan_to_four_rows(webui: WebUI, browser: Any, pictures: Path) -> None:
    visitor = Visitor(browser, webui.url)
    page = visitor.page
    page.set_default_timeout(PATIENCE_MS)
    visitor.open_tab("Data")
    visitor.fill("pivotal_data_folder", pictures)
    page.click("#pivotal_scan")
    page.wait_for_selector(f"#pivotal_words_table input[value='{NAMES[0]}']")
    visitor.open_tab("Train")
    for group in ("embeddings", "schedule", "saving"):
        page.locator(f"#pivotal_group_{group} .label-wrap").click()
    page.wait_for_timeout(1500)
    for key in ("most", "shared"):
        turn(visitor, key)
        assert fields(visitor) == set_by(key)
    turn(visitor, "network")
    assert fields(visitor) == {**set_by("network"), "vectors": set_by("shared")["vectors"]}, "they stay as they were"
    turn(visitor, "embedding")
    assert fields(visitor) == set_by("embedding")
    visitor.shot("dial_1")

    for field, value in {
        "name": "dialled",
        "schedule_max_steps": STEPS,
        "schedule_warmup_steps": 2,
        "schedule_batch_size": 2,
        "saving_preview_every_steps": SAMPLES_EVERY,
        "saving_separation_every_steps": SEPARATION_EVERY,
    }.items():
        visitor.fill(f"pivotal_{field}", value)
    page.wait_for_timeout(1500)
    visitor.train()
    view = wait(webui, "current")
    assert view["status"] == "finished", view["ended"]
    page.locator(".pivotal-outcome").wait_for()
    page.wait_for_timeout(3000)
    visitor.shot("dial_2")
    _has_its_balance(visitor, view)
    assert not visitor.own_errors


def _has_its_balance(visitor: Visitor, view: dict[str, Any]) -> None:
    """Four rows, the two charts, and the sentences, which are also in the file."""
    page, shares = visitor.page, {name: curve["values"][-1] for name, curve in view["shares"].items()}
    assert set(shares) == set(NAMES) and set(view["explained"]) == {"unet", "te", "embeddings", "words"}
    assert view["explained"]["embeddings"] == view["explained"]["words"], "under its name of version 1, too"
    steps = next(iter(view["shares"].values()))["steps"]
    assert steps[-1] == view["max_steps"] and len(steps) > 1
    assert page.locator("#pivotal_rows table.pivotal-rows tbody tr").count() == 4
    assert page.locator("#pivotal_rows tbody img").count() >= 4
    charts = page.locator(".pivotal-chart-head b").all_inner_texts()
    assert "Separation: share in the embeddings" in charts and "What each part explains" in charts
    told = page.locator(".pivotal-outcome .pivotal-said").all_inner_texts()
    assert told == [*said_of_parts(shares), *said_of_shares(shares)]
    assert separation_shares(list_bundle(view["ended"]["bundle"]).metadata) == pytest.approx(shares, abs=1e-9)
    assert json.dumps(view, allow_nan=False)
