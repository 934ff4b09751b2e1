"""The engine: rows and steps over the values of a file, and a line for each key."""

import pytest

from lib_pivotal.importing.translation import (
    UNKNOWN,
    ConfigTranslation,
    apply,
    aside,
    choices,
    exists,
    missing,
    to,
    turned,
    unless,
)


def lines(sheet):
    return {line.key: line for line in sheet.report("x", "title").lines}


def test_rows_get_the_keys_that_are_there_and_open():
    sheet = ConfigTranslation({"a": 3, "b": {"c": 1, "d": 2}, "pre_x": 1, "new": 1})
    table = [
        lambda sheet: sheet.honoured("b.c", "by a step"),
        ("a gone", to("seed")),
        ("b.* pre_*", aside("not about training")),
    ]
    told = lines(apply(sheet, table))
    assert sheet.read("seed") == 3 and told["a"].became == "seed = 3"
    assert [told[key].why for key in ("b.c", "b.d", "pre_x")] == ["by a step", *["not about training"] * 2]
    assert (told["new"].why, told["new"].known) == (UNKNOWN, False)


def test_a_value_that_a_setting_cannot_have_is_told():
    told = lines(
        apply(
            ConfigTranslation({"a": -5, "b": "x"}), [("a", to("schedule.max_steps")), ("b", to("seed", lambda _: None))]
        )
    )
    assert told["a"].fate == told["b"].fate == "not supported"
    assert "it stays" in told["a"].why and "cannot be read" in told["b"].why


@pytest.mark.parametrize(
    ("rule", "value", "fate", "became"),
    [
        (missing("not here"), 0, "taken", ""),
        (missing("not here"), 2, "not supported", ""),
        (missing("not here", at="noise.offset"), "0.05", "taken", "noise.offset = 0.05"),
        (missing("not here", at="noise.nowhere"), "0.05", "not supported", ""),
        (unless(lambda value: value > 1, "not here"), 1, "taken", ""),
        (unless(lambda value: value > 1, "not here"), 2, "not supported", ""),
        (turned("clip_skip", lambda value: value + 1, "counted from 0"), 1, "translated", "clip_skip = 2"),
        (turned("clip_skip", lambda value: None, "counted from 0"), 1, "taken", ""),
        (to("noise.offset", float, off="none"), 0, "taken", ""),
    ],
)
def test_rules(rule, value, fate, became):
    line = lines(apply(ConfigTranslation({"a": value}), [("a", rule)]))["a"]
    assert (line.fate, line.became) == (fate, became)


def test_a_reader_may_call_keys_otherwise():
    sheet = ConfigTranslation({"resolution": 512, "x": 1}, names={"resolution": "max_resolution"})
    sheet.honoured("resolution")
    assert list(lines(sheet)) == ["max_resolution", "x"]


def test_what_is_here_is_asked_of_the_settings():
    assert "l1" in choices("loss.kind") and choices("nowhere") == ()
    assert exists("noise.offset") and not exists("noise")
