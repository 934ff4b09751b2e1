"""A changed caption is found by the next scan, and what somebody else wrote meanwhile is never overwritten."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lib_pivotal.commands import captions
from lib_pivotal.commands.datasets import FolderRequest
from lib_pivotal.config import run_from_dict
from lib_pivotal.data import caption_files
from lib_pivotal.data.caption_files import (
    caption_changes,
    caption_place,
    file_text,
    save_caption,
    take_back,
    write_changes,
)
from lib_pivotal.data.dataset import scan
from lib_pivotal.data.pruning import EmbeddingRules, PrunedCaptions, TagRules
from lib_pivotal.data.records import Dataset
from lib_pivotal.errors import DataError


@pytest.mark.parametrize("name", ["a.txt", "a.png.txt", "A.TXT", "a.caption", ""])
def test_the_scan_reads_what_was_saved(tmp_path: Path, add: Callable[..., Path], name: str) -> None:
    picture = add("set/a.png", (64, 64))
    if name:
        (picture.parent / name).write_text("old")
    place = save_caption(picture, " aoi, smile\nhat ", before="old" if name else "")
    assert place.name == (name or "a.txt") and place.read_bytes() == b"aoi, smile\nhat\n"
    assert scan(tmp_path / "set")["a.png"].caption == "aoi, smile, hat"
    assert sorted(path.name for path in picture.parent.iterdir()) == sorted(["a.png", place.name])


def test_the_same_file_as_the_scan_where_there_are_several(tmp_path: Path, add: Callable[..., Path]) -> None:
    picture = add("set/a.png", (64, 64))
    for name in ("a.caption", "a.png.txt", "a.txt"):
        (picture.parent / name).write_text(name)
        assert file_text(picture) == scan(tmp_path / "set")["a.png"].caption == name


def test_a_change_from_elsewhere_is_kept(add: Callable[..., Path]) -> None:
    picture = add("a.png", (64, 64), caption="old")
    caption_place(picture).write_text("from elsewhere")
    with pytest.raises(DataError, match="another program has changed"):
        save_caption(picture, "mine", before="old")
    assert file_text(picture) == "from elsewhere"


def test_a_backup_only_when_asked_and_the_oldest_stays(add: Callable[..., Path]) -> None:
    picture = add("a.png", (64, 64), caption="first")
    kept = picture.with_name("a.txt.bak")
    save_caption(picture, "second", before="first")
    assert not kept.exists()
    save_caption(picture, "third", before=file_text(picture), backup=True)
    save_caption(picture, "fourth", before=file_text(picture), backup=True)
    assert kept.read_text() == "second\n" and file_text(picture) == "fourth"


def test_a_place_that_cannot_be_written(add: Callable[..., Path]) -> None:
    picture = add("a.png", (64, 64))
    (picture.parent / "a.txt").mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        save_caption(picture, "mine", before="")


CAPTIONS = ["aoi, red hair, hat\r\n", "aoi,red hair, park", "hana, red hair", "aoi, red hair\nsecond line, hat"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "pictures"
    made.mkdir()
    for number, caption in enumerate(CAPTIONS):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(made / f"{number}.png")
        (made / f"{number}.txt").write_bytes(caption.encode())
    return made


def _wording(
    dataset: Dataset, uses: Sequence[EmbeddingRules] = (EmbeddingRules("aoi", prune=True), EmbeddingRules("hana"))
) -> PrunedCaptions:
    return PrunedCaptions(dataset.pictures, uses, TagRules())


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.txt"))}


def test_a_preview_changes_nothing_and_says_what_would_be_written(folder: Path) -> None:
    before = _contents(folder)
    dataset = scan(folder)
    found = caption_changes(dataset, _wording(dataset))
    assert _contents(folder) == before
    assert [(change.key, change.text_after) for change in found.changes] == [
        ("0.png", "aoi, hat"),
        ("1.png", "aoi, park"),
        ("3.png", "aoi, second line, hat"),
    ]


def test_written_captions_are_those_that_are_trained_and_come_back_byte_for_byte(folder: Path, tmp_path: Path) -> None:
    before, dataset = _contents(folder), scan(folder)
    found = caption_changes(dataset, _wording(dataset))
    record = tmp_path / "runs" / "captions" / "1.json"
    assert write_changes(found.changes, record).written == 3
    after = scan(folder)
    assert [p.caption for p in after.pictures] == [p.caption for p in _wording(dataset).captions()]
    assert _contents(folder)["2.txt"] == before["2.txt"]
    assert take_back(record) == caption_files.Outcome(3) and _contents(folder) == before
    assert not record.exists()


def test_a_embedding_that_folders_give_gets_a_file_and_loses_it_again(folder: Path, tmp_path: Path) -> None:
    (folder / "2.txt").unlink()
    dataset = scan(folder)
    uses = [EmbeddingRules("style", applies_to=("2.png",))]
    found = caption_changes(dataset, _wording(dataset, uses))
    assert [change.before for change in found.changes] == [None]
    write_changes(found.changes, tmp_path / "r.json")
    assert (folder / "2.txt").read_text().startswith("style")
    take_back(tmp_path / "r.json")
    assert not (folder / "2.txt").exists()


def test_what_others_changed_is_left_alone(folder: Path, tmp_path: Path) -> None:
    dataset = scan(folder)
    found = caption_changes(dataset, _wording(dataset))
    (folder / "0.txt").write_text("mine")
    outcome = write_changes(found.changes, tmp_path / "r.json")
    assert outcome.written == 2 and "0.txt: another program" in outcome.left[0]
    (folder / "1.txt").write_text("mine, too")
    outcome = take_back(tmp_path / "r.json")
    assert (outcome.written, len(outcome.left)) == (1, 2) and (tmp_path / "r.json").exists()
    assert (folder / "0.txt").read_text() == "mine" and (folder / "1.txt").read_text() == "mine, too"
    assert (folder / "3.txt").read_bytes() == CAPTIONS[3].encode()


def test_writing_that_was_cut_off_can_be_taken_back(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, dataset = _contents(folder), scan(folder)
    found = caption_changes(dataset, _wording(dataset))
    real, calls = caption_files.replacing, []

    def failing(path: Path, **how: bool):  # type: ignore[no-untyped-def]
        calls.append(path)
        if len(calls) == 3:  # the record, one file, then the end
            raise KeyboardInterrupt
        return real(path, **how)

    monkeypatch.setattr(caption_files, "replacing", failing)
    with pytest.raises(KeyboardInterrupt):
        write_changes(found.changes, tmp_path / "r.json")
    monkeypatch.undo()
    assert _contents(folder) != before
    assert take_back(tmp_path / "r.json").written == 1 and _contents(folder) == before


def test_several_captions_of_a_picture_are_left_alone(folder: Path) -> None:
    dataset = scan(folder)
    first = replace(dataset.pictures[0], alternatives=("aoi, red hair, coat",))
    dataset = replace(dataset, pictures=(first, *dataset.pictures[1:]))
    found = caption_changes(dataset, _wording(dataset))
    assert found.several == ("0.png",) and "0.png" not in [change.key for change in found.changes]


def test_a_digest_tells_previews_apart(folder: Path) -> None:
    dataset = scan(folder)
    first = caption_changes(dataset, _wording(dataset))
    assert caption_changes(dataset, _wording(dataset)).digest == first.digest
    (folder / "0.txt").write_text("mine")
    assert caption_changes(dataset, _wording(dataset)).digest != first.digest


def test_no_record_no_change(folder: Path, tmp_path: Path) -> None:
    before, dataset = _contents(folder), scan(folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="no caption was changed"):
        write_changes(caption_changes(dataset, _wording(dataset)).changes, tmp_path / "file" / "r.json")
    assert _contents(folder) == before
    for text in ("", "{}", json.dumps({"version": 9, "files": []}), json.dumps({"version": 1, "files": [{}]})):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(DataError):
            take_back(tmp_path / "bad.json")


def test_a_folder_is_listed_once_however_many_pictures_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2,000 pictures took 42 s and 20,000 would have taken an hour: the folder was listed for each of them."""
    count = 150
    for number in range(count):
        Image.new("RGB", (40, 40), (number, 90, 10)).save(tmp_path / f"{number}.png")
        if number % 3:  # others have their caption by an `applies_to` alone
            (tmp_path / f"{number}.{('txt', 'TXT', 'caption')[number % 3]}").write_text("aoi, blue hair, smile")
    looked_at: Counter[str] = Counter()
    listdir, scandir = os.listdir, os.scandir

    def counted(function: Any) -> Any:
        def call(path: Any = ".") -> Any:
            looked_at[str(path)] += 1
            return function(path)

        return call

    run = run_from_dict(
        {"words": [{"name": "aoi", "prune": True, "absorb": ["blue hair"], "applies_to": ["concept:*"]}]}
    )
    monkeypatch.setattr(os, "listdir", counted(listdir))
    monkeypatch.setattr(os, "scandir", counted(scandir))
    request = FolderRequest(tmp_path, run)
    found = captions.preview_as_dict(captions.preview(request))
    assert len(found["changes"]) == count
    assert sum(looked_at.values()) <= 12, looked_at
    places = {Path(change["file"]).name for change in found["changes"]}
    assert {"0.txt", "1.TXT", "2.caption"} <= places
    looked_at.clear()
    assert captions.write(captions.preview(request), tmp_path, home=tmp_path / ".home").written == count
    assert captions.take_back(tmp_path, home=tmp_path / ".home").written == count
    assert sum(looked_at.values()) <= 24, looked_at
