"""Tables of what held, and their place in a document."""

import json

import pytest

from tests.faults.hostile import Count
from tests.faults.table import faults_table, hostile_table, put, read_lines

HELD = {"ended": True, "kept": True, "same": None, "weights": True, "picture": True, "inside": True}


def row(number, kind="kill -9", backend="standalone", **held):
    return {"number": number, "kind": kind, "backend": backend, "held": {**HELD, **held}, "why": [], "seconds": 1.0}


def test_what_did_not_hold_stands_out():
    table = faults_table([row(0), row(1, kept=False), row(2, "EIO", same=True)])
    assert "| kill -9 | 2 | 2 | **1 of 2** | - | 2 | 2 | 2 |" in table
    assert "| EIO | 1 | 1 | 1 | 1 | 1 | 1 | 1 |" in table
    assert "| **all** | 3 | 3 | **2 of 3** | 1 | 3 | 3 | 3 |" in table


def test_backends_are_told_apart_where_there_are_two():
    assert "| EIO (standalone) |" in faults_table([row(0, "EIO"), row(1, "EIO", "web UI")])


def test_hostile_files():
    table = hostile_table({"bundles": Count(10, 3, 1.2, 0.5), "states": Count(10, 0, 0.1, 0.1)}, {"states": 2})
    assert "| bundles | 10 | 3 | 0 | 1 | 0.50 |" in table and "| states | 10 | 0 | 2 | 0 | 0.10 |" in table
    assert "| **all** | 20 | 3 | 2 | 1 | 0.50 |" in table


def test_the_rest_of_a_document_stays(tmp_path):
    document = tmp_path / "x.md"
    document.write_text("before\n<!-- faults:begin -->\nold\n<!-- faults:end -->\nafter\n")
    put(document, "faults", "new")
    assert document.read_text() == "before\n<!-- faults:begin -->\nnew\n<!-- faults:end -->\nafter\n"
    with pytest.raises(ValueError, match="hostile"):
        put(document, "hostile", "new")


def test_of_a_trial_that_was_tried_again_the_last_counts(tmp_path):
    lines = [row(1, kept=False), row(0), row(1)]
    (tmp_path / "x").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [one["number"] for one in read_lines(tmp_path / "x")] == [0, 1]
    assert all(one["held"]["kept"] for one in read_lines(tmp_path / "x"))
    assert read_lines(tmp_path / "none") == []
