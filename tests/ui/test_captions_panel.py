"""Captions written from the page: only after a preview and a confirmation, and back again."""

from __future__ import annotations

from lib_pivotal.ui.tab import build_tab
from tests.ui.browser import Browser


def _contents(pictures):
    return {path.name: path.read_bytes() for path in pictures.glob("*.txt")}


def test_preview_confirm_and_back(browser, pictures):
    before, embeddings = _contents(pictures), browser.run().embeddings
    shown = browser.press("pivotal_writing_look")
    assert (
        "aoi, 1girl, blue hair, park" in shown["pivotal_writing_shown"]
        and "would hold" in shown["pivotal_writing_shown"]
    )
    assert shown["pivotal_writing_box"]["visible"] and "Write 8 files" in shown["pivotal_writing_write"]["value"]
    assert _contents(pictures) == before
    written = browser.press("pivotal_writing_write")
    assert "8 caption files written" in written["pivotal_writing_note"]
    assert (pictures / "0.txt").read_text() == "aoi, 1girl, park\n"
    assert "blue hair" not in written["pivotal_gallery"] and browser.run().embeddings == embeddings
    browser.press("pivotal_scan")
    assert browser.run().embeddings == embeddings  # though a scan would propose others now
    back = browser.press("pivotal_writing_back")
    assert "8 caption files as before" in back["pivotal_writing_note"] and _contents(pictures) == before
    assert "nothing to take back" in browser.press("pivotal_writing_back")["pivotal_writing_note"]


def test_nothing_is_written_without_the_same_preview(browser, pictures):
    before = _contents(pictures)
    assert "Show what would change again" in browser.press("pivotal_writing_write")["pivotal_writing_note"]
    browser.press("pivotal_writing_look")
    browser.press("pivotal_writing_cancel")
    assert "again" in browser.press("pivotal_writing_write")["pivotal_writing_note"]
    browser.press("pivotal_writing_look")
    browser.set("pivotal_data_prune_mode", "none")
    assert "again" in browser.press("pivotal_writing_write")["pivotal_writing_note"]
    assert _contents(pictures) == before


def test_where_nothing_changes_there_is_nothing_to_confirm(browser, manager):
    browser.set("pivotal_data_prune_mode", "none")
    shown = browser.press("pivotal_writing_look")
    assert "already" in shown["pivotal_writing_shown"] and not shown["pivotal_writing_box"]["visible"]
    fresh = Browser(build_tab(type(manager)(manager.backend)))
    assert "not scanned" in fresh.press("pivotal_writing_look")["pivotal_writing_note"]


def test_a_file_changed_meanwhile_is_named_and_left(browser, pictures):
    browser.press("pivotal_writing_look")
    browser.press("pivotal_writing_write")
    (pictures / "0.txt").write_text("mine")
    back = browser.press("pivotal_writing_back")["pivotal_writing_note"]
    assert "0.txt: another program" in back and (pictures / "0.txt").read_text() == "mine"
