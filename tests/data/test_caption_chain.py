"""The chain of changes that a caption goes through at each draw."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_pivotal.data.caption_chain import CaptionPipeline, CaptionSettings, Moment
from lib_pivotal.data.captions import split_tags
from lib_pivotal.data.records import Picture
from lib_pivotal.errors import DataError

TAGS = st.lists(st.text(alphabet="abcdefgh ()_1", min_size=1, max_size=12).map(str.strip).filter(bool), max_size=12)
PARTS = ("words", "protected", "lists", "shorten")


def _pipe(prefix: str = "", suffix: str = "", **options: Any) -> CaptionPipeline:
    parts = {name: options.pop(name) for name in PARTS if name in options}
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    return CaptionPipeline(CaptionSettings(prefix, suffix, **options), **parts)


def _run(pipeline: CaptionPipeline, caption: str, *, concept: str = "", seed: int = 0, **moment: int) -> str:
    return pipeline(caption, concept=concept, rng=random.Random(seed), moment=Moment(**moment))


def _picture(caption: str, **more: Any) -> Picture:
    return Picture("a.png", Path("a.png"), caption, 64, 64, "", **more)


# -- the chain


def test_nothing_on_changes_nothing() -> None:
    assert _run(_pipe(), " A cat, on a mat.  Really ") == "A cat, on a mat.  Really"


def test_prefix_and_suffix_are_tags() -> None:
    assert _run(_pipe("best,", "end"), "a, b") == "best, a, b, end"
    assert _run(_pipe("best", "end"), "") == "best, end"


def test_keep_first_counts_the_prefix() -> None:
    pipeline = _pipe("p", shuffle=True, keep_first=2)
    for seed in range(20):
        tags = split_tags(_run(pipeline, "a, b, c, d, e", seed=seed))
        assert tags[:2] == ["p", "a"] and sorted(tags) == sorted("pabcde")


def test_keep_separator() -> None:
    pipeline = _pipe(shuffle=True, keep_first=1, tag_dropout=0.5)
    seen = Counter()
    for seed in range(50):
        tags = split_tags(_run(pipeline, "x, y ||| a, b, c ||| z", seed=seed))
        assert tags[:2] == ["x", "y"] and tags[-1] == "z"
        seen.update(tags[2:-1])
    assert set(seen) == set("abc")
    assert _run(_pipe(), "x ||| a, b") == "x, a, b"


def test_templates() -> None:
    pipeline = _pipe(templates=["a photo of {word}, {caption}", "[name] as {filewords}"], words={"girl": "hanako"})
    seen = {_run(pipeline, "hat, smile", concept="girl", seed=seed) for seed in range(20)}
    assert seen == {"a photo of hanako, hat, smile", "hanako as hat, smile"}
    assert _run(_pipe(templates=["{word}, {caption}"]), "hat", concept="none") == "hat"
    assert _run(_pipe(templates=["{word}"], words={"c": "w"}), "{word} [name]", concept="c") == "w"


def test_placeholders_in_captions_are_not_filled_twice() -> None:
    pipeline = _pipe(templates=["{caption}!"], words={"c": "w"})
    assert _run(pipeline, "odd {name} text", concept="c") == "odd {name} text!"


def test_wildcards() -> None:
    pipeline = _pipe(wildcards=True)
    seen = {_run(pipeline, "{red|{light|dark} blue} hat", seed=seed) for seed in range(40)}
    assert seen == {"red hat", "light blue hat", "dark blue hat"}
    assert _run(_pipe(), "{a|b}") == "{a|b}"


def test_missing_words_are_added_in_front() -> None:
    pipeline = _pipe(words={"girl": "hanako"}, add_missing_word=True)
    assert _run(pipeline, "hat", concept="girl") == "hanako, hat"
    assert _run(pipeline, "hat on Hanako", concept="girl") == "hat on Hanako"
    assert _run(pipeline, "", concept="girl") == "hanako"
    assert _run(pipeline, "hat", concept="other") == "hat"


def test_caption_dropout_takes_the_whole_caption() -> None:
    pipeline = _pipe("p", templates=["t {caption}"], caption_dropout=0.25)
    results = [_run(pipeline, "a", seed=seed) for seed in range(2000)]
    assert set(results) == {"", "t p, a"}
    assert 0.2 < results.count("") / 2000 < 0.3


def test_tag_dropout_has_its_rate() -> None:
    pipeline = _pipe(tag_dropout=0.2)
    kept = sum(len(split_tags(_run(pipeline, "a, b, c, d, e", seed=seed))) for seed in range(1000))
    assert 0.77 < kept / 5000 < 0.83


def test_deterministic_given_the_generator() -> None:
    pipeline = _pipe(shuffle=True, tag_dropout=0.3, wildcards=True, templates=["{caption}", "x {caption}"])
    caption = "a, {b|c}, d, e, f"
    assert [_run(pipeline, caption, seed=s) for s in range(9)] == [_run(pipeline, caption, seed=s) for s in range(9)]
    assert len({_run(pipeline, caption, seed=seed) for seed in range(50)}) > 20


@given(tags=TAGS, keep=st.integers(0, 4), seed=st.integers(0, 2**32))
def test_shuffle_keeps_the_tags(tags: list[str], keep: int, seed: int) -> None:
    result = split_tags(_run(_pipe(shuffle=True, keep_first=keep), ", ".join(tags), seed=seed))
    assert Counter(result) == Counter(tags)
    assert result[:keep] == tags[:keep]


@given(tags=TAGS, dropout=st.floats(0, 1), seed=st.integers(0, 2**32), place=st.integers(0, 12),
       form=st.sampled_from(["zuko", "Zuko", "(zuko:1.2)", "photo of zuko", "zuko-chan"]))  # fmt: skip
def test_protected_words_are_never_lost(tags: list[str], dropout: float, seed: int, place: int, form: str) -> None:
    tags.insert(place, form)
    pipeline = _pipe(shuffle=True, tag_dropout=dropout, protected=["zuko"])
    result = split_tags(_run(pipeline, ", ".join(tags), seed=seed))
    assert form in result
    assert not Counter(result) - Counter(tags)


@given(tags=TAGS, seed=st.integers(0, 2**32))
def test_protecting_a_word_does_not_change_the_other_draws(tags: list[str], seed: int) -> None:
    plain = split_tags(_run(_pipe(tag_dropout=0.5), ", ".join(["zuko", *tags]), seed=seed))
    kept = split_tags(_run(_pipe(tag_dropout=0.5, protected=["zuko"]), ", ".join(["zuko", *tags]), seed=seed))
    assert kept == ["zuko", *[tag for tag in plain if tag != "zuko"]]


@given(caption=st.text(max_size=60), seed=st.integers(0, 2**32))
def test_any_text_passes(caption: str, seed: int) -> None:
    pipeline = _pipe(
        "p", "s", shuffle=True, tag_dropout=0.5, wildcards=True, keep_first=1, templates=["{word} {caption}"],
        words={"": "w"}, add_missing_word=True,
    )  # fmt: skip
    assert isinstance(_run(pipeline, caption, seed=seed), str)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"tag_dropout": 1.5}, "tag_dropout = 1.5"),
        ({"caption_dropout": -0.1}, "caption_dropout = -0.1"),
        ({"keep_first": -1}, "keep_first = -1"),
        ({"separator": ""}, "separator"),
    ],
)
def test_wrong_settings_are_refused(setting: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _pipe(**setting)
