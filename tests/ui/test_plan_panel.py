"""The plan on the page: drawn with every check, and a remedy by one click."""

from __future__ import annotations

import html
import json
import re

import pytest

from lib_pivotal.ui.tab import build_tab
from tests.ui.browser import Browser


def _remedies(shown):
    return [json.loads(html.unescape(text)) for text in re.findall('data-remedy="(.*?)"', shown["pivotal_findings"])]


def _mend(browser, remedy):
    browser.set("pivotal_change", json.dumps(remedy))
    return browser.press("pivotal_change_now")


def test_the_plan_follows_steps_batch_and_words(browser):
    browser.set("pivotal_schedule_max_steps", 300)
    shown = browser.press("pivotal_check")
    batch = browser.run().schedule.batch_size
    assert f"<b>{300 * batch:,} samples</b>".replace(",", " ") in shown["pivotal_plan"]
    browser.set("pivotal_schedule_batch_size", 1)
    plan = browser.press("pivotal_check")["pivotal_plan"]
    assert "<b>300 samples</b>" in plan and 'class="row low"' in plan and "64×64" in plan
    words = [{"name": word.name, "vectors": 40} for word in browser.run().words]
    before = re.search(r"longest (\d+) tokens", plan)[1]
    browser.set("pivotal_words", json.dumps(words))
    after = re.search(r"longest (\d+) tokens", browser.press("pivotal_check")["pivotal_plan"])[1]
    assert int(after) > int(before) + 20


def test_a_remedy_changes_the_settings_and_the_finding_goes(browser):
    browser.set("pivotal_schedule_max_steps", 50)
    shown = browser.press("pivotal_check")
    remedy = next(one for one in _remedies(shown) if one["arguments"].get("path") == "schedule.max_steps")
    mended = _mend(browser, remedy)
    assert browser.run().schedule.max_steps == remedy["arguments"]["value"]
    assert f"Done: {remedy['label']}" in mended["pivotal_told"]
    assert remedy["label"] not in browser.press("pivotal_check")["pivotal_findings"]


@pytest.mark.parametrize("asked", ["nonsense", "{}", '{"id": "rm"}', '{"id": "set", "arguments": {"path": "seed"}}'])
def test_a_remedy_that_is_none_is_said_and_changes_nothing(browser, asked):
    before = browser.run()
    browser.set("pivotal_change", asked)
    assert 'class="error"' in browser.press("pivotal_change_now")["pivotal_told"]
    assert browser.run() == before


def test_settings_that_give_no_plan_are_said(browser):
    browser.set("pivotal_data_resolution_px", 64)
    browser.set("pivotal_data_bucket_step_px", 128)
    assert "No plan" in browser.press("pivotal_check")["pivotal_plan"]
    browser.set("pivotal_data_bucket_step_px", 64)
    assert "samples" in browser.press("pivotal_check")["pivotal_plan"]


def test_without_a_scan_there_is_no_plan(manager):
    shown = Browser(build_tab(manager)).press("pivotal_check")
    assert shown["pivotal_plan"] == "" and shown["pivotal_plan_box"]["visible"] is False
