"""Words that folders suggest: concepts, styles by image type, forms of a character."""

from __future__ import annotations

from pathlib import Path

from lib_pivotal.config import EmbeddingConfig
from lib_pivotal.data.records import Dataset, Picture
from lib_pivotal.data.sources.kgrid_files import KgridFiles
from lib_pivotal.runs.folder_embeddings import embeddings_of_folders


def dataset(*pictures: tuple[str, str, str]) -> Dataset:
    """`(path of the folder below the concept, or just the concept; image type; caption)`."""
    made = []
    for number, (folder, image_type, caption) in enumerate(pictures):
        concept = folder.split("/")[0]
        made.append(Picture(f"{folder}/{number}.png", Path("x"), caption, 64, 64, concept, image_type=image_type))
    concepts = {p.concept: tuple(q.key for q in made if q.concept == p.concept) for p in made}
    return Dataset(Path("d"), tuple(made), concepts, ())


def embeddings(
    data: Dataset, *named: str, files: KgridFiles | None = None, limit: int = 60
) -> dict[str, EmbeddingConfig]:
    found, _ = embeddings_of_folders(
        data, [EmbeddingConfig(n) for n in named], files=files or KgridFiles(), limit=limit
    )
    return {embedding.name: embedding for embedding in found}


def test_a_folder_that_captions_do_not_name_is_an_embedding_of_its_pictures() -> None:
    data = dataset(*[("My Girl", "", "1girl, hat")] * 3, *[("hana", "", "hana, hat")] * 3)
    found = embeddings(data, "hana")
    assert found["my-girl"].applies_to == ("concept:My Girl",) and found["hana"].applies_to == ()


def test_names_that_are_nobodys_are_no_embeddings_beside_others() -> None:
    data = dataset(("others", "", "hat"), ("class_background", "", "hat"), ("hana", "", "hana"))
    assert list(embeddings(data, "hana")) == ["hana"]
    assert list(embeddings(dataset(("others", "", "hat")))) == ["others"]  # the only one there is


def test_brackets_of_a_folders_name_are_letters() -> None:
    found = embeddings(dataset(*[("aoi [2]", "", "hat")] * 3))
    assert [embedding.applies_to for embedding in found.values()] == [("concept:aoi [[]2]",)]


def test_image_types_are_styles_where_there_are_several() -> None:
    several = dataset(("aoi", "screenshots", "aoi"), ("aoi", "fanart", "aoi"), ("aoi", "plain", "aoi"))
    found = embeddings(several, "aoi")
    assert {name: embedding.applies_to for name, embedding in found.items()} == {
        "aoi": (),
        "fanart": ("type:fanart",),
        "screenshots": ("type:screenshots",),
    }
    assert list(embeddings(dataset(("aoi", "fanart", "aoi")), "aoi")) == ["aoi"]


def test_what_kgrids_files_name_is_all_there_is() -> None:
    data = dataset(("aoi", "fanart", "aoi"), ("hana", "screenshots", "1girl"), ("kaze", "fanart", "1girl"))
    files = KgridFiles(initial={"aoi": (), "hana": ("halo",), "fanart": ()})
    assert set(embeddings(data, "aoi", "hat", files=files)) == {"aoi", "hana", "fanart"}


def test_outfits_by_the_folders_second_embedding() -> None:
    data = dataset(*[("Aoi Winter", "", "1girl")] * 3, *[("Aoi Summer", "", "1girl")] * 3)
    found = embeddings(data)
    assert found["aoi"].applies_to == ("concept:Aoi Summer", "concept:Aoi Winter") and not found["aoi"].form_of
    assert {n: w.form_of for n, w in found.items()} == {"aoi": "", "aoi-winter": "aoi", "aoi-summer": "aoi"}
    assert found["aoi-winter"].applies_to == ("concept:Aoi Winter",)


def test_outfits_by_sub_folders() -> None:
    data = dataset(*[("aoi/winter", "", "aoi")] * 3, *[("aoi/summer", "", "aoi")] * 3, *[("aoi/x1", "", "aoi")] * 3)
    found = embeddings(data, "aoi")
    assert {name: embedding.form_of for name, embedding in found.items()} == {
        "aoi": "",
        "aoi-winter": "aoi",
        "aoi-summer": "aoi",
    }
    assert found["aoi-winter"].applies_to == ("aoi/winter/*",)


def test_one_outfit_or_few_pictures_of_it_are_none() -> None:
    assert list(embeddings(dataset(*[("aoi/winter", "", "aoi")] * 5), "aoi")) == ["aoi"]
    few = dataset(*[("aoi/winter", "", "aoi")] * 3, *[("aoi/summer", "", "aoi")] * 2)
    assert list(embeddings(few, "aoi")) == ["aoi"]


def test_too_many_embeddings_are_cut_and_told() -> None:
    data = dataset(*((f"girl{'abcdefgh'[n]}", "", "1girl") for n in range(8)))
    found, remarks = embeddings_of_folders(
        data, [], files=KgridFiles(faults=("emb_init.json cannot be read",)), limit=5
    )
    assert len(found) == 5 and remarks[0] == "emb_init.json cannot be read"
    assert any("8 embeddings could be made" in remark for remark in remarks)
    assert any("folder names are proposed" in remark for remark in remarks)
