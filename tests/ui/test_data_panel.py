"""Scanning from the page: what was changed by hand stays, and the page says so."""

from __future__ import annotations

import json
from dataclasses import replace

from PIL import Image

from lib_pivotal.ui.embeddings_table import embeddings_json
from lib_pivotal.ui.tab import build_tab
from tests.ui.browser import Browser


def _add(pictures, name="kaze", count=3):
    for number in range(count):
        Image.new("RGB", (64, 64), "white").save(pictures / f"{name}{number}.png")
        (pictures / f"{name}{number}.txt").write_text(f"{name}, 1boy, brown hair, hill")


def test_a_second_scan_keeps_embeddings_and_settings_of_ones_own(browser, pictures):
    run = browser.run()
    browser.set("pivotal_words", embeddings_json([replace(run.embeddings[0], vectors=9), run.embeddings[1]]))
    browser.set("pivotal_schedule_max_steps", 777)
    _add(pictures)
    shown = browser.press("pivotal_scan")
    after = browser.run()
    assert [embedding.name for embedding in after.embeddings] == ["aoi", "hana", "kaze"] and after.embeddings[
        0
    ].vectors == 9
    assert after.schedule.max_steps == 777
    assert "Kept as they were changed by hand: aoi" in shown["pivotal_told"]
    assert "New embeddings in this scan: kaze" in shown["pivotal_told"]
    assert "settings are unchanged" in shown["pivotal_preset_help"]


def test_a_removed_embedding_stays_away_until_embeddings_are_proposed_anew(browser):
    browser.set("pivotal_words", embeddings_json(browser.run().embeddings[1:]))
    assert "you removed them: aoi" in browser.press("pivotal_scan")["pivotal_told"]
    assert [embedding.name for embedding in browser.run().embeddings] == ["hana"]
    browser.press("pivotal_anew")
    assert [embedding.name for embedding in browser.run().embeddings] == ["aoi", "hana"]


def test_another_folder_brings_its_own_embeddings(browser, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    _add(other, "umi", 4)
    browser.set("pivotal_data_folder", str(other))
    shown = browser.press("pivotal_scan")
    assert [embedding.name for embedding in browser.run().embeddings] == ["umi"] and "Kept" not in shown["pivotal_told"]


def test_settings_of_before_are_kept_by_a_scan(browser, manager, pictures):
    embeddings = [replace(browser.run().embeddings[0], init_text="mine"), browser.run().embeddings[1]]
    other = Browser(build_tab(manager))
    other.set("pivotal_data_folder", str(pictures))
    other.set("pivotal_words", embeddings_json(embeddings))
    other.press("pivotal_scan")
    assert other.run().embeddings[0].init_text == "mine"


def test_a_failed_scan_leaves_the_embeddings(browser):
    before = browser.run().embeddings
    browser.set("pivotal_data_folder", "nowhere")
    browser.press("pivotal_scan")
    assert browser.run().embeddings == before and json.loads(embeddings_json(before))
