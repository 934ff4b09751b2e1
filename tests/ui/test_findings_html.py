"""What there is to look at, as HTML: grouped, folded, with pictures, and every text safe."""

from __future__ import annotations

import re
from pathlib import Path

from lib_pivotal.data.findings import Finding, Remedy
from lib_pivotal.data.records import Dataset, Picture
from lib_pivotal.ui.findings_html import FIRST, MOST_ITEMS, THUMBS, findings_html

ONE = Remedy("set", "Keep one", {"path": "data.duplicates", "value": "skip_near"})


def _dataset(*keys: str) -> Dataset:
    pictures = tuple(Picture(key, Path("nowhere") / key, "aoi", 64, 64, "aoi") for key in keys)
    return Dataset(Path("d"), pictures, {"aoi": keys}, ())


def _doubles(count: int) -> list[Finding]:
    return [Finding("near_double", "warning", f"pair {n}", (f"{n}a", f"{n}b"), (), (ONE,)) for n in range(count)]


def test_one_line_a_kind_with_its_pictures_folded_below() -> None:
    keys = [f"{n}{side}" for n in range(14) for side in "ab"]
    shown = findings_html(_doubles(14), _dataset(*keys))
    assert shown.count('<li class="warning"') == 1 and shown.count("<summary>") == 1
    assert shown.count("data-remedy") == 1, "one remedy mends all; it does not stand at each"
    assert 'data-show="near_double"' in shown and "show 28" in shown
    assert [key for key in keys if f'data-caption="{key}"' not in shown] == []
    assert all(f'data-show="{n}"' in shown for n in range(1, 15))


def test_kinds_beyond_the_first_are_folded_and_pictures_beyond_a_few_counted() -> None:
    many = [Finding(f"kind_{n}", "info", f"text {n}") for n in range(FIRST + 2)]
    assert "<summary>2 more</summary>" in findings_html(many, _dataset())
    keys = tuple(str(n) for n in range(THUMBS + 3))
    strip = findings_html([Finding("tokens", "info", "long", keys)], _dataset(*keys))
    assert strip.count("<img") == THUMBS and "<small>+3</small>" in strip


def test_files_that_are_no_pictures_have_no_thumbnail_and_no_filter() -> None:
    shown = findings_html([Finding("unreadable", "error", "broken", ("broken.png",))], _dataset("a.png"))
    assert "<img" not in shown and "data-show" not in shown and "<details" not in shown


def test_so_many_of_a_kind_are_listed_and_no_more() -> None:
    shown = findings_html([Finding("unreadable", "error", f"file {n}") for n in range(MOST_ITEMS + 5)], _dataset())
    assert "file 59" in shown and f"file {MOST_ITEMS}<" not in shown and "5 more; the command line" in shown


def test_mend_all_is_offered_for_several_remedies_of_warnings_only() -> None:
    other = Remedy("set", "Train 900 steps", {"path": "schedule.max_steps", "value": 900})
    few = Finding("few_draws", "warning", "few", (), (), (other,))
    assert "data-mend" not in findings_html([*_doubles(3)], _dataset())
    assert "Fix all 2" in findings_html([*_doubles(3), few], _dataset())
    told = Finding("few_draws", "info", "few", (), (), (other,))
    assert "data-mend" not in findings_html([*_doubles(3), told], _dataset())


def test_texts_cannot_leave_their_places() -> None:
    evil = '"><script>x</script>'
    finding = Finding("tokens", "info", evil, (evil,), (), (Remedy("set", evil, {"path": evil}),))
    shown = findings_html([finding, finding], _dataset(evil))
    assert "<script" not in shown and not re.search(r'data-remedy="[^"]*">(?!&quot;)<', shown)
