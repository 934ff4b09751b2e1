"""The tags of a word on the page: what is shown, and that one click moves a tag."""

from __future__ import annotations

import json
import re


def _show(browser, **view):
    browser.set("pivotal_tags_view", json.dumps(view))
    return browser.press("pivotal_tags_show")


def _row(html, tag):
    return re.search(f'<tr data-tag="{tag}".*?</tr>', html)[0]


def _move(browser, tag, to, embedding="aoi"):
    browser.set("pivotal_tags_move", json.dumps({"word": embedding, "tag": tag, "to": to}))
    return browser.press("pivotal_tags_move_now")


def test_a_embedding_has_its_tags_with_share_lift_and_fate(browser):
    shown = _show(browser, embedding="hana")
    assert shown["pivotal_tags_box"]["visible"]
    row = _row(shown["pivotal_tags"], "green hair")
    assert ">3<" in row and "100%" in row and "×3.0" in row and re.search('data-fate="init"[^>]*class="on"', row)
    assert "as trained" in shown["pivotal_tags"] and shown["pivotal_tags"].count("data-thumb") == 3


def test_one_click_moves_a_tag_and_the_captions_follow(browser):
    before = _show(browser, embedding="aoi")["pivotal_tags"].split("as trained")[1]
    assert "<s class" in before
    moved = _move(browser, "blue hair", "kept")
    assert (
        browser.run().embeddings[0].keep == ("blue hair",) and "blue hair" not in browser.run().embeddings[0].init_text
    )
    row = _row(moved["pivotal_tags"], "blue hair")
    assert re.search('data-fate="kept"[^>]*class="on"', row) and 'data-fate="rule"' in row
    assert '<s class="init"' not in moved["pivotal_tags"].split("as trained")[1]
    _move(browser, "park", "absorbed")
    assert browser.run().embeddings[0].absorb == ("park",)
    assert 'class="absorbed' in _row(_move(browser, "blue hair", "rule")["pivotal_tags"], "blue hair")
    assert 'value="park"' in browser.press("pivotal_tags_move_now")["pivotal_words_table"]


def test_what_cannot_be_moved_is_said_and_changes_nothing(browser):
    embeddings = browser.run().embeddings
    assert "no such tag" in _move(browser, "unheard", "kept")["pivotal_tags"]
    assert "no such embedding" in _move(browser, "park", "kept", embedding="nobody")["pivotal_tags"]
    assert "no such tag" in _move(browser, "park", "eaten")["pivotal_tags"]
    assert browser.run().embeddings == embeddings


def test_pages_rare_tags_and_nonsense(browser, pictures):
    (pictures / "0.txt").write_text("aoi, " + ", ".join(f"thing {n}" for n in range(40)))
    browser.press("pivotal_scan")
    few = _show(browser, embedding="aoi")["pivotal_tags"]
    every = _show(browser, embedding="aoi", all=True)["pivotal_tags"]
    assert few.count("data-tag=") < every.count("data-tag=") and "rarer" in few and "fewer" in every
    assert "1-5 of 5" in _show(browser, embedding="aoi", page=9)["pivotal_tags"]
    browser.set("pivotal_tags_view", "nonsense")
    assert browser.press("pivotal_tags_show")["pivotal_tags_box"]["visible"]


def test_a_embedding_without_pictures_has_no_tags(browser):
    browser.press("pivotal_add_word")
    name = browser.run().embeddings[-1].name
    assert f"No picture has {name}" in _show(browser, embedding=name)["pivotal_tags"]
