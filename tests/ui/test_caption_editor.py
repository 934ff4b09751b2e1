"""Changing captions on the page, without a browser: what is shown, what is on disk, and that typed text stays."""

from __future__ import annotations

import shutil

from lib_pivotal.ui.tab import build_tab
from tests.ui.browser import Browser


def _open(browser, key):
    browser.set("pivotal_caption_key", key)
    return browser.press("pivotal_caption_open")


def _is_update(value):
    return isinstance(value, dict) and "value" not in value and "visible" not in value


def test_open_type_and_save(browser, pictures):
    opened = _open(browser, "3.png")
    assert opened["pivotal_caption_box"]["visible"] and opened["pivotal_caption_text"] == "aoi, 1girl, blue hair, city"
    written, trained = opened["pivotal_caption_shown"].split("as trained")
    assert '<b class="pivotal-word"' in written and ">blue hair</s>" in written
    assert "data:image" in opened["pivotal_caption_picture"] and "4 of 9" in opened["pivotal_caption_title"]
    assert "blue hair" not in trained and "city" in trained
    browser.set("pivotal_caption_text", "hana, <i>rain</i>")
    typed = browser.press("pivotal_caption_text", "input")["pivotal_caption_shown"]
    assert ">hana</b>" in typed and "&lt;i&gt;rain" in typed
    assert (pictures / "3.txt").read_text() == "aoi, 1girl, blue hair, city"
    saved = browser.press("pivotal_caption_save")
    assert "Saved as" in saved["pivotal_caption_note"] and (pictures / "3.txt").read_text() == "hana, <i>rain</i>\n"
    assert "rain" in saved["pivotal_gallery"]
    assert not (pictures / "3.txt.bak").exists()
    browser.set("pivotal_gallery_filter", "rain")
    assert browser.press("pivotal_gallery_show")["pivotal_gallery"].count("<figure") == 1
    browser.set("pivotal_caption_text", "aoi, sun")
    browser.set("pivotal_caption_backup", True)
    assert browser.press("pivotal_caption_save")["pivotal_gallery"].count("<figure") == 0  # no longer in the filter
    assert (pictures / "3.txt.bak").read_text() == "hana, <i>rain</i>\n"


def test_typed_text_stays_until_it_is_saved_or_taken_back(browser, pictures):
    _open(browser, "3.png")
    browser.set("pivotal_caption_text", "typed")
    other = _open(browser, "4.png")
    assert "3.png: its caption has changes" in other["pivotal_caption_note"]
    assert _is_update(other["pivotal_caption_text"])
    assert _is_update(_open(browser, "3.png")["pivotal_caption_text"])
    assert "not saved" in browser.press("pivotal_caption_close")["pivotal_caption_note"]
    browser.press("pivotal_scan")
    (pictures / "3.txt").write_text("from elsewhere")
    assert "another program" in browser.press("pivotal_caption_save")["pivotal_caption_note"]
    assert (pictures / "3.txt").read_text() == "from elsewhere"
    assert browser.press("pivotal_caption_undo")["pivotal_caption_text"] == "from elsewhere"
    assert browser.press("pivotal_caption_close")["pivotal_caption_box"]["visible"] is False
    assert _open(browser, "4.png")["pivotal_caption_text"].startswith("aoi")


def test_a_picture_without_a_file_gets_one(browser, pictures):
    assert "no file yet" in _open(browser, "IMG_0001.png")["pivotal_caption_title"]
    browser.set("pivotal_caption_text", "hana, red")
    saved = browser.press("pivotal_caption_save")
    assert (pictures / "IMG_0001.txt").read_text() == "hana, red\n" and "red" in saved["pivotal_gallery"]


def test_a_picture_of_the_same_name_elsewhere_is_not_written(browser, pictures, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(pictures, other)
    _open(browser, "3.png")
    browser.set("pivotal_caption_text", "typed")
    browser.set("pivotal_data_folder", str(other))
    browser.press("pivotal_scan")
    assert "another folder" in browser.press("pivotal_caption_save")["pivotal_caption_note"]
    assert (other / "3.txt").read_text() == (pictures / "3.txt").read_text() == "aoi, 1girl, blue hair, city"


def test_what_goes_wrong_is_said(browser, manager):
    assert "no such picture" in _open(browser, "nowhere.png")["pivotal_caption_note"]
    fresh = Browser(build_tab(type(manager)(manager.backend)))
    assert "not scanned" in _open(fresh, "3.png")["pivotal_caption_note"]


def test_keys_go_through_the_pictures_of_the_filter(browser):
    browser.set("pivotal_gallery_filter", "word:hana")
    _open(browser, "5.png")
    assert 'data-open="6.png"' in browser.press("pivotal_caption_next")["pivotal_caption_title"]
    browser.press("pivotal_caption_next")
    assert 'data-open="5.png"' in browser.press("pivotal_caption_next")["pivotal_caption_title"]  # round
    shown = browser.press("pivotal_caption_previous")
    assert 'data-open="7.png"' in shown["pivotal_caption_title"] and shown["pivotal_caption_text"].endswith("sky")
    browser.set("pivotal_caption_text", "typed")
    assert "not saved" in browser.press("pivotal_caption_next")["pivotal_caption_note"]
    browser.press("pivotal_caption_undo")
    browser.set("pivotal_gallery_filter", "word:aoi")
    assert 'data-open="0.png"' in browser.press("pivotal_caption_next")["pivotal_caption_title"]
    browser.set("pivotal_gallery_filter", "nowhere")
    assert "no picture is in the filter" in browser.press("pivotal_caption_next")["pivotal_caption_note"]
