"""Modules that are imported when they are first used."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest

from lib_pivotal.later import later


def test_nothing_is_imported_before_a_name_is_asked_for() -> None:
    code = (
        "import sys; from lib_pivotal.later import later; module = later('colorsys'); "
        "print('colorsys' in sys.modules, module.rgb_to_hsv(0, 0, 1), 'colorsys' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.split() == ["False", "(0.6666666666666666,", "1.0,", "1)", "True"]


def test_a_name_that_is_replaced_in_the_module_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    import colorsys

    module = later("colorsys")
    assert module.rgb_to_hsv is colorsys.rgb_to_hsv
    monkeypatch.setattr(colorsys, "rgb_to_hsv", 7)
    assert module.rgb_to_hsv == 7


def test_what_is_not_there_is_said_as_by_the_module() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = later("colorsys").nothing
    with pytest.raises(ModuleNotFoundError):
        _ = later("colorsys_of_nobody").anything


def test_a_copy_imports_nothing() -> None:
    assert copy.copy(later("no.such.module")) is not None
    assert not hasattr(later("no.such.module"), "__wrapped__")


PAGE_NEEDS_AT_MOST = 40
"""Modules of ours that building the page imports: each costs the web UI's start some milliseconds."""


def test_the_page_imports_little() -> None:
    code = (
        "import sys, lib_pivotal.ui.tab; found = [n for n in sys.modules if n.startswith('lib_pivotal.')]; "
        "print(len(found)); print('\\n'.join(found))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert int(found[0]) <= PAGE_NEEDS_AT_MOST, found[1:]
    assert "lib_pivotal.data.dataset" not in found and "lib_pivotal.training.loop" not in found
