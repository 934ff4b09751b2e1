"""Metadata of one picture, as people's tools write it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib_pivotal.data.captioning import LONGEST_CAPTION, SUFFIXES, CaptionRecord, CaptionTable, entry_of, read_table
from lib_pivotal.data.dataset import scan
from lib_pivotal.errors import DataError

WAIFUC = {
    "filename": "a.png",
    "tags": {"solo": 0.9, "long_hair": 0.99, "hat_(red)": 0.95, "^_^": 0.1},
    "characters": ["AobaKokona|none|summer+hat", "unknown"],
    "copyright": ["yama_no_susume"],
    "artist": "anonymous",
    "n_people": 1,
    "type": "screenshots",
    "rating": "general",
    "crop": {"type": "halfbody"},
}


@pytest.mark.parametrize(
    ("plain", "captions"),
    [
        ("a, b", ("a, b",)),
        ("a\nb,\n", ("a, b",)),
        (["one", "two", "one", 3], ("one", "two")),
        ({"caption": "a girl"}, ("a girl",)),
        ({"tags": "hat, smile"}, ("hat, smile",)),
        ({"caption": "a girl", "tags": "hat, smile", "train_resolution": [512, 512]}, ("a girl, hat, smile",)),
        ({"text": "a girl"}, ("a girl",)),
        ({"caption": ["one", "two"]}, ("one", "two")),
        ({"tags": {"low": 0.1, "high_tag": 0.9}}, ("high tag, low",)),
        ({"tags": {"high_tag": 0.9}, "caption": "aoi, high tag"}, ("aoi, high tag",)),
        ({"tags": ["red_hat", "c", "o_o"]}, ("red hat, c, o_o",)),
        ({"tags": {"x": 1}, "processed_tags": ["kept"]}, ("kept",)),
        ({"tag_string": "long_hair saber_(fate)"}, (r"long hair, saber \(fate\)",)),
        ({"face": [0, 0, 1, 1]}, ()),
        ({}, ()),
        (None, ()),
        (3, ()),
        ("", ()),
        ("x" * (LONGEST_CAPTION + 1), ()),
    ],
)
def test_captions(plain: Any, captions: tuple[str, ...]) -> None:
    assert entry_of(plain).captions == captions


def test_waifucs_fields_as_kgrid_puts_them() -> None:
    assert entry_of(WAIFUC) == CaptionRecord(
        captions=(r"long hair, hat \(red\), solo, ^_^",),
        fields=(
            ("npeople", "1person"),
            ("characters", "AobaKokona, summer hat"),
            ("copyright", "from yama_no_susume"),
            ("type", "screenshots"),
            ("crop", "halfbody cropped"),
            ("tags", r"long hair, hat \(red\), solo, ^_^"),
        ),
        image_type="screenshots",
    )


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("A", "A"),
        ("A|none", "A"),
        ("A|long hair", "A long hair"),
        ("A|_x|none|hat", "A_x, hat"),
        ("A||x+y|z", "A, x y, z"),
        ("A B|_x y", "A_B_x_y"),
    ],
)
def test_names_of_characters(written: str, said: str) -> None:
    """As kgrid's `Character.to_string(" ", ", ", caption_style=True)` gives them."""
    assert dict(entry_of({"characters": [written]}).fields)["characters"] == said


_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4) | st.sampled_from(
        ["caption", "tags", "text", "characters", "crop", "type", "n_people", "rating", "tag_string", "artist"]
    ), inner, max_size=6),
    max_leaves=20,
)  # fmt: skip


@given(_PLAIN)
def test_any_metadata_gives_plain_captions(plain: Any) -> None:
    entry = entry_of(plain)
    for text in (*entry.captions, *(text for _, text in entry.fields)):
        assert text and "\n" not in text and text == text.strip()
        text.encode("utf-8")


Add = Callable[..., Path]


def captions(folder: Path, **options: object) -> dict[str, str]:
    return {picture.key: picture.caption for picture in scan(folder, **options).pictures}  # type: ignore[arg-type]


@pytest.fixture
def two(tmp_path: Path, add: Add) -> Path:
    add("d/a.png")
    add("d/sub/b.jpg")
    return tmp_path / "d"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("meta_lat.json", json.dumps({"a": {"caption": "one"}, "sub/b": {"caption": "two"}})),
        ("meta.json", json.dumps({"a.png": {"tags": "one"}, "b.jpg": {"tags": "two"}})),
        ("image_captions.json", json.dumps({"a": "one", "b": "two"})),
        ("list.json", json.dumps([{"file_name": "a.png", "text": "one"}, {"file_name": "sub/b.jpg", "text": "two"}])),
        ("metadata.jsonl", '{"file_name": "a.png", "text": "one"}\n\n{"file_name": "sub/b.jpg", "text": "two"}\n'),
        ("metadata.jsonl", '{"image_path": "a.png", "caption": "one"}\r\n{"image_path": "b.jpg", "caption": "two"}'),
        ("metadata.csv", "file_name,text\na.png,one\nsub/b.jpg,two\n"),
        ("captions.csv", "a.png,one\r\nb.jpg,two\r\n"),
        ("captions.csv", "File;Caption\na.png;one\nb.jpg;two\n"),
        ("captions.yaml", "a: one\nb: two\n"),
        ("windows.json", json.dumps({"C:\\set\\a.png": "one", ".\\sub\\b.jpg": "two"})),
    ],
)
def test_tables_are_found(two: Path, name: str, text: str) -> None:
    (two / name).write_text(text, encoding="utf-8")
    assert captions(two) == {"a.png": "one", "sub/b.jpg": "two"}
    said = {problem.code: problem.message for problem in scan(two).problems}
    assert name in said["caption_from_table"]
    for other in ("files", "name"):
        assert captions(two, captions_from=other) == {"a.png": "a", "sub/b.jpg": "b"}


def test_full_paths_as_kohya_writes_them(two: Path) -> None:
    plain = {str(two / "a.png"): {"caption": "one"}, str(two / "sub/b.jpg"): {"caption": "two"}}
    (two / "meta.json").write_text(json.dumps(plain))
    assert captions(two) == {"a.png": "one", "sub/b.jpg": "two"}


def test_a_table_in_a_sub_folder_is_for_it_alone(tmp_path: Path, add: Add) -> None:
    for folder in ("x", "y"):
        add(f"d/{folder}/a.png", seed=len(folder) + ord(folder))
        (tmp_path / f"d/{folder}/metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "text": folder}))
    assert captions(tmp_path / "d") == {"x/a.png": "x", "y/a.png": "y"}


def test_caption_files_come_first_or_never(two: Path) -> None:
    (two / "a.txt").write_text("from the file")
    (two / "meta.json").write_text('{"a": "from the table", "b": "two"}')
    assert captions(two)["a.png"] == "from the file"
    assert captions(two, captions_from="metadata")["a.png"] == "from the table"


def test_other_json_is_left_alone(two: Path) -> None:
    (two / "settings.json").write_text('{"width": 512, "a_list": ["x"]}')
    (two / "emb_init.json").write_text('{"a": ["x"]}')
    (two / "a.json").write_text('{"face": [0, 0, 9, 9]}')
    dataset = scan(two)
    assert captions(two) == {"a.png": "a", "sub/b.jpg": "b"}
    assert "captions_unreadable" not in {problem.code for problem in dataset.problems}


@pytest.mark.parametrize("name", ["metadata.jsonl", "captions.json"])
def test_a_broken_table_is_named(two: Path, name: str) -> None:
    (two / name).write_text('{"file_name": "a.png"')
    told = {problem.code: problem.message for problem in scan(two).problems}
    assert told["captions_unreadable"].startswith(f"{name}: cannot be read as captions")


def test_the_same_name_in_two_folders_is_nobodys() -> None:
    table = CaptionTable({"x/a.png": CaptionRecord(("1",)), "y/a.png": CaptionRecord(("2",))}, root=Path("/d"))
    assert table.find("x/a.png").captions == ("1",)
    assert not table.find("z/a.png") and not table.find("a.jpg")


def test_waifucs_files_and_alternatives(tmp_path: Path, add: Add) -> None:
    add("d/a.png")
    plain = {"tags": {"hat": 0.5, "smile": 0.9}, "characters": ["aoi"], "type": "fanart"}
    (tmp_path / "d/.a_meta.json").write_text(json.dumps(plain))
    add("d/b.png")
    (tmp_path / "d/b.json").write_text('{"caption": ["one", "two"]}')
    add("d/c.png", caption="first\nsecond")
    dataset = scan(tmp_path / "d")
    assert dataset["a.png"].caption == "smile, hat" and dataset["a.png"].image_type == "fanart"
    assert dict(dataset["a.png"].fields) == {"characters": "aoi", "type": "fanart", "tags": "smile, hat"}
    assert (dataset["b.png"].caption, dataset["b.png"].alternatives) == ("one", ("two",))
    assert dataset["c.png"].caption == "first, second"
    drawn = scan(tmp_path / "d", caption_lines="random")["c.png"]
    assert (drawn.caption, drawn.alternatives) == ("first", ("second",))
    assert scan(tmp_path / "d", caption_lines="first")["c.png"].alternatives == ()


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=120), st.text(alphabet='{}[]":,;ab\n\\', max_size=60).map(str.encode)))
def test_whatever_a_file_holds(tmp_path: Path, content: bytes) -> None:
    for suffix in SUFFIXES:
        path = tmp_path / f"x{suffix}"
        path.write_bytes(content)
        try:
            read_table(path, root=tmp_path).find("a.png")
        except DataError as error:
            assert path.name in str(error)
