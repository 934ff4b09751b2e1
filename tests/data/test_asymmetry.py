"""Which captions speak against mirroring, and when a word is warned of."""

from __future__ import annotations

from lib_pivotal.data.asymmetry import ASYMMETRIC, LETTERS, SAYS_SIDE, SIDE, mirror_warnings, reasons
from lib_pivotal.data.tags import same_tag


def test_reasons() -> None:
    assert reasons("aoi, Heterochromia, (side_ponytail:1.2), smile") == {
        "Heterochromia": SIDE,
        "(side_ponytail:1.2)": SIDE,
    }
    assert reasons("1girl, english text, sword in left hand") == {
        "english text": LETTERS,
        "sword in left hand": SAYS_SIDE,
    }
    assert reasons("bright eyes, copyright, upright, twintails, standing") == {}
    assert reasons("") == {}


def test_tags_are_spelled_as_they_are_compared() -> None:
    assert all(same_tag(tag) == tag for tag in ASYMMETRIC)
    assert {"eyepatch", "heterochromia", "side ponytail", "asymmetrical legwear", "mole under eye"} <= set(ASYMMETRIC)


def test_warnings_by_word() -> None:
    pictures = {
        "aoi": [(f"a{n}.png", "aoi, eyepatch, smile" if n < 5 else "aoi, smile") for n in range(10)],
        "hana": [(f"h{n}.png", "hana, hat, eyepatch" if n == 0 else "hana, hat") for n in range(10)],
        "taro": [(f"t{n}.png", "taro, text" if n == 0 else "taro") for n in range(10)],
        "none": [],
    }
    problems = mirror_warnings(pictures)
    assert [problem.message.split(":")[0] for problem in problems] == ["aoi", "taro"]
    assert all(problem.level == "warning" and problem.code == "mirrored" for problem in problems)
    assert problems[0].keys == tuple(f"a{n}.png" for n in range(5)) and "eyepatch (5 of 10" in problems[0].message
    assert problems[1].keys == ("t0.png",) and "Turn mirroring off" in problems[1].message
    many = mirror_warnings({"aoi": [("a.png", ", ".join(list(ASYMMETRIC)[:7]))]})
    assert "and 3 more" in many[0].message
