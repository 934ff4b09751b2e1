"""What kgrid's pipeline leaves beside a dataset, in all the forms that it has had; damaged files are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from examples.avatars import make
from lib_pivotal.data.sources.kgrid_files import CoreTags, read_kgrid_files


def test_a_folder_without_them_is_normal(tmp_path: Path) -> None:
    found = read_kgrid_files(tmp_path)
    assert (dict(found.initial), dict(found.core), found.faults) == ({}, {}, ())


def test_what_the_avatars_write(tmp_path: Path) -> None:
    make.make_dataset(tmp_path / "d", layout="kgrid", embeddings=5, pictures=2)
    found = read_kgrid_files(tmp_path / "d")  # the files lie in training/
    assert found.initial["akavell"] == tuple(make.core_tags("akavell")) and found.initial["inkurro"] == ()
    assert found.core["akavell"] == CoreTags(dropped=tuple(make.core_tags("akavell")))
    assert read_kgrid_files(tmp_path / "d" / "training").initial == found.initial


@pytest.mark.parametrize("place", [".", "training"])
def test_tables_of_initial_embeddings(tmp_path: Path, place: str) -> None:
    (tmp_path / place).mkdir(exist_ok=True)
    table = 'Screenshots,anime screencap\n\n"Aoi Hino","blue hair, horns"\nkaze,tail,wings\nnone\n'
    (tmp_path / place / "emb_init.csv").write_text(table, encoding="utf-8")
    assert read_kgrid_files(tmp_path).initial == {
        "screenshots": ("anime screencap",),
        "aoi-hino": ("blue hair", "horns"),
        "kaze": ("tail", "wings"),
        "none": (),
    }


def test_json_comes_before_the_table_and_the_folder_before_training(tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "emb_init.csv").write_text("kaze,tail\n", encoding="utf-8")
    (tmp_path / "training" / "emb_init.json").write_text('{"aoi": "horns, fang"}', encoding="utf-8")
    assert read_kgrid_files(tmp_path).initial == {"aoi": ("horns", "fang")}
    (tmp_path / "emb_init.json").write_text('{"hana": ["halo"]}', encoding="utf-8")
    assert read_kgrid_files(tmp_path).initial == {"hana": ("halo",)}


def test_core_tags_of_now_and_of_before(tmp_path: Path) -> None:
    plain = {
        "Aoi": {"kept": ["hat"], "dropped": ["blue hair", "horns"], "emb_init": ["horns"]},
        "Hana": ["green hair"],
        "Kaze": {},
    }
    (tmp_path / "core_tag.json").write_text(json.dumps(plain), encoding="utf-8")
    assert read_kgrid_files(tmp_path).core == {
        "aoi": CoreTags(("blue hair", "horns"), ("hat",)),
        "hana": CoreTags(("green hair",)),
        "kaze": CoreTags(),
    }


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"aoi": 3}', '{"aoi": {"dropped": 3}}', '{"aoi": null}', "\x00"])
@pytest.mark.parametrize("name", ["emb_init.json", "core_tag.json"])
def test_damaged_files_are_named_and_nothing_else_is_lost(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    other = "core_tag.json" if name == "emb_init.json" else "emb_init.json"
    (tmp_path / other).write_text('{"hana": ["halo"]}', encoding="utf-8")
    found = read_kgrid_files(tmp_path)
    if text == '{"aoi": {"dropped": 3}}' and name == "emb_init.json":
        assert found.faults  # an object is no list of tags
    assert len(found.faults) == 1 and name in found.faults[0]
    assert len(found.initial) + len(found.core) == 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=60))
def test_any_bytes_are_read_or_named(tmp_path: Path, data: bytes) -> None:
    for name in ("emb_init.json", "core_tag.json", "emb_init.csv"):
        (tmp_path / name).write_bytes(data)
    read_kgrid_files(tmp_path)
