"""Reports of files that hold every key of a trainer's table, word for word (tests/golden/make_imports.py)."""

import json

import pytest

from tests.golden.make_imports import GOLDEN, imported

CASES = json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", CASES)
def test_a_report_is_as_it_was(name):
    case = dict(CASES[name])
    found = json.loads(json.dumps(imported(name, case.pop("text"))))
    assert found["run"] == case["run"]
    assert found["lines"] == case["lines"]
    assert found == case
