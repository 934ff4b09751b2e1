"""Filters, pages and thumbnails as the browser asks for them."""

from __future__ import annotations

import html
import json
import re

from PIL import Image

from lib_pivotal.ui import gallery_panel


def _show(browser, query, page="0"):
    browser.set("pivotal_gallery_filter", query)
    browser.set("pivotal_gallery_page", page)
    return browser.press("pivotal_gallery_show")


def _thumbs(browser, keys):
    browser.set("pivotal_thumbs_wanted", json.dumps(keys))
    answer = browser.press("pivotal_thumbs_get")["pivotal_thumbs_given"]
    return json.loads(html.unescape(re.search('data-json="(.*)"', answer)[1]))


def test_filters_show_pictures_and_counts(browser):
    shown = _show(browser, "word:hana, -tag:sky")
    assert shown["pivotal_gallery"].count("<figure") == 2
    filters = shown["pivotal_filters"]
    assert "<b>2</b> of 9 pictures" in filters
    assert re.search('chosen" data-part="word:hana"[^>]*>hana <small>2<', filters)
    assert re.search('without" data-part="tag:sky"', filters) or "tag:sky" not in filters
    assert 'data-part="tag:park"' in filters and 'data-part="tag:1girl"' not in filters  # all have it: no filter


def test_pictures_without_embeddings_and_problems_are_filters(browser):
    shown = _show(browser, "word:none")
    assert shown["pivotal_gallery"].count("<figure") == 1 and "IMG_0001.png" in shown["pivotal_gallery"]
    name = re.search('data-part="problem:([a-z_]+)"', shown["pivotal_filters"])[1]
    assert "IMG_0001.png" in _show(browser, f"problem:{name}")["pivotal_gallery"]
    by_number = _show(browser, f"problem:{next(n for n in range(1, 9) if _is_about(browser, n, 'IMG_0001.png'))}")
    assert by_number["pivotal_gallery"].count("<figure") == 1
    assert 'chosen" data-part="problem:' in by_number["pivotal_filters"]


def _is_about(browser, number, name):
    shown = _show(browser, f"problem:{number}")["pivotal_gallery"]
    return shown.count("<figure") == 1 and name in shown


def test_pages(browser, monkeypatch):
    monkeypatch.setattr(gallery_panel, "PAGE", 4)
    first = _show(browser, "")["pivotal_gallery"]
    assert first.count("<figure") == 4 and "1-4 of 9" in first and 'data-page="2"' in first
    assert _show(browser, "", "2")["pivotal_gallery"].count("<figure") == 1
    assert "9-9 of 9" in _show(browser, "", "77")["pivotal_gallery"]
    assert "1-4 of 9" in _show(browser, "", "no number")["pivotal_gallery"]


def test_thumbnails_come_when_they_are_asked_for(browser, pictures):
    assert "data:image" not in _show(browser, "")["pivotal_gallery"]
    (pictures / "1.png").write_bytes(b"gone bad")
    found = _thumbs(browser, ["0.png", "1.png", "unheard.png", 7])
    assert found["0.png"].startswith("data:image/") and found["1.png"] == found["unheard.png"] == ""
    assert set(found) == {"0.png", "1.png", "unheard.png"}
    browser.set("pivotal_thumbs_wanted", "no list")
    browser.press("pivotal_thumbs_get")


def test_a_picture_that_changed_has_another_stamp(browser, pictures):
    before = _show(browser, "0.png")["pivotal_gallery"]
    Image.new("RGB", (80, 64), "blue").save(pictures / "0.png")
    assert re.search('data-stamp="(.*?)"', before)[1] not in _show(browser, "0.png")["pivotal_gallery"]


def test_embeddings_given_by_the_folder_and_tags_taken_over_are_marked(browser):
    embeddings = browser.run().embeddings
    changed = [{"name": w.name, "prune": True, "init_text": "blue hair"} for w in embeddings]
    changed[1]["applies_to"] = ["IMG_*"]
    browser.set("pivotal_words", json.dumps(changed))
    gallery = _show(browser, "")["pivotal_gallery"]
    assert 'pivotal-word added"' in gallery and '<s class="init"' in gallery and '<s class="absorbed"' in gallery
