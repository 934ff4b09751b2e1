"""Remedies, all of them at once, moves of tags, and the way back, as the page's buttons ask for them."""

from __future__ import annotations

import html
import json
import re

from PIL import Image

from lib_pivotal.ui.embeddings_table import embeddings_json


def _change(browser, asked):
    browser.set("pivotal_change", json.dumps(asked))
    return browser.press("pivotal_change_now")


def _remedies(shown):
    return [json.loads(html.unescape(text)) for text in re.findall('data-remedy="(.*?)"', shown["pivotal_findings"])]


def _move(browser, embedding, tag, to):
    browser.set("pivotal_tags_move", json.dumps({"word": embedding, "tag": tag, "to": to}))
    return browser.press("pivotal_tags_move_now")


def _labels(shown):
    several = re.findall("<li><span>(.*?)</span>", shown["pivotal_undo"])
    return several or re.findall("Undo: (.*?)<", shown["pivotal_undo"])


def test_a_remedy_is_undone_exactly(browser):
    browser.set("pivotal_schedule_max_steps", 50)
    before = browser.run()
    remedy = next(r for r in _remedies(browser.press("pivotal_check")) if r["arguments"].get("path"))
    shown = _change(browser, remedy)
    assert browser.run() != before and remedy["label"] in shown["pivotal_undo"]
    shown = _change(browser, {"undo": 1, "of": 1})
    assert browser.run() == before and shown["pivotal_undo"] == ""
    assert f"Taken back: {remedy['label']}" in shown["pivotal_told"]


def test_moves_and_remedies_are_one_list_and_go_back_to_any_of_them(browser):
    runs = [browser.run()]
    _move(browser, "aoi", "park", "absorbed")
    runs.append(browser.run())
    _move(browser, "hana", "sea", "absorbed")
    runs.append(browser.run())
    shown = _change(browser, {"id": "set", "label": "Longer", "arguments": {"path": "schedule.max_steps", "value": 77}})
    assert _labels(shown) == ["Longer", "hana: sea pruned", "aoi: park pruned"]
    browser.set("pivotal_schedule_batch_size", 3)
    shown = _change(browser, {"undo": 2, "of": 3})
    assert (
        browser.run().embeddings == runs[1].embeddings
        and browser.run().schedule.max_steps == runs[1].schedule.max_steps
    )
    assert browser.run().schedule.batch_size == 3, "what was changed by hand stays"
    assert _labels(shown) == ["aoi: park pruned"]
    _change(browser, {"undo": 1, "of": 1})
    assert browser.run().embeddings == runs[0].embeddings


def test_an_undo_that_comes_twice_is_done_once(browser):
    _move(browser, "aoi", "park", "absorbed")
    _move(browser, "aoi", "sea", "absorbed")
    for _ in range(2):
        shown = _change(browser, {"undo": 1, "of": 2})
    assert _labels(shown) == ["aoi: park pruned"] and browser.run().embeddings[0].prune_tags == ("park",)
    assert "no such change" in _change(browser, {"undo": 5, "of": 1})["pivotal_told"]


def test_proposing_anew_and_another_scan_can_be_undone(browser):
    embeddings = browser.run().embeddings
    browser.set("pivotal_words", embeddings_json([*embeddings[1:]]))
    browser.press("pivotal_anew")
    assert len(browser.run().embeddings) == 2
    _change(browser, {"undo": 1, "of": 1})
    assert browser.run().embeddings == embeddings[1:]


def test_another_folder_begins_the_list_anew(browser, tmp_path):
    _move(browser, "aoi", "park", "absorbed")
    other = tmp_path / "other"
    other.mkdir()
    Image.new("RGB", (64, 64), "white").save(other / "a.png")
    browser.set("pivotal_data_folder", str(other))
    assert browser.press("pivotal_scan")["pivotal_undo"] == ""


def test_mending_all_leaves_no_warning_that_has_a_remedy(browser, pictures):
    noise = Image.effect_noise((64, 64), 90).convert("RGB")
    for name in ("aoi-x", "aoi-y"):
        noise.save(pictures / f"{name}.png")
        (pictures / f"{name}.txt").write_text("aoi, 1girl, blue hair, room")
    browser.press("pivotal_scan")
    browser.set("pivotal_schedule_max_steps", 50)
    assert "data-mend" in browser.press("pivotal_check")["pivotal_findings"]
    before = browser.run()
    shown = _change(browser, {"mend": True})
    assert browser.run().data.duplicates != "keep" and "Done: " in shown["pivotal_told"]
    assert "10 pictures" in shown["pivotal_summary"], "the folder was looked at again: one of two doubles is left out"
    warned = re.findall('<li class="(?:warning|error)".*?</li>', shown["pivotal_findings"])
    assert not [line for line in warned if "data-remedy" in line]
    shown = _change(browser, {"undo": 1, "of": 1})
    assert browser.run() == before and "11 pictures" in shown["pivotal_summary"]
    _change(browser, {"mend": True})
    assert "no warning is left" in _change(browser, {"mend": True})["pivotal_told"]


def test_a_setting_that_asks_for_another_scan_gets_one(browser, pictures):
    for name in ("aoi-x", "aoi-y"):
        Image.new("RGB", (64, 64), "white").save(pictures / f"{name}.png")
        (pictures / f"{name}.txt").write_text("aoi, 1girl")
    shown = browser.press("pivotal_scan")
    scan = re.search('data-scan="(.*?)"', shown["pivotal_summary"])[1]
    assert "11 pictures" in shown["pivotal_summary"]
    browser.set("pivotal_data_duplicates", "skip")
    shown = browser.press("pivotal_check")["pivotal_summary"]
    assert "10 pictures" in shown and re.search('data-scan="(.*?)"', shown)[1] != scan
