"""Everything that can be pressed or filled in says what it does: a tooltip, or a line under its label."""

from __future__ import annotations

from typing import Any

import pytest

from lib_pivotal.runs.manager import RunManager
from lib_pivotal.ui.form import PREFIX
from lib_pivotal.ui.tab import build_tab
from lib_pivotal.ui.tooltips import TOOLTIPS, tooltips
from tests.ui.conftest import EmptyBackend

USED = frozenset("button uploadbutton textbox number dropdown slider checkbox checkboxgroup radio image file".split())


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What people use, by id."""
    page = build_tab(RunManager(EmptyBackend(tmp_path_factory.mktemp("page") / "process")))
    return {
        block.elem_id: block
        for block in page.blocks.values()
        if block.get_block_name() in USED and "pivotal-hidden" not in (block.elem_classes or ())
    }


def test_each_element_says_what_it_does(used: dict[str, Any]) -> None:
    assert len(used) > 150
    silent = {key for key, block in used.items() if not (getattr(block, "info", None) or tooltips().get(key))}
    assert not silent


def test_nothing_says_it_twice_and_nothing_is_said_of_what_is_not_there(used: dict[str, Any]) -> None:
    mine = {PREFIX + name for name in TOOLTIPS}
    assert mine <= used.keys()
    assert not {key for key in mine if getattr(used[key], "info", None)}


def test_texts_are_sentences_that_fit() -> None:
    for name, text in TOOLTIPS.items():
        assert text[0].isupper() and len(text) <= 200 and text == text.strip(), name
