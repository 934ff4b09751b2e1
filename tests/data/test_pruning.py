"""What each word takes from the captions, and what is left of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_pivotal.data.captions import split_tags
from lib_pivotal.data.pruning import TagRules, Wording, WordUse, applies
from lib_pivotal.data.records import Picture


def _pictures(*captions: str, **more: object) -> list[Picture]:
    return [Picture(f"a/{n}.png", Path("x"), text, 64, 64, "aoi", **more) for n, text in enumerate(captions)]  # type: ignore[arg-type]


AOI = ["aoi, 1girl, red hair, horns, hat, smile"] * 3 + ["aoi, 1girl, red hair, horns, coat, park"] * 3
HANA = ["hana, 1girl, blue hair, hat, smile"] * 6


def _after(use: WordUse, rules: TagRules, captions: list[str] | None = None) -> list[str]:
    pictures = _pictures(*(captions or AOI + HANA))
    return [p.caption for p in Wording(pictures, [use, WordUse("hana")], rules).captions()]


@pytest.mark.parametrize(
    ("rules", "first"),
    [
        (TagRules(), "aoi, 1girl, hat, smile"),
        (TagRules(drop_difficulty=1), "aoi, 1girl, horns, hat, smile"),
        (TagRules(rule="kgrid"), "aoi, 1girl, hat, smile"),
        (TagRules(mode="none"), AOI[0]),
        (TagRules(mode="minimal"), AOI[0]),
        (TagRules(mode="character"), "aoi, 1girl, hat, smile"),
    ],
)
def test_modes_and_rules(rules: TagRules, first: str) -> None:
    after = _after(WordUse("aoi", prune=True), rules)
    assert after[0] == first and after[6:] == HANA


def test_a_word_that_does_not_absorb_changes_nothing() -> None:
    assert _after(WordUse("aoi"), TagRules()) == AOI + HANA


def test_minimal_drops_overlaps_and_tags_of_other_pictures() -> None:
    captions = ["aoi, long hair, very long hair, cosplay"]
    assert _after(WordUse("aoi"), TagRules(mode="minimal"), captions) == ["aoi, very long hair"]


def test_tags_move_by_hand() -> None:
    use = WordUse("aoi", prune=True, absorb=("hat",), keep=("horns",), init_text="red hair, *[0.1,2]")
    wording = Wording(_pictures(*AOI, *HANA), [use, WordUse("hana")], TagRules())
    fates = {tag.tag: tag.fate for tag in wording.words["aoi"].tags}
    assert (fates["red hair"], fates["horns"], fates["hat"], fates["smile"]) == ("init", "kept", "absorbed", "kept")
    lift = {tag.tag: tag.lift for tag in wording.words["aoi"].tags}
    assert lift["red hair"] == pytest.approx(2.0) and lift["hat"] == pytest.approx(0.5 / 0.75)
    assert wording.captions()[0].caption == "aoi, 1girl, horns, smile"


def test_a_word_reaches_the_pictures_it_applies_to() -> None:
    pictures = _pictures("1girl, hat", "Aoi_Chan, hat", alternatives=("a girl",))
    wording = Wording(pictures, [WordUse("aoi-chan", applies_to=("concept:aoi",))], TagRules())
    assert [p.caption for p in wording.captions()] == ["aoi-chan, 1girl, hat", "aoi-chan, hat"]
    assert wording.captions()[0].alternatives == ("aoi-chan, a girl",)


@pytest.mark.parametrize(
    ("pattern", "meant"),
    [
        ("concept:aoi", True),
        ("concept:ao", False),
        ("type:fanart", True),
        ("a/*", True),
        ("b/*", False),
        ("a/0.png", True),
    ],
)
def test_patterns(pattern: str, meant: bool) -> None:
    assert applies([pattern], _pictures("x", image_type="fanart")[0]) is meant


def test_kept_parts_stay_apart() -> None:
    captions = ["aoi ||| red hair, hat"] * 3
    assert _after(WordUse("aoi", prune=True), TagRules(), captions)[0] == "aoi ||| hat"


def test_tags_that_a_weight_holds_together_are_pruned_one_by_one() -> None:
    captions = [
        "aoi, (blue hair, smile:1.2)",
        "aoi, ((blue hair, blue eyes)), hat",
        "aoi, [blue hair]",
        ":), aoi, (x:2)",
    ]
    use = WordUse("aoi", prune=True, absorb=("blue hair", "blue eyes"))
    assert _after(use, TagRules(), captions) == ["aoi, (smile:1.2)", "aoi, hat", "aoi", ":), aoi, (x:2)"]
    wording = Wording(_pictures(*captions), [use], TagRules())
    assert {tag.tag: tag.count for tag in wording.words["aoi"].tags} == {
        "blue hair": 3,
        "blue eyes": 1,
        "smile": 1,
        "hat": 1,
        ":)": 1,
        "x": 1,
    }


@given(
    captions=st.lists(
        st.lists(
            st.sampled_from(
                ["aoi", "red hair", "very red hair", "hat", "horns", "(hat, coat:1.2)", "[horns, (red hair)]"]
            )
        ).map(", ".join),
        min_size=1,
        max_size=6,
    ),
    mode=st.sampled_from(["none", "minimal", "character", "character_core"]),
)
def test_pruning_again_changes_nothing_and_words_stay(captions: list[str], mode: str) -> None:
    use, rules = WordUse("aoi", prune=True, absorb=("horns",)), TagRules(mode=mode)  # type: ignore[arg-type]
    wording = Wording(_pictures(*captions), [use], rules)
    once = wording.captions()
    assert [wording.pruned(picture) for picture in once] == list(once)
    assert Wording(once, [use], rules).captions() == once  # written to files and scanned again
    for before, after in zip(captions, once, strict=True):
        assert split_tags(before).count("aoi") == split_tags(after.caption).count("aoi")


@given(
    absorb=st.lists(st.sampled_from(["hat", "smile", "coat"])),
    keep=st.lists(st.sampled_from(["horns", "red hair"])),
    prune=st.booleans(),
    init=st.sampled_from(["", "horns", "red hair, *[0.1,2]"]),
)
def test_a_revised_wording_is_a_new_one(absorb: list[str], keep: list[str], prune: bool, init: str) -> None:
    pictures = _pictures(*AOI, *HANA)
    old = Wording(pictures, [WordUse("aoi", prune=True), WordUse("hana")], TagRules())
    uses = [WordUse("aoi", init, prune=prune, absorb=tuple(absorb), keep=tuple(keep)), WordUse("hana", prune=True)]
    revised, new = old.revised(uses), Wording(pictures, uses, TagRules())
    assert revised is not None
    assert revised.words == new.words and revised.captions() == new.captions()
    assert old.captions()[0].caption == "aoi, 1girl, hat, smile"


def test_other_words_or_other_pictures_of_words_need_a_new_wording() -> None:
    wording = Wording(_pictures(*AOI, *HANA), [WordUse("aoi"), WordUse("hana")], TagRules())
    assert wording.revised([WordUse("aoi")]) is None
    assert wording.revised([WordUse("aoi"), WordUse("hana", form_of="aoi")]) is None
    assert wording.revised([WordUse("aoi", applies_to=("concept:aoi",)), WordUse("hana")]) is None


def test_a_typed_caption_is_pruned_by_the_words_that_it_names() -> None:
    pictures = _pictures(*AOI, *HANA)
    wording = Wording(pictures, [WordUse("aoi", prune=True), WordUse("hana", prune=True)], TagRules())
    for picture, trained in zip(pictures, wording.captions(), strict=True):
        assert wording.of_caption(picture) == (picture, trained)
    typed = _pictures("hana, red hair, blue hair")[0]
    assert wording.of_caption(typed)[1].caption == "hana, red hair"


def test_the_rule_is_told_beside_what_lists_say() -> None:
    use = WordUse("aoi", prune=True, absorb=("hat",), keep=("horns",))
    tags = {tag.tag: tag for tag in Wording(_pictures(*AOI, *HANA), [use], TagRules()).words["aoi"].tags}
    assert tags["horns"].by_rule and not tags["horns"].belongs
    assert tags["hat"].belongs and not tags["hat"].by_rule


def test_captions_after_a_moved_tag_are_those_of_a_new_wording() -> None:
    pictures = _pictures(*AOI, *HANA)
    old = Wording(pictures, [WordUse("aoi", prune=True), WordUse("hana", prune=True)], TagRules())
    first = old.captions()
    uses = [WordUse("aoi", prune=True, keep=("horns",)), WordUse("hana", prune=True)]
    revised = old.revised(uses)
    assert revised is not None
    assert revised.captions() == Wording(pictures, uses, TagRules()).captions() != first
    assert all(new is before for new, before in zip(revised.captions()[6:], first[6:], strict=True))


def test_what_is_made_once_is_made_again_for_other_inputs() -> None:
    wording = Wording(_pictures(*AOI), [WordUse("aoi")], TagRules())
    made: list[int] = []

    def make() -> int:
        made.append(len(made))
        return len(made)

    assert [wording.once("a", key, make) for key in (1, 1, 2, 2, 1)] == [1, 1, 2, 2, 3]
    revised = wording.revised([WordUse("aoi", prune=True)])
    assert revised is not None and revised.once("a", 1, make) == 4


def test_a_character_who_is_half_the_time_in_a_style_or_in_company_is_no_style() -> None:
    people = ("aoi", "hana", "kaze", "umi", "sora")
    captions = []
    for place, name in enumerate(people):
        captions += [f"{name}, 1girl"] * 4 + [f"{name}, ink, 1girl"] * 3
        captions += [f"{name}, {people[place - 1]}, 2girls"] * 2  # beside two others, with those of the next one
    uses = [WordUse(name, prune=True) for name in ("ink", *people)]
    words = Wording(_pictures(*captions, "ink, sky", "ink, sea"), uses, TagRules()).words
    assert {name for name, word in words.items() if word.style} == {"ink"}
    mine = [caption for caption in captions if "aoi" in caption]
    others = [caption for caption in mine if any(name in caption for name in ("ink", *people[1:]))]
    assert len(others) > 0.5 * len(mine), "else the case says nothing"
