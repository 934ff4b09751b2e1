"""Words that a folder suggests: found in captions, else named after the folder."""

from pathlib import Path

import pytest

from lib_pivotal.bundle.format import check_word_name
from lib_pivotal.config import Run, WordConfig, check_consistency
from lib_pivotal.data.records import Dataset, Picture
from lib_pivotal.runs.proposal import (
    ADVISED_DRAWS,
    describe_words,
    draws_of,
    fitting_resolution,
    legal_name,
    never_apart,
    propose,
    steps_for_draws,
    word_problems,
    words_in_captions,
)


def dataset(captions, *, side=64, concept="pictures", repeats=1):
    """A dataset of captions alone: nothing here opens a file."""
    pictures = tuple(
        Picture(
            f"{n}.png",
            Path(f"{n}.png"),
            caption,
            side,
            side,
            concept if isinstance(concept, str) else concept[n],
            repeats,
        )
        for n, caption in enumerate(captions)
    )
    concepts = {}
    for picture in pictures:
        concepts.setdefault(picture.concept, []).append(picture.key)
    return Dataset(Path("pictures"), pictures, {name: tuple(keys) for name, keys in concepts.items()}, ())


AOI = "aoi, 1girl, blue hair, smile, park"
HANA = "hana, 1girl, green hair, long hair, frown"


def test_words_stand_in_front():
    found = words_in_captions(dataset([AOI] * 6 + [HANA] * 4))
    assert found == ["aoi", "hana"]


def test_ordinary_tags_in_front_are_no_words():
    assert (
        words_in_captions(dataset(["solo, smile, park", "masterpiece, park, solo", "twintails, solo, hat"] * 4)) == []
    )


def test_a_word_that_is_seldom_in_front_is_a_tag():
    captions = [AOI] * 6 + ["1girl, blue hair, aoi, forest"] * 6
    assert words_in_captions(dataset(captions)) == []


def test_a_folders_name_counts_anywhere_in_the_caption():
    captions = ["1girl, blue hair, smile, kaze"] * 9
    assert words_in_captions(dataset(captions, concept="kaze")) == ["kaze"]


def test_a_style_is_a_word_beside_changing_others():
    captions = [
        f"{name}, ink, 1girl, {tag}" for name in ("aoi", "hana", "kaze") for tag in ("park", "sky", "sea", "city")
    ]
    rows = {row.word.name: row for row in propose(dataset(captions)).rows}
    assert rows["ink"].style and not rows["aoi"].style
    assert not rows["ink"].word.prune and rows["ink"].word.init_text == ""


def test_init_text_is_made_of_what_is_always_there():
    places = ("park", "sea", "sky", "city", "hill", "lake")
    row = propose(dataset([f"aoi, 1girl, blue hair, smile, {place}" for place in places] + [HANA] * 4)).rows[0]
    assert row.word.init_text.startswith("blue hair") and row.word.init_text.endswith("*[0.1,2]")
    assert row.word.prune and [item.tag for item in row.absorbed] == ["blue hair"]
    assert row.lift["blue hair"] == pytest.approx(1 / 0.6)


def test_without_words_the_folder_names_one_and_a_template_writes_it():
    proposal = propose(dataset(["1girl, smile, park"] * 5, concept="My Girl 2"))
    assert [row.word.name for row in proposal.rows] == ["my-girl"]
    assert proposal.templates == ("{word}, {caption}",) and proposal.remarks
    assert proposal.rows[0].pictures == 5 and proposal.rows[0].draws_share == 1.0


def test_an_empty_folder_suggests_nothing():
    proposal = propose(dataset([]))
    assert proposal.rows == () and proposal.resolution_px == 512


@pytest.mark.parametrize("text", ["My Girl 2", "10_aoi", "...", "日本", "v1.5-girl-", "a"])
def test_legal_names_are_legal(text):
    assert check_word_name(legal_name(text)) == []


@pytest.mark.parametrize(("side", "size"), [(64, 64), (100, 64), (130, 128), (512, 512), (3000, 512), (400, 384)])
def test_the_size_follows_the_pictures(side, size):
    assert fitting_resolution(dataset([AOI] * 3, side=side)) == size


def test_what_is_proposed_makes_a_sound_run():
    proposal = propose(dataset([AOI] * 6 + [HANA] * 4))
    assert check_consistency(Run(words=tuple(row.word for row in proposal.rows))) == []


def test_draws_count_repeats_steps_and_batches():
    rows = describe_words(dataset([AOI] * 6 + [HANA] * 2), [WordConfig("aoi"), WordConfig("hana"), WordConfig("kaze")])
    run = Run(words=tuple(row.word for row in rows))
    pictures = run.schedule.max_steps * run.schedule.batch_size
    assert draws_of(run, rows) == {"aoi": pictures * 0.75, "hana": pictures * 0.25, "kaze": 0.0}
    assert rows[2].pictures == 0


def test_steps_give_the_word_in_the_middle_its_draws():
    rows = describe_words(dataset([AOI] * 5 + [HANA] * 5), [WordConfig("aoi"), WordConfig("hana")])
    assert steps_for_draws(rows, ADVISED_DRAWS, batch=4) == 400
    assert steps_for_draws((), 100, batch=4) == 100


def test_rare_and_taken_words_are_told_in_one_line_each():
    rows = describe_words(dataset([AOI] * 5 + [HANA] * 5), [WordConfig("aoi"), WordConfig("hana")])
    run = Run(words=tuple(row.word for row in rows))
    assert word_problems(run, rows) == []
    short = Run(words=run.words, schedule=type(run.schedule)(max_steps=10))
    told = word_problems(short, rows, taken={"hana"})
    assert len(told) == 2 and told[0].startswith("aoi, hana: only 20 draws") and told[1].startswith("hana: in use")


def test_words_that_are_never_apart():
    both = ["aoi, hana, park"] * 3
    assert never_apart(dataset(both), ["aoi", "hana"]) == [("aoi", "hana", 3)]
    assert never_apart(dataset([*both, AOI]), ["aoi", "hana"]) == []
