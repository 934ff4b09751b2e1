"""The plan on the page: drawn with every check, and a remedy by one click."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest

from examples.avatars.make import make_dataset
from lib_pivotal.data.dataset import scan
from lib_pivotal.data.lint import Length
from lib_pivotal.data.lint_warnings import Fix, LintWarning
from lib_pivotal.data.records import Dataset, Picture
from lib_pivotal.data.tokens import TokenCounter
from lib_pivotal.runs.plan import BucketPlan, EmbeddingPlan, PicturePlan, RunPlan
from lib_pivotal.ui.plan_panel import FIRST, MOST_ITEMS, MOST_SIZES, THUMBS, plan_html, summary, warnings_html
from lib_pivotal.ui.tab import build_tab
from tests.ui.browser import Browser


def _remedies(shown):
    return [json.loads(html.unescape(text)) for text in re.findall('data-remedy="(.*?)"', shown["pivotal_findings"])]


def _mend(browser, remedy):
    browser.set("pivotal_change", json.dumps(remedy))
    return browser.press("pivotal_change_now")


def test_the_plan_follows_steps_batch_and_embeddings(browser):
    browser.set("pivotal_schedule_max_steps", 300)
    browser.set("pivotal_schedule_embeddings_only_share", 0)
    shown = browser.press("pivotal_check")
    batch = browser.run().schedule.batch_size
    assert f"<b>{300 * batch:,} samples</b>".replace(",", " ") in shown["pivotal_plan"]
    browser.set("pivotal_schedule_batch_size", 1)
    plan = browser.press("pivotal_check")["pivotal_plan"]
    assert "<b>300 samples</b>" in plan and 'class="row low"' in plan and "64×64" in plan
    embeddings = [{"name": embedding.name, "vectors": 40} for embedding in browser.run().embeddings]
    before = re.search(r"longest (\d+) tokens", plan)[1]
    browser.set("pivotal_words", json.dumps(embeddings))
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


ONE = Fix("set", "Keep one", {"path": "data.duplicates", "value": "skip_near"})


def _dataset(*keys: str) -> Dataset:
    pictures = tuple(Picture(key, Path("nowhere") / key, "aoi", 64, 64, "aoi") for key in keys)
    return Dataset(Path("d"), pictures, {"aoi": keys}, ())


def _doubles(count: int) -> list[LintWarning]:
    return [LintWarning("near_double", "warning", f"pair {n}", (f"{n}a", f"{n}b"), (), (ONE,)) for n in range(count)]


def test_one_line_a_kind_with_its_pictures_folded_below() -> None:
    keys = [f"{n}{side}" for n in range(14) for side in "ab"]
    shown = warnings_html(_doubles(14), _dataset(*keys))
    assert shown.count('<li class="warning"') == 1 and shown.count("<summary>") == 1
    assert shown.count("data-remedy") == 1, "one remedy mends all; it does not stand at each"
    assert 'data-show="near_double"' in shown and "show 28" in shown
    assert [key for key in keys if f'data-caption="{key}"' not in shown] == []
    assert all(f'data-show="{n}"' in shown for n in range(1, 15))


def test_kinds_beyond_the_first_are_folded_and_pictures_beyond_a_few_counted() -> None:
    many = [LintWarning(f"kind_{n}", "info", f"text {n}") for n in range(FIRST + 2)]
    assert "<summary>2 more</summary>" in warnings_html(many, _dataset())
    keys = tuple(str(n) for n in range(THUMBS + 3))
    strip = warnings_html([LintWarning("tokens", "info", "long", keys)], _dataset(*keys))
    assert strip.count("<img") == THUMBS and "<small>+3</small>" in strip


def test_files_that_are_no_pictures_have_no_thumbnail_and_no_filter() -> None:
    shown = warnings_html([LintWarning("unreadable", "error", "broken", ("broken.png",))], _dataset("a.png"))
    assert "<img" not in shown and "data-show" not in shown and "<details" not in shown


def test_so_many_of_a_kind_are_listed_and_no_more() -> None:
    shown = warnings_html([LintWarning("unreadable", "error", f"file {n}") for n in range(MOST_ITEMS + 5)], _dataset())
    assert "file 59" in shown and f"file {MOST_ITEMS}<" not in shown and "5 more; the command line" in shown


def test_mend_all_is_offered_for_several_remedies_of_warnings_only() -> None:
    other = Fix("set", "Train 900 steps", {"path": "schedule.max_steps", "value": 900})
    few = LintWarning("few_draws", "warning", "few", (), (), (other,))
    assert "data-mend" not in warnings_html([*_doubles(3)], _dataset())
    assert "Fix all 2" in warnings_html([*_doubles(3), few], _dataset())
    told = LintWarning("few_draws", "info", "few", (), (), (other,))
    assert "data-mend" not in warnings_html([*_doubles(3), told], _dataset())


def test_texts_cannot_leave_their_places() -> None:
    evil = '"><script>x</script>'
    warning = LintWarning("tokens", "info", evil, (evil,), (), (Fix("set", evil, {"path": evil}),))
    shown = warnings_html([warning, warning], _dataset(evil))
    assert "<script" not in shown and not re.search(r'data-remedy="[^"]*">(?!&quot;)<', shown)


def _plan(embeddings=(), buckets=(), tokens=(10, 80)) -> RunPlan:
    lengths = [Length(f"{n}.png", "", count, TokenCounter({})) for n, count in enumerate(tokens)]
    pictures = tuple(PicturePlan(one.key, 1.0, (), 64, 64, 0.0, False, False, one, "") for one in lengths)
    return RunPlan("f", 1000, 4, 2, 8000, 2.0, tuple(embeddings), pictures, tuple(buckets), (), False)


def _embedding(name: str, draws: float, pictures: int = 3) -> EmbeddingPlan:
    return EmbeddingPlan(name, pictures, draws, 0.5, False, 4, "", ())


def test_bars_are_in_proportion_and_the_advised_line_is_in_sight() -> None:
    shown = plan_html(_plan([_embedding("aoi", 2000), _embedding("hana", 200), _embedding("none", 0, 0)]), max_tokens=0)
    assert [float(w) for w in re.findall(r'<b style="width:([\d.]+)%', shown)] == [100.0, 10.0, 0.0]
    assert shown.count("left:40.00%") == 4  # three rows and the axis
    assert re.findall('class="row (\\w+)"', shown) == ["ok", "low", "none"]
    few = plan_html(_plan([_embedding("aoi", 10)]), max_tokens=0)
    assert "left:80.00%" in few


def test_sizes_have_their_shape_count_and_cut() -> None:
    buckets = [BucketPlan(640, 320, 30, 1.0, 0.12, 0.3), BucketPlan(512, 512, 10, 1.0, 0.0, 0.0)]
    shown = plan_html(_plan(buckets=buckets), max_tokens=0)
    assert "width:46px;height:23px" in shown and "width:37px;height:37px" in shown
    assert "12% cut" in shown and "uncut" in shown and "30.0% at most" in shown
    many = [BucketPlan(64 * n, 64, 2, 1.0, 0.0, 0.0) for n in range(1, MOST_SIZES + 4)]
    assert "3 more sizes, 6 pictures" in plan_html(_plan(buckets=many), max_tokens=0)


def test_lengths_over_the_limit_are_counted() -> None:
    assert "longest 80 tokens (estimated), 1 over 75" in plan_html(_plan(), max_tokens=0)
    assert "all within 90" in plan_html(_plan(), max_tokens=90)


def test_nothing_and_nonsense() -> None:
    assert "No embeddings yet" in plan_html(_plan(tokens=()), max_tokens=0)
    assert "<script>" not in plan_html(_plan([_embedding("<script>", 5)]), max_tokens=0)


def test_the_line_tells_the_layout_with_its_parts(tmp_path):
    make_dataset(tmp_path / "kgrid", layout="kgrid", embeddings=5, pictures=4)
    line = summary(scan(tmp_path / "kgrid"), 5, 0)
    assert "read as kgrid&#x27;s tree" in line and line.endswith(": 5 concepts, 2 image types</div>")
