"""Datasets of avatars: the three layouts, read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from examples.avatars import make
from examples.avatars.characters import CHARACTERS, STYLES, describable_tags


def captions(folder: Path) -> dict[str, str]:
    """Picture -> caption, having opened every picture."""
    found = {}
    for file in sorted(folder.rglob("*.png")):
        with Image.open(file) as picture:
            assert picture.convert("RGB").size == (64, 64)
        found[file.relative_to(folder).as_posix()] = file.with_suffix(".txt").read_text(encoding="utf-8").strip()
    return found


def test_choosing_embeddings() -> None:
    assert [len(embeddings) for embeddings in make.choose_embeddings(4)] == [4, 0]
    assert [len(embeddings) for embeddings in make.choose_embeddings(5)] == [4, 1]
    assert [len(embeddings) for embeddings in make.choose_embeddings(16)] == [14, 2]
    assert [len(embeddings) for embeddings in make.choose_embeddings(16, styles=0)] == [16, 0]
    assert [len(embeddings) for embeddings in make.choose_embeddings(18)] == [16, 2]


@pytest.mark.parametrize(("count", "styles"), [(0, None), (19, None), (3, 3), (1, 2), (2, -1)])
def test_impossible_embeddings_are_refused(count: int, styles: int | None) -> None:
    with pytest.raises(ValueError, match="there (are|can be) from|styles is"):
        make.choose_embeddings(count, styles=styles)


def test_plain_layout(tmp_path: Path) -> None:
    planned = make.make_dataset(tmp_path, layout="plain", embeddings=5, pictures=4)
    found = captions(tmp_path)
    assert len(found) == len(planned)
    assert sorted(found.values()) == sorted(picture.caption for picture in planned)
    for name in list(CHARACTERS)[:4]:
        mine = [text for text in found.values() if text.startswith(f"{name}, ")]
        assert len(mine) == 4
        assert sum("inkurro" in text.split(", ") for text in mine) == 1
        assert all(set(describable_tags(name).split(", ")) <= set(text.split(", ")) for text in mine)
    alone = [text for text in found.values() if text.startswith("inkurro, 1girl")]
    assert len(alone) == 2  # with the two other words' styled pictures more than the four of a word


def test_pruned_captions_lack_what_the_embedding_absorbs(tmp_path: Path) -> None:
    make.make_dataset(tmp_path, embeddings=1, pictures=3, captions="pruned")
    absorbed = set(describable_tags("akavell").split(", ")) - {"1girl"}
    for text in captions(tmp_path).values():
        assert text.startswith("akavell, 1girl")
        assert not absorbed & set(text.split(", "))


def test_kohya_layout_evens_out(tmp_path: Path) -> None:
    planned = make.make_dataset(tmp_path, layout="kohya", embeddings=4, pictures=8, uneven=True)
    folders = {folder.name: len(list(folder.glob("*.png"))) for folder in tmp_path.iterdir()}
    assert sum(folders.values()) == len(planned)
    assert len(set(folders.values())) > 1
    seen = [int(name.split("_", 1)[0]) * count for name, count in folders.items()]
    assert max(seen) <= 1.5 * min(seen)
    assert {name.split("_", 1)[1] for name in folders} == set(list(CHARACTERS)[:4])


def test_kgrid_layout(tmp_path: Path) -> None:
    planned = make.make_dataset(tmp_path, layout="kgrid", embeddings=5, pictures=4)
    training = tmp_path / "training"
    found = captions(training)
    assert len(found) == len(planned)
    for path, text in found.items():
        image_type, people, *rest = path.split("/")
        embeddings = text.split(", ")
        assert (image_type in STYLES) == (embeddings[0] in STYLES or embeddings[1] in STYLES)
        assert (people == "1_character") == (rest[0] in CHARACTERS)
        assert people == "0_characters" or embeddings[0] == rest[0]
        assert float((training / path).parent.joinpath("multiply.txt").read_text()) >= 1
    initial = json.loads((training / "emb_init.json").read_text())
    assert list(initial) == [*list(CHARACTERS)[:4], "inkurro"]
    assert initial["akavell"] == [
        *("black hair", "short hair", "blue eyes", "fair skin"),
        *("two-tone hair", "cat ears", "cape"),
    ]
    core = json.loads((training / "core_tag.json").read_text())
    assert core["akavell"] == {"kept": [], "dropped": initial["akavell"], "emb_init": initial["akavell"]}
    assert (training / "wildcard.txt").read_text().splitlines()[0] == "1girl, akavell"


def test_kgrid_multiplies_make_all_ways_equal() -> None:
    counts = {"t/plain/a": 4, "t/plain/b": 1, "t/style/x": 2}
    # probabilities 1/4, 1/4, 1/2; per picture 1/16, 1/4, 1/4
    assert make._multiplies(counts) == {"t/plain/a": 1.0, "t/plain/b": 4.0, "t/style/x": 4.0}


def test_seed_decides(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make.make_dataset(tmp_path / name, embeddings=2, pictures=2, seed=seed)
    read = {name: [file.read_bytes() for file in sorted((tmp_path / name).iterdir())] for name in "abc"}
    assert read["a"] == read["b"] != read["c"]


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "set"
    arguments = ["--layout", "plain", "--words", "2", "--pictures", "2", "--out", str(out)]
    assert make.main(arguments) == 0
    assert "4 pictures" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        make.main(arguments)
    assert "is not empty; name an empty folder" in capsys.readouterr().err


def test_pictures_of_two(tmp_path: Path) -> None:
    planned = make.make_dataset(tmp_path, layout="kgrid", embeddings=3, styles=0, pictures=2, pairs=2)
    both = [picture for picture in planned if picture.companion]
    assert len(both) == 6 and both[0].concept == "akavell+brunovi"
    found = captions(tmp_path / "training" / "plain" / "2_characters")
    assert len(found) == 6
    assert all(text.split(", ")[:3] == [*path.split("/")[0].split("+"), "2girls"] for path, text in found.items())
    picture = both[0].draw(64)
    assert picture.size == (64, 64)
    left, right = make.render(both[0].avatar, 64), make.render(both[0].beside, 64)  # type: ignore[arg-type]
    assert picture.crop((0, 0, 32, 64)).tobytes() == left.crop((16, 0, 48, 64)).tobytes()
    assert picture.crop((32, 0, 64, 64)).tobytes() == right.crop((16, 0, 48, 64)).tobytes()
