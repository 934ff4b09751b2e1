"""Dataset files of other trainers, templates, and which of them a folder is."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib_pivotal.config import Run
from lib_pivotal.data.dataset import Dataset
from lib_pivotal.data.dataset import scan as scan_with
from lib_pivotal.data.sources.layout import read_layout as read_layout_with
from lib_pivotal.data.sources.source import labels
from lib_pivotal.errors import DataError
from lib_pivotal.importing.datasets import DATASET_FILES
from lib_pivotal.importing.import_log import place
from lib_pivotal.training.scanning import with_settings

scan = partial(scan_with, files=DATASET_FILES)
read_layout = partial(read_layout_with, files=DATASET_FILES)

Add = Callable[..., Path]

KOHYA = """
[general]
shuffle_caption = true
keep_tokens = 1
caption_extension = '.txt'
flip_aug = false

[[datasets]]
resolution = [768, 512]
batch_size = 4
bucket_no_upscale = true
network_multiplier = 1.0

  [[datasets.subsets]]
  image_dir = 'hanako'
  num_repeats = 10
  class_tokens = 'hanako girl'
  caption_prefix = 'best,'
  flip_aug = true

  [[datasets.subsets]]
  image_dir = 'taro'
  flip_aug = false
  face_crop_aug_range = [1.0, 2.0]

  [[datasets.subsets]]
  is_reg = true
  image_dir = 'reg'
  class_tokens = '1girl'

  [[datasets.subsets]]
  image_dir = 'gone'
"""
HCP = """
dataset_dir: 'pictures'
data:
  dataset1:
    batch_size: 2
    loss_weight: 1.0
    source:
      data_source_1:
        img_root: '${dataset_dir}/hanako'
        repeat: 3
        prompt_template: 'caption.txt'
        caption_file: 'pictures/captions.json'
        word_names: {pt1: hanako, class: girl}
        text_transforms:
          transforms:
            - {_target_: hcpdiff.utils.caption_tools.TagDropout, p: 0.2}
            - {_target_: hcpdiff.utils.caption_tools.TagShuffle}
            - {_target_: hcpdiff.utils.caption_tools.TemplateFill}
    bucket: {target_area: '${hcp.eval:"512*768"}', num_bucket: 4}
  dataset_class:
    source:
      data_source_1: {img_root: 'pictures/class', caption_file: null, prompt_template: null}
"""


def facts(dataset: Dataset) -> dict[str, tuple[str, float, str]]:
    return {picture.key: (picture.concept, picture.repeats, picture.caption) for picture in dataset.pictures}


def codes(dataset: Dataset) -> dict[str, str]:
    return {problem.code: problem.message for problem in dataset.problems}


@pytest.fixture
def kohya(tmp_path: Path, add: Add) -> Path:
    add("hanako/a.png", caption="hat\nsecond line")
    add("hanako/b.png")
    add("hanako/deeper/c.png", caption="not read")
    add("taro/a.png", caption="smile", seed=7)
    add("reg/a.png")
    (tmp_path / "dataset.toml").write_text(KOHYA)
    return tmp_path


@pytest.mark.parametrize("as_file", [True, False])
def test_kohyas_dataset_file(kohya: Path, as_file: bool) -> None:
    dataset = scan(kohya / "dataset.toml" if as_file else kohya)
    assert dataset.layout == "kohya_toml" and dataset.folder == kohya
    assert facts(dataset) == {
        "hanako/a.png": ("hanako girl", 10, "best, hat"),
        "hanako/b.png": ("hanako girl", 10, "best, hanako girl"),
        "taro/a.png": ("taro", 1, "smile"),
    }
    assert dataset.settings == {
        "data.shuffle_tags": True,
        "data.keep_first": 1,
        "data.resolution_px": 627,
        "schedule.batch_size": 4,
        "data.upscale": False,
        "regularisation.folder": str(kohya / "reg"),
        "regularisation.class_text": "1girl",
        "data.parts": ({"applies_to": "hanako/*", "flip": True}, {"applies_to": "taro/*", "flip": False}),
    }
    told = codes(dataset)
    assert "image_dir 'gone' is no folder here" in told["folder_missing"]
    assert "face_crop_aug_range" in told["setting_not_taken"]
    assert "flip_aug (each folder its own, data.parts)" in told["setting_translated"]
    assert "keep_tokens (data.keep_first = 1)" in told["setting_taken"] and "num_repeats" in told["setting_taken"]
    assert "Read as kohya's dataset file dataset.toml" in told["layout"]


def test_settings_of_a_layout_go_into_a_run(kohya: Path) -> None:
    run = with_settings(Run(), {**scan(kohya).settings, "data.tag_dropout": 7.0})
    assert (run.data.shuffle_tags, run.data.keep_first, run.schedule.batch_size) == (True, 1, 4)
    assert run.data.tag_dropout == 0.0  # not allowed, so not taken


def test_kohyas_metadata_file(tmp_path: Path, add: Add) -> None:
    add("img/a.png", caption="from the file")
    (tmp_path / "meta.json").write_text(json.dumps({"a": {"caption": "a girl", "tags": "hat, smile"}}))
    (tmp_path / "set.toml").write_text("[[datasets]]\n[[datasets.subsets]]\nimage_dir='img'\nmetadata_file='meta.json'")
    assert scan(tmp_path / "set.toml")["a.png"].caption == "a girl, hat, smile"


def test_hcps_dataset_file(tmp_path: Path, add: Add) -> None:
    add("pictures/hanako/a.png")
    add("pictures/class/b.png")
    (tmp_path / "pictures/captions.json").write_text('{"a": "hat, smile"}')
    (tmp_path / "caption.txt").write_text("{pt1}, {caption}\n")
    (tmp_path / "dataset.yaml").write_text(HCP)
    dataset = scan(tmp_path)
    assert dataset.layout == "hcp"
    assert facts(dataset) == {"a.png": ("hanako", 3, "hat, smile")}
    assert dataset.settings == {
        "data.templates": ("{word}, {caption}",),
        "data.tag_dropout": 0.2,
        "data.shuffle_tags": True,
        "data.resolution_px": 627,
        "schedule.batch_size": 2,
        "regularisation.folder": str(tmp_path / "pictures/class"),
    }


def test_hcps_captions_in_another_folder(tmp_path: Path, add: Add) -> None:
    add("imgs/a.png")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("from there")
    source = {"img_root": "imgs", "caption_file": {"_target_": "hcpdiff.data.TXTCaptionLoader", "path": "texts"}}
    plain = {"data": {"d": {"source": {"s": source}}}}
    (tmp_path / "d.yaml").write_text(json.dumps(plain))  # json is yaml
    assert scan(tmp_path / "d.yaml")["a.png"].caption == "from there"


def concept(path: str, **changes: Any) -> dict[str, Any]:
    return {
        "path": path,
        "name": "",
        "enabled": True,
        "include_subdirectories": False,
        "image": {},
        "text": {},
        **changes,
    }


def test_onetrainers_concepts(tmp_path: Path, add: Add) -> None:
    add("hanako/a.png", caption="one\ntwo")
    add("hanako/deep/b.png", caption="three")
    add("taro/01_red hat.png", caption="not this")
    add("prior/c.png")
    add("all/d.png")
    (tmp_path / "prompts.txt").write_text("first\n\nsecond\n")
    text = {"prompt_source": "concept", "prompt_path": "prompts.txt", "enable_tag_shuffling": False}
    plain = [
        concept("hanako", name="Hana", include_subdirectories=True, balancing=2.5, image={"enable_random_flip": True}),
        concept("taro", text={"prompt_source": "filename"}, balancing=8, balancing_strategy="SAMPLES"),
        concept("all", text=text, loss_weight=0.5, image={"enable_random_rotate": True}),
        concept("prior", type="PRIOR_PREDICTION"),
        concept("hanako", enabled=False),
        concept("nowhere"),
    ]
    (tmp_path / "concepts.json").write_text(json.dumps(plain))
    dataset = scan(tmp_path)
    assert dataset.layout == "onetrainer"
    assert facts(dataset) == {
        "hanako/a.png": ("Hana", 2.5, "one"),
        "hanako/deep/b.png": ("Hana", 2.5, "three"),
        "taro/01_red hat.png": ("taro", 8, "01_red hat"),
        "all/d.png": ("all", 1, "first"),
    }
    assert dataset["hanako/a.png"].alternatives == ("two",) and dataset["all/d.png"].alternatives == ("second",)
    assert dataset.settings["regularisation.folder"] == str(tmp_path / "prior")
    assert dataset.settings["regularisation.target"] == "prior"
    told = codes(dataset)
    assert "image.enable_random_rotate" in told["setting_not_taken"]
    assert [part["loss_weight"] for part in dataset.settings["data.parts"]] == [1.0, 1.0, 0.5]
    assert "nowhere" in told["folder_missing"]


def test_templates_of_the_web_ui(tmp_path: Path, add: Add) -> None:
    add("d/01-a red hat.png")
    (tmp_path / "d/style_filewords.txt").write_text("a painting of [filewords], art by [name]\na picture by [name]\n")
    dataset = scan(tmp_path / "d")
    assert dataset.settings == {"data.templates": ("a painting of [filewords], art by [name]", "a picture by [name]")}
    assert dataset["01-a red hat.png"].caption == "a red hat"
    (tmp_path / "d/notes.txt").write_text("call [name] later\nand buy milk")
    assert len(scan(tmp_path / "d").settings["data.templates"]) == 2


def test_kgrids_wildcards_become_a_list(tmp_path: Path, add: Add) -> None:
    add("d/screenshots/1_character/aoi/a.png", caption="x")
    (tmp_path / "d/wildcard.txt").write_text("aoi\naoi, hat\n")
    assert scan(tmp_path / "d").settings == {"data.word_lists": ("wildcard = aoi | aoi, hat",)}


def test_a_dataset_file_that_is_none(tmp_path: Path, add: Add) -> None:
    add("d/a.png", caption="x")
    for name, text in {"a.toml": "[train]\nlr = 1", "b.json": '{"x": 1}', "c.yaml": "{", "d.toml": "= ="}.items():
        (tmp_path / "d" / name).write_text(text)
    assert scan(tmp_path / "d").layout == "plain"
    for layout in ("kohya_toml", "hcp", "onetrainer", "archive"):
        with pytest.raises(DataError):
            scan(tmp_path / "d", layout=layout)
    with pytest.raises(DataError, match="is a file, not a folder"):
        scan(tmp_path / "d/a.toml")


def test_none_of_its_folders_is_there(tmp_path: Path) -> None:
    (tmp_path / "d.toml").write_text("[[datasets]]\n[[datasets.subsets]]\nimage_dir = '/nowhere/at/all'")
    with pytest.raises(DataError, match="none of its folders with pictures is here"):
        scan(tmp_path / "d.toml")


def test_places_and_labels(tmp_path: Path) -> None:
    (tmp_path / "sub/x").mkdir(parents=True)
    assert place("x", tmp_path / "sub") == place("sub/x", tmp_path / "sub") == tmp_path / "sub/x"
    assert place("D:\\gone\\x", tmp_path / "sub") == tmp_path / "sub/x"
    assert (
        place("", tmp_path) is place(None, tmp_path) is place("a\0b", tmp_path) is place("..", tmp_path / "sub") is None
    )
    assert labels([Path("/a/x"), Path("/b/x"), Path("/c")]) == ["x", "x-2", "c"] and labels([Path("/a")]) == [""]


_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 99) | st.floats() | st.sampled_from(["d", "..", "", "a.png", "PRIOR"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        "datasets subsets image_dir num_repeats is_reg data source s img_root repeat caption_file path concepts text "
        "image enabled include_subdirectories type balancing prompt_template word_names att_mask bucket general "
        "keep_tokens resolution batch_size prompt_source prompt_path text_transforms transforms metadata_file".split()
    ), inner, max_size=5),
    max_leaves=25,
)  # fmt: skip


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_PLAIN, st.sampled_from(["json", "yaml"]))
def test_whatever_a_dataset_file_says(tmp_path: Path, plain: Any, ending: str) -> None:
    (tmp_path / "d").mkdir(exist_ok=True)
    path = tmp_path / f"x.{ending}"
    path.write_text(json.dumps(plain))
    try:
        reading = read_layout(path)
    except DataError:
        return
    assert reading.sources and all(source.repeats >= 0 for source in reading.sources)
    with_settings(Run(), reading.settings)
