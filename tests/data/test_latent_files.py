"""Entries on disk: exact, atomic, and absent when damaged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lib_pivotal.data.latent_files import LatentFiles, entry_name, remove_entries
from lib_pivotal.errors import DataError

TENSORS = {"mean": torch.arange(16.0).reshape(1, 4, 4), "std": torch.rand(1, 4, 4)}
NAME = entry_name({"picture": "abc", "box": (0, 0, 8, 8)})


def test_names_depend_on_every_fact() -> None:
    assert entry_name({"a": 1, "b": (1, 2)}) == entry_name({"b": [1, 2], "a": 1})
    assert len({entry_name({"a": 1}), entry_name({"a": 2}), entry_name({"b": 1}), entry_name({})}) == 4


def test_round_trip_is_exact(tmp_path: Path) -> None:
    files = LatentFiles(tmp_path / "new" / "cache")
    assert files.read(NAME) is None
    files.write(NAME, TENSORS)
    back = files.read(NAME)
    assert back is not None and all(torch.equal(back[key], TENSORS[key]) for key in TENSORS)
    assert set(load_file(files.path(NAME))) == {"mean", "std"}  # a plain safetensors file
    assert [path.name for path in files.path(NAME).parent.iterdir()] == [f"{NAME}.safetensors"]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text", "length"])
def test_damage_reads_as_absent(tmp_path: Path, damage: str) -> None:
    files = LatentFiles(tmp_path)
    files.write(NAME, TENSORS)
    path = files.path(NAME)
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[:-5]
    elif damage == "flip":
        data[-3] ^= 1
    elif damage == "length":
        data[:8] = b"\xff" * 8
    else:
        data = bytearray(b"" if damage == "empty" else b"not a safetensors file")
    path.write_bytes(data)
    assert files.read(NAME) is None
    files.write(NAME, TENSORS)
    assert files.read(NAME) is not None


def test_an_entry_under_another_name_is_refused(tmp_path: Path) -> None:
    files = LatentFiles(tmp_path)
    files.write(NAME, TENSORS)
    other = entry_name({"picture": "other"})
    files.path(other).parent.mkdir(exist_ok=True)
    files.path(NAME).rename(files.path(other))
    assert files.read(other) is None


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = LatentFiles(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left"):
        files.write(NAME, TENSORS)
    assert list(files.path(NAME).parent.iterdir()) == []


def test_old_leftovers_are_swept(tmp_path: Path) -> None:
    LatentFiles(tmp_path).write(NAME, TENSORS)
    old, new = tmp_path / NAME[:2] / ".x.1.tmp", tmp_path / NAME[:2] / ".y.2.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    LatentFiles(tmp_path)
    assert not old.exists() and new.exists()  # a young one may be another process's


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be made"):
        LatentFiles(tmp_path / "file" / "cache")


def test_only_entries_are_removed(tmp_path: Path) -> None:
    files = LatentFiles(tmp_path / "mine")
    for number in range(3):
        files.write(entry_name({"number": number}), {"mean": torch.zeros(2)})
    remove_entries(tmp_path / "mine")
    assert not (tmp_path / "mine").exists()
    remove_entries(tmp_path / "mine")  # nothing there: nothing to do
    files = LatentFiles(tmp_path / "shared")
    files.write(entry_name({"number": 1}), {"mean": torch.zeros(2)})
    (tmp_path / "shared" / "ab").mkdir(exist_ok=True)
    kept = [tmp_path / "shared" / "notes.txt", tmp_path / "shared" / "ab" / "my-lora.safetensors"]
    for path in kept:
        path.write_text("x")
    remove_entries(tmp_path / "shared")
    assert sorted(path for path in (tmp_path / "shared").rglob("*") if path.is_file()) == sorted(kept)
