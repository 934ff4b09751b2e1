"""Painting masks on the page, without a browser: what the editor would send, and what is on disk after."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image, ImageDraw

from lib_pivotal.data.dataset import scan
from lib_pivotal.ui.tab import build_tab
from tests.ui.browser import Browser, element


def _uri(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _painted(box, size=(64, 64)):
    """As gradio's sketch sends it: the picture, and white strokes on black."""
    strokes = Image.new("RGB", size, 0)
    ImageDraw.Draw(strokes).rectangle(box, fill="white")
    return {"image": _uri(Image.new("RGB", size, "red")), "mask": _uri(strokes)}


def _grey(pictures, key):
    return np.asarray(Image.open(scan(pictures)[key].mask_path))


def test_open_paint_add_and_remove(browser, pictures):
    browser.set("pivotal_mask_key", "3.png")
    opened = browser.press("pivotal_mask_open")
    assert opened["pivotal_mask_box"]["visible"] and "3.png" in opened["pivotal_mask_title"]
    assert opened["pivotal_mask_editor"] and opened["pivotal_mask_shown"] is None
    browser.set("pivotal_mask_editor", _painted((0, 0, 31, 63)))
    browser.set("pivotal_mask_rest", 0.2)
    saved = browser.press("pivotal_mask_save")
    assert "Saved as" in saved["pivotal_mask_note"] and saved["pivotal_mask_shown"]
    assert _grey(pictures, "3.png")[5, [5, 60]].tolist() == [255, 51]
    browser.set("pivotal_mask_editor", _painted((50, 0, 63, 63)))
    browser.set("pivotal_mask_weight", 0.5)
    browser.press("pivotal_mask_save")  # adds to what is there
    assert _grey(pictures, "3.png")[5, [5, 40, 60]].tolist() == [255, 51, 128]
    browser.press("pivotal_mask_new")
    assert _grey(pictures, "3.png")[5, [5, 40, 60]].tolist() == [51, 51, 128]
    gone = browser.press("pivotal_mask_gone")
    assert "The mask is gone" in gone["pivotal_mask_note"] and gone["pivotal_mask_shown"] is None
    assert scan(pictures)["3.png"].mask_path is None
    assert "no painted mask" in browser.press("pivotal_mask_gone")["pivotal_mask_note"]


def test_what_goes_wrong_is_said(browser, pictures):
    browser.set("pivotal_mask_key", "nowhere.png")
    assert "no such picture" in browser.press("pivotal_mask_open")["pivotal_mask_note"]
    browser.set("pivotal_mask_key", "3.png")
    browser.press("pivotal_mask_open")
    browser.set("pivotal_mask_editor", None)
    assert "nothing is painted" in browser.press("pivotal_mask_save")["pivotal_mask_note"]
    (pictures / "4.png").write_bytes(b"no picture")
    browser.set("pivotal_mask_key", "4.png")
    assert "cannot be read" in browser.press("pivotal_mask_open")["pivotal_mask_note"]
    assert not (pictures / "mask").exists()


def test_before_a_scan(manager):
    browser = Browser(build_tab(manager))
    assert "not scanned" in browser.press("pivotal_mask_open")["pivotal_mask_note"]
    assert not element(browser.blocks, "pivotal_mask_box").visible
