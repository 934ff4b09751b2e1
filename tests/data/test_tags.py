"""Core tags, pruning and init text."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_pivotal.byte_cache import ByteCache
from lib_pivotal.data import tags
from lib_pivotal.data.tags import (
    CoreRule,
    TagShare,
    alone,
    core_tags,
    difficulty,
    init_text,
    lower_bound,
    same_tag,
    tag_counts,
    tag_shares,
    without_overlaps,
)
from lib_pivotal.errors import DataError


def _names(tags: list[TagShare]) -> list[str]:
    return [item.tag for item in tags]


@pytest.mark.parametrize(
    ("tag", "form"),
    [
        ("Long_Hair", "long hair"),
        ("(long hair:1.2)", "long hair"),
        ("((long  hair))", "long hair"),
        ("[hat]", "hat"),
        (r"saber \(fate\)", "saber (fate)"),
        (":)", ":)"),
        (":]", ":]"),
        (":(", ":("),
        ("(:", "(:"),
        ("(", "("),
        ("()", "()"),
        ("_", "_"),
        ("^_^", "^ ^"),
        (r"\o/", r"\o/"),
        ("o/", "o/"),
        ("(o)_(o)", "(o) (o)"),
        ("(:), smile:1.2)", ":), smile"),
        ("saber_(fate)", "saber (fate)"),
        ("saber (fate:1.2)", "saber (fate:1.2)"),
        ("", ""),
    ],
)
def test_same_tag(tag: str, form: str) -> None:
    assert same_tag(tag) == form


def test_counts_and_shares() -> None:
    captions = ["Hat, hat, red_hair", "red hair", ""]
    assert tag_counts(captions) == {"Hat": 1, "red_hair": 2}
    assert tag_shares(captions) == [TagShare("red_hair", 2 / 3), TagShare("Hat", 1 / 3)]
    assert tag_shares([]) == []


HANAKO = (
    ["hanako, solo, 1girl, red hair, cat ears, shirt, smile"] * 45
    + ["hanako, solo, red hair, blue eyes, white background"] * 36
    + ["hanako, solo, star"] * 19
)


def test_narugo_thresholds() -> None:
    # shares: red hair .81, cat ears .45, blue eyes .36 (a feature, so .35 does), shirt .45 (clothes), star .19
    assert _names(core_tags(HANAKO, embeddings=["hanako"])) == ["red hair", "cat ears", "blue eyes"]
    assert _names(core_tags(HANAKO, embeddings=["hanako"], feature_threshold=0.37)) == ["red hair", "cat ears"]
    assert _names(core_tags(HANAKO, embeddings=["hanako"], threshold=0.15)) == [
        "red hair",
        "cat ears",
        "blue eyes",
        "star",
    ]


def test_kgrid_thresholds() -> None:
    assert _names(core_tags(HANAKO, rule="kgrid", embeddings=["hanako"])) == ["red hair", "cat ears", "shirt"]
    assert "hanako" in _names(core_tags(HANAKO, rule="kgrid"))  # nobody said that it is the word
    assert "smile" in _names(core_tags(HANAKO, rule="kgrid", embeddings=["hanako"], blacklist=()))


def test_kgrid_counts_solo_pictures_only() -> None:
    captions = ["solo, red hair"] * 4 + ["hanako, taro, blue hair"] * 40
    assert _names(core_tags(captions, rule="kgrid", embeddings=["hanako", "taro"])) == ["red hair"]
    assert alone(["hanako, taro", "hanako, hat"], embeddings=["hanako", "taro"]) == ["hanako, hat"]
    assert alone(["hanako, taro"], embeddings=["hanako", "taro"]) == ["hanako, taro"]


def test_unknown_rule() -> None:
    with pytest.raises(DataError, match="rule = 'best'"):
        core_tags(HANAKO, rule="best")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tag", "level"),
    [
        ("long_hair", 0),
        ("blue eyes", 0),
        ("hair ribbon", 0),
        ("cat ears", 1),
        ("mole under eye", 1),
        ("cape", 2),
        ("", 2),
    ],
)
def test_difficulty(tag: str, level: int) -> None:
    assert difficulty(tag) == level


def test_overlaps() -> None:
    tags = [TagShare(tag, 1.0) for tag in ("long hair", "very long hair", "hair ribbon", "dress", "white_dress")]
    assert _names(without_overlaps(tags)) == ["very long hair", "hair ribbon", "white_dress"]


def test_init_text() -> None:
    core = core_tags(HANAKO, embeddings=["hanako"])
    assert init_text(core) == "red hair, cat ears, blue eyes, *[0.1,10]"
    assert init_text(core, lead="1girl", random_vectors=0) == "1girl, red hair, cat ears, blue eyes"
    assert init_text(core, std=0.017, random_vectors=3, minimum_difficulty=1, maximum_difficulty=2) == (
        "cat ears, *[0.017,3]"
    )
    assert init_text([]) == "*[0.1,10]"


def _with(tag: str, count: int, of: int) -> list[str]:
    return [f"aoi, {tag}" if n < count else "aoi" for n in range(of)]


def test_few_captions_make_no_core_tag_by_chance() -> None:
    def found(tag: str, count: int, of: int) -> bool:
        return tag in [item.tag for item in core_tags(_with(tag, count, of), embeddings=["aoi"])]

    assert not found("umbrella", 3, 5) and found("umbrella", 4, 5)  # 60 % of 5 may be 33 % of all
    assert not found("umbrella", 1, 1) and found("umbrella", 2, 2)
    assert found("umbrella", 9, 20) and not found("umbrella", 8, 20)  # from 20 on exactly narugo's threshold
    assert found("red hair", 3, 5) and found("red hair", 1, 1) and found("red hair", 7, 20)


@pytest.mark.parametrize("rule", ["narugo", "kgrid"])
@pytest.mark.parametrize("tag", ["frown", "right side", "from_above", "crossed arms", "close-up", "upper body"])
def test_expressions_poses_and_views_are_never_core(rule: CoreRule, tag: str) -> None:
    assert core_tags(_with(tag, 5, 5), rule=rule, embeddings=["aoi"]) == []
    assert core_tags(_with(tag, 5, 5), rule=rule, embeddings=["aoi"], blacklist=()) != []
    assert core_tags(_with("side ponytail", 5, 5), rule=rule, embeddings=["aoi"]) != []


@given(st.integers(1, 300), st.floats(0, 1))
def test_the_lower_bound_solves_its_equation(count: int, share: float) -> None:
    """Wilson: the p below the share that lies just z standard errors (of p itself) from it."""
    p = lower_bound(share, count)
    assert -1e-9 <= p <= share + 1e-9
    assert abs(share - p) == pytest.approx(1.2816 * max(p * (1 - p), 0.0) ** 0.5 / count**0.5, abs=1e-6)


def test_what_is_kept_of_captions_is_bounded_by_bytes(monkeypatch):
    """16,384 long captions took hundreds of megabytes."""
    kept = ByteCache(400_000)
    monkeypatch.setattr(tags, "_forms_known", kept)
    captions = [", ".join(f"tag {number} {place}" for place in range(30)) for number in range(200)]
    tags.tag_counts(captions)  # what else remembers tags is filled
    kept.clear()
    tracemalloc.start()
    try:
        first = tags.tag_counts(captions)
        assert 0 < kept.held_bytes <= 400_000 and len(kept) < len(captions)
        del first
        assert tracemalloc.get_traced_memory()[0] < 2 * kept.held_bytes, "an entry takes about what it is counted as"
    finally:
        tracemalloc.stop()
