"""What each word takes from the captions, and what is left of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_pivotal.data.captions import split_tags
from lib_pivotal.data.pruning import EmbeddingRules, PrunedCaptions, TagRules, applies
from lib_pivotal.data.records import Picture


def _pictures(*captions: str, **more: object) -> list[Picture]:
    return [Picture(f"a/{n}.png", Path("x"), text, 64, 64, "aoi", **more) for n, text in enumerate(captions)]  # type: ignore[arg-type]


AOI = ["aoi, 1girl, red hair, horns, hat, smile"] * 3 + ["aoi, 1girl, red hair, horns, coat, park"] * 3
HANA = ["hana, 1girl, blue hair, hat, smile"] * 6


def _after(use: EmbeddingRules, rules: TagRules, captions: list[str] | None = None) -> list[str]:
    pictures = _pictures(*(captions or AOI + HANA))
    return [p.caption for p in PrunedCaptions(pictures, [use, EmbeddingRules("hana")], rules).captions()]


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
    after = _after(EmbeddingRules("aoi", prune=True), rules)
    assert after[0] == first and after[6:] == HANA


def test_a_embedding_that_does_not_absorb_changes_nothing() -> None:
    assert _after(EmbeddingRules("aoi"), TagRules()) == AOI + HANA


def test_minimal_drops_overlaps_and_tags_of_other_pictures() -> None:
    captions = ["aoi, long hair, very long hair, cosplay"]
    assert _after(EmbeddingRules("aoi"), TagRules(mode="minimal"), captions) == ["aoi, very long hair"]


def test_tags_move_by_hand() -> None:
    use = EmbeddingRules("aoi", prune=True, absorb=("hat",), keep=("horns",), init_text="red hair, *[0.1,2]")
    wording = PrunedCaptions(_pictures(*AOI, *HANA), [use, EmbeddingRules("hana")], TagRules())
    fates = {tag.tag: tag.fate for tag in wording.embeddings["aoi"].tags}
    assert (fates["red hair"], fates["horns"], fates["hat"], fates["smile"]) == ("init", "kept", "absorbed", "kept")
    lift = {tag.tag: tag.lift for tag in wording.embeddings["aoi"].tags}
    assert lift["red hair"] == pytest.approx(2.0) and lift["hat"] == pytest.approx(0.5 / 0.75)
    assert wording.captions()[0].caption == "aoi, 1girl, horns, smile"


def test_a_embedding_reaches_the_pictures_it_applies_to() -> None:
    pictures = _pictures("1girl, hat", "Aoi_Chan, hat", alternatives=("a girl",))
    wording = PrunedCaptions(pictures, [EmbeddingRules("aoi-chan", applies_to=("concept:aoi",))], TagRules())
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
    assert _after(EmbeddingRules("aoi", prune=True), TagRules(), captions)[0] == "aoi ||| hat"


def test_tags_that_a_weight_holds_together_are_pruned_one_by_one() -> None:
    captions = [
        "aoi, (blue hair, smile:1.2)",
        "aoi, ((blue hair, blue eyes)), hat",
        "aoi, [blue hair]",
        ":), aoi, (x:2)",
    ]
    use = EmbeddingRules("aoi", prune=True, absorb=("blue hair", "blue eyes"))
    assert _after(use, TagRules(), captions) == ["aoi, (smile:1.2)", "aoi, hat", "aoi", ":), aoi, (x:2)"]
    wording = PrunedCaptions(_pictures(*captions), [use], TagRules())
    assert {tag.tag: tag.count for tag in wording.embeddings["aoi"].tags} == {
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
def test_pruning_again_changes_nothing_and_embeddings_stay(captions: list[str], mode: str) -> None:
    use, rules = EmbeddingRules("aoi", prune=True, absorb=("horns",)), TagRules(mode=mode)  # type: ignore[arg-type]
    wording = PrunedCaptions(_pictures(*captions), [use], rules)
    once = wording.captions()
    assert [wording.pruned(picture) for picture in once] == list(once)
    assert PrunedCaptions(once, [use], rules).captions() == once  # written to files and scanned again
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
    old = PrunedCaptions(pictures, [EmbeddingRules("aoi", prune=True), EmbeddingRules("hana")], TagRules())
    uses = [
        EmbeddingRules("aoi", init, prune=prune, absorb=tuple(absorb), keep=tuple(keep)),
        EmbeddingRules("hana", prune=True),
    ]
    revised, new = old.revised(uses), PrunedCaptions(pictures, uses, TagRules())
    assert revised is not None
    assert revised.embeddings == new.embeddings and revised.captions() == new.captions()
    assert old.captions()[0].caption == "aoi, 1girl, hat, smile"


def test_other_embeddings_or_other_pictures_of_embeddings_need_a_new_wording() -> None:
    wording = PrunedCaptions(_pictures(*AOI, *HANA), [EmbeddingRules("aoi"), EmbeddingRules("hana")], TagRules())
    assert wording.revised([EmbeddingRules("aoi")]) is None
    assert wording.revised([EmbeddingRules("aoi"), EmbeddingRules("hana", form_of="aoi")]) is None
    assert wording.revised([EmbeddingRules("aoi", applies_to=("concept:aoi",)), EmbeddingRules("hana")]) is None


def test_a_typed_caption_is_pruned_by_the_embeddings_that_it_names() -> None:
    pictures = _pictures(*AOI, *HANA)
    wording = PrunedCaptions(
        pictures, [EmbeddingRules("aoi", prune=True), EmbeddingRules("hana", prune=True)], TagRules()
    )
    for picture, trained in zip(pictures, wording.captions(), strict=True):
        assert wording.of_caption(picture) == (picture, trained)
    typed = _pictures("hana, red hair, blue hair")[0]
    assert wording.of_caption(typed)[1].caption == "hana, red hair"


def test_the_rule_is_told_beside_what_lists_say() -> None:
    use = EmbeddingRules("aoi", prune=True, absorb=("hat",), keep=("horns",))
    tags = {tag.tag: tag for tag in PrunedCaptions(_pictures(*AOI, *HANA), [use], TagRules()).embeddings["aoi"].tags}
    assert tags["horns"].by_rule and not tags["horns"].belongs
    assert tags["hat"].belongs and not tags["hat"].by_rule


def test_captions_after_a_moved_tag_are_those_of_a_new_wording() -> None:
    pictures = _pictures(*AOI, *HANA)
    old = PrunedCaptions(pictures, [EmbeddingRules("aoi", prune=True), EmbeddingRules("hana", prune=True)], TagRules())
    first = old.captions()
    uses = [EmbeddingRules("aoi", prune=True, keep=("horns",)), EmbeddingRules("hana", prune=True)]
    revised = old.revised(uses)
    assert revised is not None
    assert revised.captions() == PrunedCaptions(pictures, uses, TagRules()).captions() != first
    assert all(new is before for new, before in zip(revised.captions()[6:], first[6:], strict=True))


def test_what_is_made_once_is_made_again_for_other_inputs() -> None:
    wording = PrunedCaptions(_pictures(*AOI), [EmbeddingRules("aoi")], TagRules())
    made: list[int] = []

    def make() -> int:
        made.append(len(made))
        return len(made)

    assert [wording.once("a", key, make) for key in (1, 1, 2, 2, 1)] == [1, 1, 2, 2, 3]
    revised = wording.revised([EmbeddingRules("aoi", prune=True)])
    assert revised is not None and revised.once("a", 1, make) == 4


def test_a_character_who_is_half_the_time_in_a_style_or_in_company_is_no_style() -> None:
    people = ("aoi", "hana", "kaze", "umi", "sora")
    captions = []
    for place, name in enumerate(people):
        captions += [f"{name}, 1girl"] * 4 + [f"{name}, ink, 1girl"] * 3
        captions += [f"{name}, {people[place - 1]}, 2girls"] * 2  # beside two others, with those of the next one
    uses = [EmbeddingRules(name, prune=True) for name in ("ink", *people)]
    embeddings = PrunedCaptions(_pictures(*captions, "ink, sky", "ink, sea"), uses, TagRules()).embeddings
    assert {name for name, embedding in embeddings.items() if embedding.style} == {"ink"}
    mine = [caption for caption in captions if "aoi" in caption]
    others = [caption for caption in mine if any(name in caption for name in ("ink", *people[1:]))]
    assert len(others) > 0.5 * len(mine), "else the case says nothing"
