"""Words that a folder suggests: found in captions, else named after the folder."""

from pathlib import Path

import pytest

from lib_pivotal.config import DataConfig, EmbeddingConfig, Run, check_consistency
from lib_pivotal.data.records import Dataset, Picture
from lib_pivotal.embedding_names import check_embedding_name
from lib_pivotal.runs.presets import ADVISED_SAMPLES
from lib_pivotal.runs.proposal import (
    describe_embeddings,
    embeddings_in_captions,
    fitting_resolution,
    legal_name,
    propose,
    samples_of,
    steps_for_samples,
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


def embeddings_run(*names):
    return Run(embeddings=tuple(EmbeddingConfig(name) for name in names))


AOI = "aoi, 1girl, blue hair, smile, park"
HANA = "hana, 1girl, green hair, long hair, frown"


def test_embeddings_stand_in_front():
    found = embeddings_in_captions(dataset([AOI] * 6 + [HANA] * 4))
    assert found == ["aoi", "hana"]


def test_ordinary_tags_in_front_are_no_embeddings():
    assert (
        embeddings_in_captions(dataset(["solo, smile, park", "masterpiece, park, solo", "twintails, solo, hat"] * 4))
        == []
    )


def test_an_embedding_that_is_seldom_in_front_is_a_tag():
    captions = [AOI] * 6 + ["1girl, blue hair, aoi, forest"] * 6
    assert embeddings_in_captions(dataset(captions)) == []


def test_a_folders_name_counts_anywhere_in_the_caption():
    captions = ["1girl, blue hair, smile, kaze"] * 9
    assert embeddings_in_captions(dataset(captions, concept="kaze")) == ["kaze"]


def test_a_style_is_an_embedding_beside_changing_others():
    captions = [
        f"{name}, ink, 1girl, {tag}" for name in ("aoi", "hana", "kaze") for tag in ("park", "sky", "sea", "city")
    ]
    rows = {row.embedding.name: row for row in propose(dataset(captions)).rows}
    assert rows["ink"].style and not rows["aoi"].style
    assert not rows["ink"].embedding.prune and rows["ink"].embedding.init_text == ""


def test_init_text_is_made_of_what_is_always_there():
    places = ("park", "sea", "sky", "city", "hill", "lake")
    row = propose(dataset([f"aoi, 1girl, blue hair, smile, {place}" for place in places] + [HANA] * 4)).rows[0]
    assert (
        row.embedding.init_text.startswith("blue hair")
        and row.embedding.init_text.endswith("*[0.017,4]")
        and row.embedding.vectors == 6
    )
    assert row.embedding.prune and [item.tag for item in row.absorbed] == ["blue hair"]
    assert row.lift["blue hair"] == pytest.approx(1 / 0.6)


def test_without_embeddings_the_folder_names_one_that_its_pictures_get():
    proposal = propose(dataset(["1girl, smile, park"] * 5, concept="My Girl 2"))
    assert [row.embedding.name for row in proposal.rows] == ["my-girl"]
    assert proposal.rows[0].embedding.applies_to == ("concept:My Girl 2",) and proposal.remarks
    assert proposal.rows[0].pictures == 5 and proposal.rows[0].sampling_share == 1.0


def test_an_empty_folder_suggests_nothing():
    proposal = propose(dataset([]))
    assert proposal.rows == () and proposal.resolution_px == 512


@pytest.mark.parametrize("text", ["My Girl 2", "10_aoi", "...", "日本", "v1.5-girl-", "a"])
def test_legal_names_are_legal(text):
    assert check_embedding_name(legal_name(text)) == []


@pytest.mark.parametrize(("side", "size"), [(64, 64), (100, 64), (130, 128), (512, 512), (3000, 512), (400, 384)])
def test_the_size_follows_the_pictures(side, size):
    assert fitting_resolution(dataset([AOI] * 3, side=side)) == size


@pytest.mark.parametrize(("side", "size"), [(64, 64), (700, 640), (1000, 896), (1024, 1024), (3000, 1024)])
def test_the_size_goes_as_far_as_the_checkpoint_draws(side, size):
    assert fitting_resolution(dataset([AOI] * 3, side=side), largest_px=1024) == size


def test_what_is_proposed_makes_a_sound_run():
    proposal = propose(dataset([AOI] * 6 + [HANA] * 4))
    assert check_consistency(Run(embeddings=tuple(row.embedding for row in proposal.rows))) == []


def test_draws_count_repeats_steps_and_batches():
    rows = describe_embeddings(dataset([AOI] * 6 + [HANA] * 2), embeddings_run("aoi", "hana", "kaze"))
    run = Run(embeddings=tuple(row.embedding for row in rows))
    pictures = run.schedule.max_steps * run.schedule.batch_size
    assert samples_of(run, rows) == {"aoi": pictures * 0.75, "hana": pictures * 0.25, "kaze": 0.0}
    assert rows[2].pictures == 0


def test_steps_give_the_embedding_in_the_middle_its_draws():
    rows = describe_embeddings(dataset([AOI] * 5 + [HANA] * 5), embeddings_run("aoi", "hana"))
    assert steps_for_samples(rows, ADVISED_SAMPLES, batch=4) == 400
    assert steps_for_samples((), 100, batch=4) == 100


def test_folders_of_forms_make_embeddings_of_their_own():
    captions = ["aoi, 1girl, blue hair, coat, snow"] * 4 + ["aoi, 1girl, blue hair, swimsuit, sea"] * 4
    concepts = ["Aoi Winter"] * 4 + ["Aoi Summer"] * 4
    rows = {row.embedding.name: row for row in propose(dataset(captions, concept=concepts)).rows}
    assert set(rows) == {"aoi", "aoi-winter", "aoi-summer"}
    assert rows["aoi-winter"].embedding.form_of == "aoi" and rows["aoi-winter"].pictures == 4
    assert [tag.tag for tag in rows["aoi"].absorbed] == ["blue hair"]
    assert "blue hair" not in [tag.tag for tag in rows["aoi-winter"].absorbed]


def test_kgrids_files_say_how_embeddings_begin_and_what_they_absorb(tmp_path):
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "emb_init.json").write_text('{"Aoi": ["horns"], "Hana": []}')
    (tmp_path / "training" / "core_tag.json").write_text(
        '{"Aoi": {"kept": ["blue hair"], "dropped": ["smile"], "emb_init": ["horns"]}}'
    )
    plain = dataset([AOI] * 6 + [HANA] * 4)
    rows = {r.embedding.name: r for r in propose(Dataset(tmp_path, plain.pictures, plain.concepts, ())).rows}
    assert rows["aoi"].embedding.init_text == "horns, *[0.017,4]"
    assert rows["aoi"].embedding.prune_tags == ("smile", "horns") and rows["aoi"].embedding.keep_tags == ("blue hair",)
    assert {tag.tag for tag in rows["aoi"].absorbed} >= {"smile"}
    assert "blue hair" not in {tag.tag for tag in rows["aoi"].absorbed}


def test_uneven_embeddings_are_drawn_alike():
    proposal = propose(dataset([AOI] * 12 + [HANA] * 4))
    assert proposal.balance == "embeddings"
    run = Run(embeddings=tuple(row.embedding for row in proposal.rows), data=DataConfig(balance="embeddings"))
    shares = [row.sampling_share for row in describe_embeddings(dataset([AOI] * 12 + [HANA] * 4), run)]
    assert shares == pytest.approx([0.5, 0.5], abs=0.01)
