"""The chain of changes that a caption goes through at each draw."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_pivotal.data.caption_chain import (
    CaptionPipeline,
    CaptionSettings,
    TrainingTime,
    fill_wildcards,
    parse_lists,
    read_lists,
)
from lib_pivotal.data.captions import split_tags
from lib_pivotal.data.records import Picture
from lib_pivotal.errors import DataError

TAGS = st.lists(
    st.text(alphabet="abcdefgh _1:", min_size=1, max_size=12).map(str.strip).filter(bool)
    | st.sampled_from(["(red hair:1.2)", "(hat, cape:0.8)", r"saber \(fate\)", "[faint]"]),
    max_size=12,
)
PARTS = ("embeddings", "protected", "classes", "lists", "shorten")


def _pipe(prefix: str = "", suffix: str = "", **options: Any) -> CaptionPipeline:
    parts = {name: options.pop(name) for name in PARTS if name in options}
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    return CaptionPipeline(CaptionSettings(prefix, suffix, **options), **parts)


def _run(pipeline: CaptionPipeline, caption: str, *, concept: str = "", seed: int = 0, **moment: int) -> str:
    return pipeline(caption, concept=concept, rng=random.Random(seed), moment=TrainingTime(**moment))


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
    pipeline = _pipe(templates=["a photo of {word}, {caption}", "[name] as {filewords}"], embeddings={"girl": "hanako"})
    seen = {_run(pipeline, "hat, smile", concept="girl", seed=seed) for seed in range(20)}
    assert seen == {"a photo of hanako, hat, smile", "hanako as hat, smile"}
    assert _run(_pipe(templates=["{word}, {caption}"]), "hat", concept="none") == "hat"
    assert _run(_pipe(templates=["{word}"], embeddings={"c": "w"}), "{word} [name]", concept="c") == "w"


def test_placeholders_in_captions_are_not_filled_twice() -> None:
    pipeline = _pipe(templates=["{caption}!"], embeddings={"c": "w"})
    assert _run(pipeline, "odd {name} text", concept="c") == "odd {name} text!"


def test_wildcards() -> None:
    pipeline = _pipe(wildcards=True)
    seen = {_run(pipeline, "{red|{light|dark} blue} hat", seed=seed) for seed in range(40)}
    assert seen == {"red hat", "light blue hat", "dark blue hat"}
    assert _run(_pipe(), "{a|b}") == "{a|b}"


def test_missing_embeddings_are_added_in_front() -> None:
    pipeline = _pipe(embeddings={"girl": "hanako"}, add_missing_embedding=True)
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


def test_all_tags_may_go_together() -> None:
    pipeline = _pipe(tag_dropout=0.3, drop_mode="all", keep_first=1, protected=["zuko"])
    results = [_run(pipeline, "a, b, zuko, c, d", seed=seed) for seed in range(2000)]
    assert set(results) == {"a, b, zuko, c, d", "a, zuko"}
    assert 0.27 < results.count("a, zuko") / 2000 < 0.33
    classes = _pipe(tag_dropout=1.0, drop_mode="all", tag_classes=(("/^b$/", 0.0),))
    assert _run(classes, "a, b, c") == "b"


def test_later_tags_may_go_more_often() -> None:
    """Of four free tags with chance 0.8: 0.2, 0.4, 0.6, 0.8, by places as written (OneTrainer's RANDOM WEIGHTED)."""
    pipeline = _pipe(tag_dropout=0.8, drop_mode="rising", keep_first=1, shuffle=True)
    results = [split_tags(_run(pipeline, "k, a, b, c, d", seed=seed)) for seed in range(4000)]
    assert all(tags[0] == "k" for tags in results)
    gone = [sum(tag not in tags for tags in results) / 4000 for tag in "abcd"]
    assert gone == pytest.approx([0.2, 0.4, 0.6, 0.8], abs=0.03)


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
def test_protected_embeddings_are_never_lost(tags: list[str], dropout: float, seed: int, place: int, form: str) -> None:
    tags.insert(place, form)
    pipeline = _pipe(shuffle=True, tag_dropout=dropout, protected=["zuko"])
    result = split_tags(_run(pipeline, ", ".join(tags), seed=seed))
    assert form in result
    assert not Counter(result) - Counter(tags)


@given(tags=TAGS, seed=st.integers(0, 2**32))
def test_protecting_an_embedding_does_not_change_the_other_draws(tags: list[str], seed: int) -> None:
    plain = split_tags(_run(_pipe(tag_dropout=0.5), ", ".join(["zuko", *tags]), seed=seed))
    kept = split_tags(_run(_pipe(tag_dropout=0.5, protected=["zuko"]), ", ".join(["zuko", *tags]), seed=seed))
    assert kept == ["zuko", *[tag for tag in plain if tag != "zuko"]]


@given(caption=st.text(max_size=60), seed=st.integers(0, 2**32))
def test_any_text_passes(caption: str, seed: int) -> None:
    pipeline = _pipe(
        "p", "s", shuffle=True, tag_dropout=0.5, wildcards=True, keep_first=1, templates=["{word} {caption}"],
        embeddings={"": "w"}, add_missing_embedding=True,
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


# -- alternatives and fields


def test_one_of_several_captions_is_drawn() -> None:
    picture = _picture("a", alternatives=("b", "c"))
    pipeline = _pipe("p")
    seen = Counter(pipeline.draw(picture, rng=random.Random(seed)) for seed in range(600))
    assert set(seen) == {"p, a", "p, b", "p, c"} and min(seen.values()) > 150


FIELDS = (("characters", "zuko"), ("type", "fanart"), ("tags", "hat, smile"))


def test_fields_come_in_the_settings_order_each_with_its_chance() -> None:
    pipeline = _pipe(fields=(("type", 0.5), ("characters", 1.0), ("artist", 1.0), ("tags", 1.0)), shuffle=True)
    picture = _picture("zuko, hat, smile", fields=FIELDS)
    seen = Counter(pipeline.draw(picture, rng=random.Random(seed)) for seed in range(400))
    assert set(seen) == {
        f"{front}, {tags}" for front in ("fanart, zuko", "zuko") for tags in ("hat, smile", "smile, hat")
    }
    assert 140 < sum(count for caption, count in seen.items() if caption.startswith("fanart")) < 260


def test_fields_never_lose_an_embedding() -> None:
    pipeline = _pipe(fields=(("characters", 0.0), ("tags", 1.0)), protected=["zuko"])
    assert pipeline.draw(_picture("zuko, hat", fields=FIELDS), rng=random.Random(0)) == "zuko, hat, smile"


def test_without_fields_a_caption_is_taken_as_it_is() -> None:
    pipeline = _pipe(fields=(("tags", 1.0),))
    assert pipeline.draw(_picture("zuko, hat"), rng=random.Random(0)) == "zuko, hat"


# -- dropout by class, warm-up, limits


def test_tags_drop_out_by_class_and_pattern() -> None:
    pipeline = _pipe(tag_classes=(("clothes", 1.0), ("/^blue/", 1.0), ("character", 0.0)), tag_dropout=0.0)
    assert _run(pipeline, "red hair, red skirt, blue hair, tree, smile") == "red hair, tree, smile"


def test_the_first_class_that_fits_counts() -> None:
    pipeline = _pipe(tag_classes=(("/skirt/", 0.0), ("clothes", 1.0)))
    assert _run(pipeline, "skirt, hat") == "skirt"


@pytest.mark.parametrize(("step", "count"), [(0, 1), (25, 2), (50, 3), (75, 4), (99, 4), (100, 5), (5000, 5)])
def test_warm_up_has_kohyas_counts(step: int, count: int) -> None:
    """floor(step * (tags - least) / steps) + least, as kohya's process_caption has it."""
    assert len(split_tags(_run(_pipe(warmup_steps=100), "a, b, c, d, e", step=step))) == count


def test_warm_up_spares_what_is_kept_in_front() -> None:
    assert _run(_pipe(warmup_steps=100, keep_first=2), "a, b, c, d") == "a, b, c"


def test_every_nth_epoch_has_no_captions() -> None:
    pipeline = _pipe(dropout_epochs=3)
    assert [_run(pipeline, "a", epoch=epoch) for epoch in range(6)] == ["a", "a", "", "a", "a", ""]


def test_at_most_so_many_tags() -> None:
    assert _run(_pipe(max_tags=2, protected=["zuko"]), "a, b, c, zuko") == "a, b, zuko"
    assert _run(_pipe(max_tags=2), "k ||| a, b ||| z") == "k, z"


def test_what_is_too_long_is_cut_at_the_end_of_the_chain() -> None:
    assert _run(_pipe(shorten=lambda text: text[:4]), "a, bcd") == "a, b"


def test_brackets_without_emphasis_are_letters() -> None:
    assert _run(_pipe(emphasis=False), r"saber (fate), \(x\), [y]") == r"saber \(fate\), \(x\), \[y\]"


def test_weights_survive_shuffling() -> None:
    seen = {_run(_pipe(shuffle=True), "(red hair, blue eyes:1.2), hat", seed=seed) for seed in range(20)}
    assert seen == {"(red hair, blue eyes:1.2), hat", "hat, (red hair, blue eyes:1.2)"}


# -- lists


def test_lists_fill_templates_and_captions() -> None:
    pipeline = _pipe(
        templates=["a {kind} of {word}, {caption}"], embeddings={"": "zuko"}, wildcards=True,
        lists={"kind": ("photo", "sketch"), "hat": ("cap",), "head": ("__hat__", "bare")},
    )  # fmt: skip
    seen = {_run(pipeline, "__head__", seed=seed) for seed in range(40)}
    assert seen == {f"a {kind} of zuko, {head}" for kind in ("photo", "sketch") for head in ("cap", "bare")}


def test_braces_can_be_escaped_and_a_list_of_itself_ends() -> None:
    choose = random.Random(0).choice
    assert fill_wildcards("{{a|b}} __none__", choose) == "{a|b} __none__"
    assert "__x__" in fill_wildcards("__x__", choose, {"x": ("__x__ y",)})


# -- everything together


@given(
    tags=TAGS,
    place=st.integers(0, 12),
    seed=st.integers(0, 2**32),
    step=st.integers(0, 200),
    keep=st.integers(0, 3),
    options=st.fixed_dictionaries(
        {
            "shuffle": st.booleans(),
            "tag_dropout": st.floats(0, 1),
            "warmup_steps": st.integers(0, 100),
            "max_tags": st.integers(0, 5),
            "emphasis": st.booleans(),
        }
    ),
)
def test_embeddings_are_never_lost_whatever_is_on(
    tags: list[str], place: int, seed: int, step: int, keep: int, options: dict[str, Any]
) -> None:
    tags.insert(place, "zuko")
    pipeline = _pipe(protected=["zuko"], keep_first=keep, tag_classes=(("clothes", 1.0),), **options)
    result = _run(pipeline, ", ".join(tags), seed=seed, step=step)
    assert "zuko" in split_tags(result)
    kept = ", ".join(tags[:keep])
    assert result.startswith(kept if options["emphasis"] else fill_letters(kept))


def fill_letters(tag: str) -> str:
    """A tag whose brackets are letters."""
    return _run(_pipe(emphasis=False), tag)


@given(tags=TAGS, seed=st.integers(0, 2**32), step=st.integers(0, 200))
def test_the_same_draw_is_the_same_caption(tags: list[str], seed: int, step: int) -> None:
    make = lambda: _pipe("p", shuffle=True, tag_dropout=0.4, warmup_steps=100, wildcards=True)  # noqa: E731
    caption = ", ".join(tags)
    assert _run(make(), caption, seed=seed, step=step) == _run(make(), caption, seed=seed, step=step)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tag_classes": (("shoes", 0.5),)}, "tag class 'shoes'"),
        ({"tag_classes": (("clothes", 1.5),)}, "clothes = 1.5"),
        ({"fields": (("mood", 1.0),)}, "caption field 'mood'"),
        ({"max_tags": -1}, "max_tags = -1"),
    ],
)
def test_wrong_new_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        CaptionSettings(**options)


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


# -- the bare name


@pytest.mark.parametrize("chance", [0.1, 0.5])
def test_a_caption_is_the_bare_name_with_this_chance(chance: float) -> None:
    pipeline = _pipe("best", bare=chance, shuffle=True, protected=["aoi", "hana"])
    drawn = [pipeline.draw(_picture("aoi, red hair, smile"), rng=random.Random(seed)) for seed in range(4000)]
    assert drawn.count("aoi") / 4000 == pytest.approx(chance, abs=0.02)
    assert all(len(split_tags(text)) == 4 for text in drawn if text != "aoi")


def test_a_bare_name_has_its_class_beside_it_and_one_class_is_said_once() -> None:
    pipeline = _pipe(bare=1.0, protected=["aoi", "hana"], classes={"aoi": "1girl", "hana": "1girl"})
    rng = random.Random(0)
    assert pipeline.draw(_picture("red hair, aoi, smile"), rng=rng) == "aoi, 1girl"
    assert pipeline.draw(_picture("hana, sky, aoi"), rng=rng) == "hana, 1girl, aoi"
    assert pipeline.draw(_picture("aoi, smile"), rng=rng, opening=lambda rng: "close up, ") == "close up, aoi, 1girl"


def test_the_bare_name_of_a_template_is_that_of_the_concept() -> None:
    pipeline = _pipe(bare=1.0, templates=["photo of {word}, {caption}"], embeddings={"girl": "hanako"})
    assert pipeline.draw(Picture("a", Path("a"), "smile", 64, 64, "girl"), rng=random.Random(0)) == "hanako"


def test_a_caption_without_an_embedding_stays() -> None:
    pipeline = _pipe(bare=1.0, protected=["aoi"])
    assert pipeline.draw(_picture("sky, park"), rng=random.Random(0)) == "sky, park"


def test_without_a_chance_no_draw_shifts() -> None:
    pictures = [_picture("aoi, a, b, c, d", alternatives=("aoi, e, f",)) for _ in range(20)]
    plain, classed = (
        [
            _pipe(shuffle=True, tag_dropout=0.3, protected=["aoi"], **more).draw(p, rng=random.Random(i))
            for i, p in enumerate(pictures)
        ]
        for more in ({}, {"bare": 0.0, "classes": {"aoi": "1girl"}})
    )
    assert plain == classed
