"""Folders as people have them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from lib_pivotal.data.dataset import Dataset, scan
from lib_pivotal.errors import DataError

Add = Callable[..., Path]


def _problems(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    return {problem.code: problem.keys for problem in dataset.problems}


def test_plain_folder_in_natural_order(tmp_path: Path, add: Add) -> None:
    for number in (10, 2, 1):
        add(f"cats/{number}.png", (64, 48), caption=f"cat, number {number}")
    dataset = scan(tmp_path / "cats")
    assert [picture.key for picture in dataset.pictures] == ["1.png", "2.png", "10.png"]
    assert dataset.concepts == {"cats": ("1.png", "2.png", "10.png")}
    assert dataset["2.png"].caption == "cat, number 2"
    assert (dataset["2.png"].width_px, dataset["2.png"].height_px, dataset["2.png"].repeats) == (64, 48, 1)
    assert dataset.problems == ()


def test_sub_folders_are_concepts(tmp_path: Path, add: Add) -> None:
    add("hanako/a.png", caption="x")
    add("hanako/summer/b.png", caption="y")
    add("taro/a.png", caption="z")
    dataset = scan(tmp_path)
    assert dataset.concepts == {"hanako": ("hanako/a.png", "hanako/summer/b.png"), "taro": ("taro/a.png",)}
    assert dataset.captions("taro") == ["z"] and dataset.captions() == ["x", "y", "z"]


def test_kohya_folders_repeat(tmp_path: Path, add: Add) -> None:
    add("img/10_hanako girl/a.png", caption="hanako, hat")
    add("img/10_hanako girl/b.png")
    add("img/1_style/c.png")
    add("img/0_off/d.png")
    dataset = scan(tmp_path)
    assert {picture.key: picture.repeats for picture in dataset.pictures} == {
        "img/1_style/c.png": 1, "img/10_hanako girl/a.png": 10, "img/10_hanako girl/b.png": 10,
    }  # fmt: skip
    assert dataset["img/10_hanako girl/b.png"].caption == "hanako girl"  # as kohya does without a caption file
    assert list(dataset.concepts) == ["hanako girl", "style"]
    assert _problems(dataset)["no_repeats"] == ("img/0_off/d.png",)
    assert scan(tmp_path / "img" / "10_hanako girl").pictures[0].repeats == 10
    assert dataset.summary()["samples_per_epoch"] == 21


def test_a_year_is_hardly_a_number_of_repeats(tmp_path: Path, add: Add) -> None:
    add("d/2023_trip/a.png", caption="x")
    assert _problems(scan(tmp_path / "d"))["many_repeats"] == ("2023_trip/a.png",)


def test_caption_choices(tmp_path: Path, add: Add) -> None:
    add("d/both.png", caption="from txt")
    (tmp_path / "d/both.caption").write_text("from caption")
    add("d/double.png")
    (tmp_path / "d/double.png.txt").write_text("double ending")
    add("d/upper.png")
    (tmp_path / "d/upper.TXT").write_text("upper")
    add("d/01 a_red_hat.png")
    add("d/IMG_1.png")
    add("d/blank.png", caption=" \n")
    folder = tmp_path / "d"
    captions = {picture.key: picture.caption for picture in scan(folder).pictures}
    assert captions == {
        "01 a_red_hat.png": "a red hat", "both.png": "from txt", "double.png": "double ending",
        "upper.png": "upper", "IMG_1.png": "", "blank.png": "",
    }  # fmt: skip
    problems = _problems(scan(folder))
    assert problems["no_caption"] == ("blank.png", "IMG_1.png")
    assert problems["caption_from_name"] == ("01 a_red_hat.png",)
    assert scan(folder, caption_extensions=(".caption", ".txt"))["both.png"].caption == "from caption"
    both = scan(folder, caption_lines="random")["both.png"]
    assert (both.caption, both.alternatives) == ("from txt", ("from caption",))
    assert scan(folder)["both.png"].alternatives == ()
    assert scan(folder, missing_caption="concept")["IMG_1.png"].caption == "d"
    assert scan(folder, missing_caption="empty")["01 a_red_hat.png"].caption == ""


def test_bad_files_are_named_and_left_out(tmp_path: Path, add: Add) -> None:
    add("d/good.png", caption="x")
    add("d/tiny.png", (20, 300), caption="x")
    (tmp_path / "d/empty.png").touch()
    (tmp_path / "d/text.jpg").write_text("no picture")
    cut = add("d/cut.png", (64, 64), caption="x")
    cut.write_bytes(cut.read_bytes()[:-200])
    (tmp_path / "d/notes.docx").write_text("?")
    dataset = scan(tmp_path / "d")
    assert [picture.key for picture in dataset.pictures] == ["good.png"]
    assert {p.keys[0] for p in dataset.problems if p.code == "unreadable"} == {"empty.png", "text.jpg", "cut.png"}
    assert _problems(dataset)["too_small"] == ("tiny.png",)
    assert _problems(dataset)["ignored_files"] == ("notes.docx",)
    assert [problem.level for problem in dataset.problems] == ["error"] * 4 + ["info"]
    assert len(scan(tmp_path / "d", minimum_px=20)) == 2


def test_hidden_files_are_not_there(tmp_path: Path, add: Add) -> None:
    add("d/a.png", caption="x")
    add("d/._a.png")
    add("d/.hidden/b.png")
    add("d/__MACOSX/c.png")
    assert [picture.key for picture in scan(tmp_path / "d").pictures] == ["a.png"]


def test_rotated_size_and_animation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 40)).save(tmp_path / "a turned.jpg", exif=exif)
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "b moving.gif", save_all=True, append_images=frames[1:])
    dataset = scan(tmp_path)
    assert (dataset["a turned.jpg"].width_px, dataset["a turned.jpg"].height_px) == (40, 80)
    assert _problems(dataset)["animated"] == ("b moving.gif",)


def test_duplicates_are_named(tmp_path: Path, add: Add) -> None:
    add("d/a.png", caption="x")
    shutil.copy(tmp_path / "d/a.png", tmp_path / "d/copy of a.png")
    add("d/b.png", caption="x")
    assert _problems(scan(tmp_path / "d"))["duplicate"] == ("a.png", "copy of a.png")
    assert len(scan(tmp_path / "d")) == 3
    assert [p.key for p in scan(tmp_path / "d", duplicates="skip").pictures] == ["a.png", "b.png"]


def test_same_stem(tmp_path: Path, add: Add) -> None:
    add("d/a.png", caption="shared")
    add("d/a.jpg")
    dataset = scan(tmp_path / "d")
    assert dataset.captions() == ["shared", "shared"]
    assert _problems(dataset)["same_stem"] == ("a.jpg", "a.png")


def test_masks_are_found_and_are_no_pictures(tmp_path: Path, add: Add) -> None:
    add("d/a.png", caption="x")
    add("d/mask/a.png")
    add("d/b.png", caption="x")
    add("d/b-masklabel.png")
    add("d/taro/c.jpg", caption="x")
    add("d/mask/taro/c.png")
    add("d/plain.png", caption="x")
    add("d/mask/nobody.png")
    dataset = scan(tmp_path / "d")
    masks = {picture.key: picture.mask_path for picture in dataset.pictures}
    root = tmp_path / "d"
    assert masks == {
        "a.png": root / "mask/a.png", "b.png": root / "b-masklabel.png",
        "taro/c.jpg": root / "mask/taro/c.png", "plain.png": None,
    }  # fmt: skip
    assert _problems(dataset)["mask_without_picture"] == ("mask/nobody.png",)
    assert dataset.summary()["masks"] == 3


def test_caption_in_an_old_encoding(tmp_path: Path, add: Add) -> None:
    add("d/a.png")
    (tmp_path / "d/a.txt").write_bytes("größe".encode("cp1252"))
    dataset = scan(tmp_path / "d")
    assert dataset["a.png"].caption == "größe"
    assert _problems(dataset)["caption_encoding"] == ("a.png",)


def test_unreadable_caption_and_folder(tmp_path: Path, add: Add) -> None:
    add("d/a.png")
    (tmp_path / "d/a.txt").mkdir()  # a folder is no caption
    assert scan(tmp_path / "d")["a.png"].caption == "a"
    if os.geteuid() != 0:
        (tmp_path / "d/a.txt").chmod(0)
        assert "folder_unreadable" in _problems(scan(tmp_path / "d"))


def test_links_do_not_loop(tmp_path: Path, add: Add) -> None:
    add("d/sub/a.png", caption="x")
    (tmp_path / "d/sub/back").symlink_to(tmp_path / "d")
    (tmp_path / "d/dangling.png").symlink_to(tmp_path / "nowhere.png")
    dataset = scan(tmp_path / "d")
    assert [picture.key for picture in dataset.pictures] == ["sub/a.png"]
    assert _problems(dataset)["unreadable"] == ("dangling.png",)


def test_empty_and_missing_folders(tmp_path: Path) -> None:
    dataset = scan(tmp_path)
    assert len(dataset) == 0 and _problems(dataset)["no_pictures"] == ()
    with pytest.raises(DataError, match=r"nowhere: does not exist\. Give the folder"):
        scan(tmp_path / "nowhere")
    (tmp_path / "file.doc").touch()
    with pytest.raises(DataError, match="is a file"):
        scan(tmp_path / "file.doc")
    with pytest.raises(DataError, match="no such picture"):
        dataset["a.png"]


def test_summary_is_json(tmp_path: Path, add: Add) -> None:
    add("d/3_hanako/a.png", caption="x")
    (tmp_path / "d/empty.png").touch()
    summary = json.loads(json.dumps(scan(tmp_path / "d").summary()))
    assert summary["concepts"] == {"hanako": {"pictures": 1, "samples_per_epoch": 3}}
    assert summary["problems"][0]["code"] == "unreadable"
    assert summary["sizes"] == {"64x64": 1}


def test_scanning_twice_gives_the_same(tmp_path: Path, add: Add) -> None:
    for number in range(12):
        add(f"d/{number % 3}_c/{number}.png", caption="x")
    assert scan(tmp_path / "d") == scan(tmp_path / "d", workers=1)
