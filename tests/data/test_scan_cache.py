"""What is kept of a scan: never wrong, never in the way."""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lib_pivotal.data import image_probes
from lib_pivotal.data.dataset import scan
from lib_pivotal.data.fingerprints import TOP_BYTES
from lib_pivotal.data.pictures import ImageProbe, look, whole_print
from lib_pivotal.data.scan_cache import MAGIC

Add = Callable[..., Path]


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that scans open."""
    names: list[str] = []

    def counted(path: Path) -> ImageProbe:
        names.append(path.name)
        return look(path)

    monkeypatch.setattr(image_probes, "look", counted)
    return names


def aged(path: Path) -> Path:
    """As if the file had been written a minute ago."""
    then = time.time_ns() - 60 * 10**9
    os.utime(path, ns=(then, then))
    return path


def test_a_second_scan_opens_only_what_changed(tmp_path: Path, add: Add, looked: list[str]) -> None:
    for name in "abc":
        aged(add(f"d/{name}.png", caption=name))
    cache = tmp_path / "cache"
    first = scan(tmp_path / "d", cache=cache)
    assert sorted(looked) == ["a.png", "b.png", "c.png"]
    looked.clear()
    assert scan(tmp_path / "d", cache=cache) == first and looked == []
    changed = tmp_path / "d/b.png"
    Image.new("RGB", (80, 80)).save(changed)
    aged(changed)
    assert scan(tmp_path / "d", cache=cache)["b.png"].width_px == 80 and looked == ["b.png"]


def test_a_file_of_the_same_size_and_another_time_is_looked_at(tmp_path: Path, add: Add, looked: list[str]) -> None:
    path = aged(add("d/a.png", caption="x"))
    scan(tmp_path / "d", cache=tmp_path / "cache")
    os.utime(path, ns=(path.stat().st_mtime_ns + 1, path.stat().st_mtime_ns + 1))
    scan(tmp_path / "d", cache=tmp_path / "cache")
    assert looked == ["a.png", "a.png"]


def test_a_file_that_was_just_written_is_not_kept(tmp_path: Path, add: Add, looked: list[str]) -> None:
    add("d/a.png", caption="x")
    for _ in range(2):
        scan(tmp_path / "d", cache=tmp_path / "cache")
    assert looked == ["a.png", "a.png"]


def test_captions_are_never_from_the_cache(tmp_path: Path, add: Add) -> None:
    aged(add("d/a.png", caption="old"))
    scan(tmp_path / "d", cache=tmp_path / "cache")
    (tmp_path / "d/a.txt").write_text("new")
    assert scan(tmp_path / "d", cache=tmp_path / "cache")["a.png"].caption == "new"


def test_nothing_is_written_among_the_pictures(tmp_path: Path, add: Add) -> None:
    aged(add("d/a.png", caption="x"))
    scan(tmp_path / "d", cache=tmp_path / "cache")
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == ["a.png", "a.txt"]
    assert len(list((tmp_path / "cache/scans").iterdir())) == 1


def test_broken_pictures_are_looked_at_each_time(tmp_path: Path, add: Add, looked: list[str]) -> None:
    aged(add("d/a.png")).write_bytes(b"no picture")
    aged(tmp_path / "d/a.png")
    for _ in range(2):
        assert len(scan(tmp_path / "d", cache=tmp_path / "cache")) == 0
    assert looked == ["a.png", "a.png"]


def test_a_cache_that_cannot_be_written_is_no_matter(tmp_path: Path, add: Add) -> None:
    aged(add("d/a.png", caption="x"))
    (tmp_path / "cache").write_text("a file where the folder would be")
    assert len(scan(tmp_path / "d", cache=tmp_path / "cache")) == 1


def test_whole_fingerprints_are_kept_too(tmp_path: Path, add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are made only where tops are alike, and once."""
    made: list[str] = []

    def counted(path: Path) -> bytes:
        made.append(path.name)
        return whole_print(path)

    monkeypatch.setattr(image_probes, "whole_print", counted)
    first = aged(add("d/a.png", caption="x", seed=1))
    with Image.open(first) as picture:
        picture.save(tmp_path / "d/b.png", compress_level=1)
    aged(tmp_path / "d/b.png")
    aged(add("d/c.png", caption="x", seed=2))
    cold = scan(tmp_path / "d", cache=tmp_path / "cache")
    assert sorted(made) == ["a.png", "b.png"]
    assert [problem.keys for problem in cold.problems if problem.code == "near_double"] == [("a.png", "b.png")]
    assert scan(tmp_path / "d", cache=tmp_path / "cache") == cold and len(made) == 2
    with Image.open(tmp_path / "d/c.png") as picture:
        picture.save(tmp_path / "d/d.png", compress_level=1)
    aged(tmp_path / "d/d.png")
    again = scan(tmp_path / "d", cache=tmp_path / "cache")
    assert sorted(made) == ["a.png", "b.png", "c.png", "d.png"]
    assert [problem.keys for problem in again.problems if problem.code == "near_double"] == [
        ("a.png", "b.png"),
        ("c.png", "d.png"),
    ]


@pytest.mark.parametrize("use", [True, False])
@pytest.mark.parametrize("place", [len(MAGIC) + 9, 120, -TOP_BYTES // 2, -1])
def test_a_cache_with_a_flipped_bit_is_ignored(
    tmp_path: Path, add: Add, looked: list[str], use: bool, place: int
) -> None:
    aged(add("d/a.png", caption="x"))
    right = scan(tmp_path / "d", cache=tmp_path / "cache")
    (file,) = (tmp_path / "cache/scans").iterdir()
    damaged = bytearray(file.read_bytes())
    damaged[place] ^= 4
    file.write_bytes(damaged)
    assert scan(tmp_path / "d", cache=tmp_path / "cache", use_cache=use) == right
    assert looked == ["a.png", "a.png"]


def test_a_cache_made_by_hand_is_ignored(tmp_path: Path, add: Add, looked: list[str]) -> None:
    """Checksum and length are right, but the text is not."""
    aged(add("d/a.png", caption="x"))
    right = scan(tmp_path / "d", cache=tmp_path / "cache")
    (file,) = (tmp_path / "cache/scans").iterdir()
    whole = file.read_bytes()
    start = len(MAGIC) + 8
    length = int.from_bytes(whole[start - 4 : start], "little")
    plain = json.loads(whole[start : start + length])
    changes = ({"modes": []}, {"paths": [["a.png"]]}, {"paths": 5}, {"paths": []}, {"formats": None})
    for changed in [{**plain, **change} for change in changes] + [[], 7, {}]:
        text = json.dumps(changed).encode()
        body = text + whole[start + length :]
        file.write_bytes(MAGIC + zlib.crc32(body).to_bytes(4, "little") + len(text).to_bytes(4, "little") + body)
        looked.clear()
        assert scan(tmp_path / "d", cache=tmp_path / "cache") == right and looked == ["a.png"], changed


def test_one_file_a_folder_of_the_size_that_it_says(tmp_path: Path, add: Add) -> None:
    aged(add("d/a.png", caption="x"))
    (tmp_path / "cache/scans").mkdir(parents=True)
    (tmp_path / "cache/scans/0123.json").write_text("{}")  # as earlier versions kept them
    scan(tmp_path / "d", cache=tmp_path / "cache")
    (file,) = (tmp_path / "cache/scans").iterdir()
    assert file.read_bytes().startswith(MAGIC) and TOP_BYTES < file.stat().st_size < TOP_BYTES + 200


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["paths", "modes", "formats", "a.png", "RGB", "x"]), inner, max_size=5
    ),
    max_leaves=12,
)  # fmt: skip


def _sealed(text: bytes) -> bytes:
    return MAGIC + zlib.crc32(text).to_bytes(4, "little") + len(text).to_bytes(4, "little") + text


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=200), _JSON.map(lambda plain: _sealed(json.dumps(plain).encode()))))
def test_whatever_the_file_holds(tmp_path: Path, add: Add, content: bytes) -> None:
    folder = tmp_path / "d"
    if not folder.exists():
        aged(add("d/a.png", caption="x"))
    right = scan(folder, use_cache=False)
    scan(folder, cache=tmp_path / "cache")
    (file,) = (tmp_path / "cache/scans").iterdir()
    file.write_bytes(content)
    assert scan(folder, cache=tmp_path / "cache") == right
