"""What is kept of a scan: never wrong, never in the way."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lib_pivotal.data import dataset as scanning
from lib_pivotal.data.dataset import scan
from lib_pivotal.data.pictures import Look, look

Add = Callable[..., Path]


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that scans open."""
    names: list[str] = []

    def counted(path: Path) -> Look:
        names.append(path.name)
        return look(path)

    monkeypatch.setattr(scanning, "look", counted)
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


@pytest.mark.parametrize("use", [True, False])
def test_a_cache_of_other_making_is_ignored(tmp_path: Path, add: Add, looked: list[str], use: bool) -> None:
    aged(add("d/a.png", caption="x"))
    right = scan(tmp_path / "d", cache=tmp_path / "cache")
    (file,) = (tmp_path / "cache/scans").iterdir()
    plain = json.loads(file.read_text())
    plain["pictures"]["a.png"]["facts"]["width_px"] = "wide"
    file.write_text(json.dumps(plain))
    assert scan(tmp_path / "d", cache=tmp_path / "cache", use_cache=use) == right
    assert looked == ["a.png", "a.png"]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["version", "pictures", "a.png", "size", "changed", "facts", "print", "x"]), inner, max_size=5
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=200), _JSON.map(lambda plain: json.dumps(plain).encode())))
def test_whatever_the_file_holds(tmp_path: Path, add: Add, content: bytes) -> None:
    folder = tmp_path / "d"
    if not folder.exists():
        aged(add("d/a.png", caption="x"))
    right = scan(folder, use_cache=False)
    scan(folder, cache=tmp_path / "cache")
    (file,) = (tmp_path / "cache/scans").iterdir()
    file.write_bytes(content)
    assert scan(folder, cache=tmp_path / "cache") == right
