"""Each kind of finding about words and captions: a dataset that has it, and one that has not."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib_pivotal.data.findings import Finding
from lib_pivotal.data.lint import word_findings
from lib_pivotal.data.pruning import TagRules, Wording, WordUse
from lib_pivotal.data.records import Picture

PLACES = ("park", "sky", "sea", "city")


def pictures(*captions: str | tuple[str, str]) -> list[Picture]:
    """`(concept, caption)`, or captions of one folder."""
    pairs = [("all", text) if isinstance(text, str) else text for text in captions]
    return [Picture(f"{c}/{n}.png", Path("x"), text, 64, 64, c) for n, (c, text) in enumerate(pairs)]


def lint(captions: list[Picture], *uses: WordUse | str, rules: TagRules | None = None) -> dict[str, list[Finding]]:
    """Findings by kind."""
    words = [WordUse(use) if isinstance(use, str) else use for use in uses]
    found: dict[str, list[Finding]] = {}
    for finding in word_findings(Wording(captions, words, rules or TagRules())):
        found.setdefault(finding.kind, []).append(finding)
    return found


SOUND = [f"{name}, {tag}" for name in ("aoi", "hana") for tag in PLACES]


def test_a_sound_set_has_no_finding() -> None:
    assert lint(pictures(*SOUND), "aoi", "hana") == {}


# -- never, always


def test_a_word_that_no_caption_has() -> None:
    found = lint(pictures(*SOUND), "aoi", "hana", "kaze")["word_never"]
    assert [(f.severity, f.words, [r.id for r in f.remedies]) for f in found] == [
        ("error", ("kaze",), ["remove_word"]),
    ]


def test_a_word_that_no_caption_has_but_a_folder_is_called_so() -> None:
    mixed = pictures(*(("Kaze Hino", f"1girl, {tag}") for tag in PLACES), *(("b", f"aoi, {tag}") for tag in PLACES))
    remedy = lint(mixed, "aoi", "kaze-hino")["word_never"][0].remedy
    assert remedy is not None
    assert (remedy.id, remedy.arguments) == ("apply_to", {"word": "kaze-hino", "pattern": "concept:Kaze Hino"})


def test_a_word_that_every_caption_has() -> None:
    everywhere = pictures(*(f"ink, {caption}" for caption in SOUND))
    found = lint(everywhere, "aoi", "hana", "ink")["word_always"]
    assert [(f.severity, f.words) for f in found] == [("warning", ("ink",))] and found[0].remedy is not None
    assert "word_always" not in lint(pictures(*SOUND, *(f"ink, {tag}" for tag in PLACES)), "aoi", "hana", "ink")


def test_a_single_word_that_every_caption_has_is_no_fault() -> None:
    found = lint(pictures(*(f"aoi, {tag}" for tag in PLACES)), "aoi")["word_always"]
    assert [(f.severity, f.remedies) for f in found] == [("info", ())]
    assert "word_always" not in lint(pictures("aoi, park"), "aoi")


# -- apart


def test_words_that_never_part() -> None:
    together = pictures(*(f"aoi, cat-ears-x, {tag}" for tag in PLACES), *(f"hana, {tag}" for tag in PLACES))
    found = lint(together, "aoi", "cat-ears-x", "hana")["words_never_apart"]
    assert found[0].words == ("aoi", "cat-ears-x") and len(found[0].keys) == 4
    assert found[0].remedy is not None and found[0].remedy.arguments == {"word": "cat-ears-x"}
    apart = pictures(*(f"aoi, cat-ears-x, {tag}" for tag in PLACES), "aoi, park", "cat-ears-x, park", *SOUND)
    assert "words_never_apart" not in lint(apart, "aoi", "cat-ears-x", "hana")


def test_a_style_that_only_its_own_characters_have() -> None:
    captions = [f"{name}, ink, {tag}" for name in ("aoi", "hana") for tag in PLACES]
    others = [f"kaze, {tag}" for tag in PLACES]
    found = lint(pictures(*captions, *others), "aoi", "hana", "ink", "kaze")["word_explained"]
    assert [(f.severity, f.words) for f in found] == [("warning", ("ink", "aoi", "hana"))]
    one_apart = pictures(*captions, *others, "aoi, park")  # then aoi is not ink's alone, but hana is: ink has aoi's
    assert "word_explained" not in lint(one_apart, "aoi", "hana", "ink", "kaze")


def test_forms_explain_their_character_and_that_is_meant() -> None:
    captions = [f"aoi, {form}, {tag}" for form in ("aoi-red", "aoi-blue") for tag in PLACES]
    captions = [
        c.replace("aoi-red,", "aoi-red, red coat,").replace("aoi-blue,", "aoi-blue, blue coat,") for c in captions
    ]
    uses = (WordUse("aoi"), WordUse("aoi-red", form_of="aoi"), WordUse("aoi-blue", form_of="aoi"))
    assert "word_explained" not in lint(pictures(*captions, *(f"hana, {t}" for t in PLACES)), *uses, "hana")


@pytest.mark.parametrize(("tag", "told"), [("", True), (", red coat", False)])
def test_a_word_that_nothing_marks_among_anothers_pictures(tag: str, told: bool) -> None:
    winter = [f"aoi, aoi-winter{tag}, {place}" for place in PLACES * 2]
    captions = [*winter, *(f"aoi, {place}" for place in PLACES * 2), *(f"hana, {place}" for place in PLACES)]
    found = lint(pictures(*captions), "aoi", "aoi-winter", "hana").get("word_explained", [])
    assert [(f.severity, f.words) for f in found] == ([("info", ("aoi-winter", "aoi"))] if told else [])


def test_other_words_tell_a_word_apart_in_a_style() -> None:
    """All of aoi's pictures are in ink, and ink's others are hana's: the words say which is which."""
    captions = [f"{name}, ink, {tag}" for name in ("aoi", "hana") for tag in PLACES] + [f"hana, {t}" for t in PLACES]
    assert "word_explained" not in lint(pictures(*captions), "aoi", "hana", "ink")


# -- captions without a word


def test_a_caption_that_lacks_its_folders_word() -> None:
    captions = [("aoi", f"aoi, {tag}") for tag in PLACES] + [("aoi", "1girl, park")]
    captions += [("hana", f"hana, {tag}") for tag in PLACES]
    found = lint(pictures(*captions), "aoi", "hana")["no_word"]
    assert [(f.severity, f.keys, f.words) for f in found] == [("warning", ("aoi/4.png",), ("aoi",))]
    assert found[0].remedy is not None
    assert found[0].remedy.arguments == {"word": "aoi", "pattern": "concept:aoi"}


def test_captions_of_nobody_are_only_told() -> None:
    captions = [("aoi", f"aoi, {tag}") for tag in PLACES] + [("others", f"1girl, {tag}") for tag in PLACES]
    found = lint(pictures(*captions), "aoi")["no_word"]
    assert [(f.severity, len(f.keys), f.remedies) for f in found] == [("info", 4, ())]
    assert "no_word" not in lint(pictures(*SOUND), "aoi", "hana")


def test_a_word_that_a_template_writes_is_there() -> None:
    wording = Wording(pictures("park", "sky"), [WordUse("aoi")], TagRules(), extra=lambda picture: ("aoi",))
    assert {finding.kind for finding in word_findings(wording)} == {"word_always"}


# -- tags that the word should be


def test_tags_that_describe_the_word() -> None:
    captions = [f"aoi, blue hair, {tag}" for tag in PLACES] + [f"hana, green hair, {tag}" for tag in PLACES]
    found = lint(pictures(*captions), "aoi", WordUse("hana", prune=True))["tags_describe_word"]
    assert [(f.severity, f.words) for f in found] == [("warning", ("aoi",))]
    assert "blue hair (100%)" in found[0].text and len(found[0].keys) == 4
    assert found[0].remedy is not None and found[0].remedy.arguments == {"word": "aoi", "tags": []}
    absorbing = (WordUse("aoi", prune=True), WordUse("hana", prune=True))
    assert "tags_describe_word" not in lint(pictures(*captions), *absorbing)


def test_what_a_word_always_wears_may_belong_to_it() -> None:
    captions = [f"aoi, red kimono, {tag}" for tag in PLACES] + [f"hana, {tag}" for tag in PLACES]
    found = lint(pictures(*captions), WordUse("aoi", prune=True), "hana")["tags_describe_word"]
    assert [(f.severity, f.words) for f in found] == [("info", ("aoi",))]
    assert found[0].remedy is not None and found[0].remedy.arguments == {"word": "aoi", "tags": ["red kimono"]}
    kept = WordUse("aoi", prune=True, keep=("red kimono",))
    assert "tags_describe_word" not in lint(pictures(*captions), kept, "hana")


@pytest.mark.parametrize("tag", ["smile", "white background", "1girl", "masterpiece", "looking at viewer"])
def test_what_is_of_the_picture_is_never_the_words(tag: str) -> None:
    captions = [f"aoi, {tag}, {place}" for place in PLACES] + [f"hana, {place}" for place in PLACES]
    assert "tags_describe_word" not in lint(pictures(*captions), WordUse("aoi", prune=True), "hana")


def test_a_style_absorbs_nothing() -> None:
    captions = [f"{name}, ink, sketch, {tag}" for name in ("aoi", "hana", "kaze") for tag in PLACES]
    captions += [f"{name}, {tag}" for name in ("aoi", "hana", "kaze") for tag in PLACES]
    found = lint(pictures(*captions), "aoi", "hana", "kaze", "ink").get("tags_describe_word", [])
    assert not any("ink" in finding.words for finding in found)
