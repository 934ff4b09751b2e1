"""Lists that wildcards and templates draw from."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib_pivotal.data.word_lists import parse_lists, read_lists
from lib_pivotal.errors import DataError


def test_lines() -> None:
    assert parse_lists(["who = girl | old woman", "none=|x"]) == {"who": ("girl", "old woman"), "none": ("", "x")}
    with pytest.raises(DataError, match="name = first"):
        parse_lists(["girl"])


def test_files(tmp_path: Path) -> None:
    (tmp_path / "hair").mkdir()
    (tmp_path / "hair" / "colour.txt").write_text("# colours\nred\n\n blue \n", encoding="utf-8")
    (tmp_path / "empty.txt").write_text("", encoding="utf-8")
    assert read_lists(tmp_path) == {"hair/colour": ("red", "blue")}
    with pytest.raises(DataError, match="is not a folder"):
        read_lists(tmp_path / "none")
