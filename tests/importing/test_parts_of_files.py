"""Dataset files whose folders differ: each folder gets settings of its own, and every key has a line."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lib_pivotal.config import PartConfig, Run, run_from_dict
from lib_pivotal.data.caption_chain import TrainingTime
from lib_pivotal.data.dataset import Dataset
from lib_pivotal.data.dataset import scan as scan_with
from lib_pivotal.importing.datasets import DATASET_FILES
from lib_pivotal.importing.import_log import OF_PARTS, ImportLog, pattern
from lib_pivotal.runs.defaults import fitted_run
from lib_pivotal.training.assemble import make_captions
from lib_pivotal.training.scanning import PictureParts, with_settings

scan = partial(scan_with, files=DATASET_FILES)

Add = Callable[..., Path]


def told(dataset: Dataset) -> dict[str, str]:
    return {problem.code: problem.message for problem in dataset.problems}


def own(dataset: Dataset, key: str) -> dict[str, Any]:
    """What a picture is trained with, of what its folder may have of its own."""
    run = with_settings(run_from_dict({"words": [{"name": "aoi"}]}), dataset.settings)
    data = PictureParts(run.data).settings_of(dataset[key])
    weights = PictureParts(run.data).loss_weights(dataset.pictures)
    found = {name: getattr(data, name) for name in OF_PARTS - {"loss_weight"}}
    return {**found, "loss_weight": weights.get(key, 1.0)}


def test_what_parts_may_have_is_what_the_config_knows() -> None:
    assert {field.name for field in fields(PartConfig)} == OF_PARTS | {"applies_to"}


@pytest.fixture
def three(tmp_path: Path, add: Add) -> Path:
    for name in ("red", "blue [1]", "green"):
        add(f"{name}/a.png", caption="aoi, hat, coat")
    return tmp_path


KOHYA = """
[general]
shuffle_caption = true
keep_tokens = 2
[[datasets]]
  [[datasets.subsets]]
  image_dir = 'red'
  shuffle_caption = false
  caption_dropout_rate = 0.1
  caption_dropout_every_n_epochs = 3
  caption_tag_dropout_rate = 0.2
  flip_aug = true
  random_crop = true
  color_aug = true
  alpha_mask = true
  [[datasets.subsets]]
  image_dir = 'blue [1]'
  keep_tokens = 0
  keep_tokens_separator = '|||'
  token_warmup_min = 3
  token_warmup_step = 0.5
  enable_wildcard = true
  color_aug = false
  [[datasets.subsets]]
  image_dir = 'green'
"""


def test_kohyas_subsets_differ(three: Path) -> None:
    (three / "set.toml").write_text(KOHYA)
    dataset = scan(three)
    usual = {"shuffle_tags": True, "keep_first": 2, "keep_separator": "", "caption_dropout": 0.0, "flip": False}
    usual |= {"caption_dropout_epochs": 0, "tag_dropout": 0.0, "crop": "centre", "crops": 1, "transparency": "white"}
    usual |= {"caption_warmup_tags": 1, "caption_warmup_steps": 0.0, "wildcards": False}
    red = {"shuffle_tags": False, "caption_dropout": 0.1, "caption_dropout_epochs": 3, "tag_dropout": 0.2}
    red |= {"flip": True, "crop": "random", "crops": 8, "transparency": "mask"}
    blue = {"keep_first": 0, "keep_separator": "|||", "caption_warmup_tags": 3, "caption_warmup_steps": 0.5}
    blue |= {"wildcards": True}
    for key, differs in (("red/a.png", red), ("blue [1]/a.png", blue), ("green/a.png", {})):
        found = own(dataset, key)
        assert {name: found[name] for name in usual} == {**usual, **differs}, key
    lines = told(dataset)
    assert "color_aug" in lines["setting_not_taken"]
    for key in ("shuffle_caption", "keep_tokens", "flip_aug", "random_crop", "alpha_mask", "token_warmup_step"):
        assert f"{key} (each folder its own, data.parts)" in lines["setting_translated"]
    assert fitted_run(dataset).run.data.parts[0].applies_to == "red/*"


def test_what_only_one_subset_says_is_not_said_of_all(three: Path) -> None:
    (three / "set.toml").write_text(
        "[[datasets]]\n[[datasets.subsets]]\nimage_dir='red'\nflip_aug=true\n[[datasets.subsets]]\nimage_dir='green'"
    )
    dataset = scan(three)
    assert (own(dataset, "red/a.png")["flip"], own(dataset, "green/a.png")["flip"]) == (True, False)


def test_onetrainers_concepts_differ(three: Path) -> None:
    text = {"enable_tag_shuffling": True, "keep_tags_count": 3, "tag_dropout_enable": True}
    text |= {"tag_dropout_mode": "RANDOM WEIGHTED", "tag_dropout_probability": 0.4}
    text |= {"tag_dropout_special_tags_mode": "WHITELIST", "tag_dropout_special_tags": "hat, coat (red)"}
    full = {"tag_dropout_enable": True, "tag_dropout_probability": 0.2, "tag_dropout_special_tags": "ha.*,x"}
    full |= {"tag_dropout_special_tags_mode": "BLACKLIST", "tag_dropout_special_tags_regex": True}
    concepts = [
        {"path": "red", "text": text, "image": {"enable_crop_jitter": False, "enable_random_flip": True}},
        {"path": "blue [1]", "text": full, "image": {}, "image_variations": 5, "loss_weight": 0.5},
        {"path": "green", "text": {"caps_randomize_enable": True}, "image": {"enable_random_hue": True}},
    ]
    (three / "concepts.json").write_text(json.dumps(concepts))
    dataset = scan(three)
    red, blue, green = (own(dataset, f"{name}/a.png") for name in ("red", "blue [1]", "green"))
    assert [one["flip"] for one in (red, blue, green)] == [True, False, False]
    assert [one["crop"] for one in (red, blue, green)] == ["centre", "random", "random"]
    assert [one["crops"] for one in (red, blue, green)] == [1, 5, 1]
    assert [one["loss_weight"] for one in (red, blue, green)] == [1.0, 0.5, 1.0]
    assert [one["shuffle_tags"] for one in (red, blue, green)] == [True, False, False]
    assert [one["keep_first"] for one in (red, blue)] == [3, 1]
    assert [one["tag_dropout_mode"] for one in (red, blue, green)] == ["rising", "all", "each"]
    assert [one["tag_dropout"] for one in (red, blue, green)] == [0.4, 0.0, 0.0]
    assert red["tag_dropout_classes"] == ("/^\\(*(?:hat|coat\\ \\(red\\))\\)*$/ = 0",)
    assert blue["tag_dropout_classes"] == ("/^\\(*(?:ha.*|x)\\)*$/ = 0.2",)
    lines = told(dataset)
    assert "text.caps_randomize_enable" in lines["setting_not_taken"]
    assert "image.enable_random_hue" in lines["setting_not_taken"]
    assert "enable_random_flip" not in lines["setting_not_taken"]


BASE = """
data:
  dataset1:
    _target_: hcpdiff.data.TextImagePairDataset
    _partial_: true
    batch_size: 4
    att_mask_encode: false
    source:
      data_source1:
        img_root: 'gone/'
        prompt_template: 'object.txt'
        caption_file: null
        bg_color: [255, 255, 255]
        word_names: {}
        text_transforms:
          transforms:
            - {_target_: hcpdiff.utils.caption_tools.TemplateFill, word_names: '${....word_names}'}
    bucket: {_target_: hcpdiff.data.bucket.RatioBucket.from_files, target_area: '${hcp.eval:"512*512"}', num_bucket: 5}
"""
ABOVE = """
_base_: [cfgs/base_dataset.yaml]
root: red
data:
  dataset1:
    loss_weight: 0.5
    source:
      data_source1:
        img_root: '${root}'
        repeat: 4
        word_names: {pt1: aoi, class: girl}
        att_mask: masks_of_red
      data_source2:
        img_root: 'blue [1]'
        caption_file: captions.yaml
        cond_dir: x
        text_transforms:
          transforms: [{_target_: hcpdiff.utils.caption_tools.TagErase, p: 0.3}]
"""


def test_hcps_bases_are_followed_and_sources_differ(three: Path, add: Add) -> None:
    add("masks_of_red/a.png")
    (three / "cfgs").mkdir()
    (three / "cfgs/base_dataset.yaml").write_text(BASE)
    (three / "set.yaml").write_text(ABOVE)
    (three / "captions.yaml").write_text("a: 'aoi, boots'")
    (three / "object.txt").write_text("a photo of {pt1} {class}, {caption}\n{caption}\n")
    dataset = scan(three / "set.yaml")
    assert {p.key: (p.concept, p.repeats, p.caption) for p in dataset.pictures} == {
        "red/a.png": ("aoi", 4, ""),
        "blue [1]/a.png": ("blue [1]", 1, "aoi, boots"),
    }
    assert dataset["red/a.png"].mask_path == three / "masks_of_red/a.png"
    red, blue = own(dataset, "red/a.png"), own(dataset, "blue [1]/a.png")
    assert red["templates"] == ("a photo of {word} girl, {caption}", "{caption}") and blue["templates"] == ()
    assert (red["masks"], blue["masks"]) == ("hcp_exact", "none")
    assert (red["caption_dropout"], blue["caption_dropout"]) == (0.0, 0.3)
    assert dataset.settings["schedule.batch_size"] == 4 and dataset.settings["data.resolution_px"] == 512
    lines = told(dataset)
    assert "source.cond_dir" in lines["setting_not_taken"] and "folder_missing" not in lines
    assert red["loss_weight"] == blue["loss_weight"] == 0.5
    everything = " ".join(lines.values())
    for key in ("bucket.num_bucket", "att_mask", "word_names", "repeat", "bg_color", "att_mask_encode", "TagErase"):
        assert key in everything


def test_hcps_file_of_a_run_is_its_dataset_too(three: Path) -> None:
    (three / "cfgs").mkdir()
    (three / "cfgs/base_dataset.yaml").write_text(BASE.replace("gone/", "green"))
    (three / "run.yaml").write_text("_base_: [cfgs/base_dataset.yaml, cfgs/none.yaml]\nlora_unet: []\ntrain: {}\n")
    (three / "object.txt").write_text("{caption}")
    dataset = scan(three / "run.yaml")
    assert [picture.key for picture in dataset.pictures] == ["a.png"]
    lines = told(dataset)
    assert "_base_ 'cfgs/none.yaml' is not here" in lines["base_missing"]
    assert "lora_unet, train (settings of a run" in lines["setting_translated"]


def test_hcps_classes_by_folder(tmp_path: Path, add: Add) -> None:
    for name in ("aoi", "hana"):
        add(f"imgs/{name}/a.png")
        (tmp_path / "texts" / name).mkdir(parents=True)
        (tmp_path / "texts" / name / "a.txt").write_text(f"{name}, hat")
    source = {"_target_": "hcpdiff.data.source.T2IFolderClassSource", "img_root": "imgs", "caption_file": "texts"}
    plain = {"data": {"d": {"source": {"s": {**source, "repeat": {"aoi": 2, "hana": 5}}}}}}
    (tmp_path / "d.yaml").write_text(json.dumps(plain))
    found = {p.key: (p.concept, p.repeats, p.caption) for p in scan(tmp_path / "d.yaml").pictures}
    assert found == {"aoi/a.png": ("aoi", 2, "aoi, hat"), "hana/a.png": ("hana", 5, "hana, hat")}


def test_a_folders_name_is_no_pattern(three: Path) -> None:
    assert pattern("a[b]|c") == "a[[]b]?c"
    notes = ImportLog("x")
    for value in (0.5, 0.5):
        notes.source()
        notes.wish("data.tag_dropout", value)
    assert notes.settings(["a", "b"]) == {"data.tag_dropout": 0.5}
    notes.source()
    notes.wish("data.resolution_px", 512)
    assert notes.settings(["a", "b", "c"]) == {
        "data.parts": ({"applies_to": "a/*", "tag_dropout": 0.5}, {"applies_to": "b/*", "tag_dropout": 0.5})
    }
    assert "resolution_px (data.resolution_px differs from folder to folder)" in notes.problems()[-1].message


def test_faulty_parts_are_left_out() -> None:
    run = Run()
    bad = ({"applies_to": "a/*", "tag_dropout": 7.0},)
    assert with_settings(run, {"data.parts": bad, "data.flip": True}).data.parts == ()
    assert with_settings(run, {"data.parts": ({"applies_to": "a/*", "flip": True},)}).data.parts[0].flip is True


def drawn(dataset: Dataset, key: str, draws: int = 2000) -> dict[str, float]:
    """Captions of a picture as they are trained, with their shares."""
    run = run_from_dict({"words": [{"name": "zuko"}], "data": {"shuffle_tags": False, "keep_separator": ""}})
    run = with_settings(run, dataset.settings)
    chain, rng = make_captions(run, {}, None, dataset.pictures), random.Random(3)
    counts = Counter(chain.draw(dataset[key], rng=rng, moment=TrainingTime(step=1)) for _ in range(draws))
    return {caption: count / draws for caption, count in counts.items()}


def test_as_kohyas_own_reader_has_it(tmp_path: Path, add: Add) -> None:
    """Facts of its reader, run on such a file (library/config_util.py, train_util.py 48d368f): a number in a folder's
    name does not count here, and what has neither caption nor class is empty."""
    add("10_taro/a.png", caption="hat, coat, boots")
    add("10_taro/b.png")
    add("hana/a.png")
    add("hana/deeper/b.png")
    (tmp_path / "set.toml").write_text(
        "[[datasets]]\n[[datasets.subsets]]\nimage_dir='10_taro'\nnum_repeats=3\nshuffle_caption=true\nkeep_tokens=1\n"
        "caption_extension='.txt'\n[[datasets.subsets]]\nimage_dir='hana'\nclass_tokens='1girl'\ncaption_prefix='best,'"
        "\ncaption_dropout_rate=0.25\ncaption_suffix=', end'"
    )
    dataset = scan(tmp_path)
    assert {p.key: (p.concept, p.repeats, p.caption) for p in dataset.pictures} == {
        "10_taro/a.png": ("taro", 3, "hat, coat, boots"),
        "10_taro/b.png": ("taro", 3, ""),
        "hana/a.png": ("1girl", 1, "best, 1girl , end"),
    }
    halves = {"hat, coat, boots": 0.5, "hat, boots, coat": 0.5}
    assert drawn(dataset, "10_taro/a.png") == pytest.approx(halves, abs=0.04)
    assert drawn(dataset, "hana/a.png").keys() == {"", "best, 1girl , end"}
    assert drawn(dataset, "hana/a.png")[""] == pytest.approx(0.25, abs=0.04)


def test_as_onetrainers_own_reader_has_it(tmp_path: Path, add: Add) -> None:
    """Facts of its pipeline, run on such a file (Nerogar/mgds: CollectPaths, LoadMultipleTexts, DropTags, ShuffleTags,
    VariationSorting): text files alone are captions, names are taken whole, masks and conditions are no pictures, and
    kept tags never drop."""
    add("red/01_hat.png", caption="k, a, b, c")
    add("red/02.png")
    add("red/02-condlabel.png")
    add("red/02-masklabel.png")
    (tmp_path / "red/02.caption").write_text("not read")
    (tmp_path / "red/02.json").write_text('{"caption": "not read"}')
    add("blue/01_hat.png", caption="k, a, b, c")
    full = {"tag_dropout_enable": True, "tag_dropout_probability": 0.4, "tag_dropout_mode": "FULL"}
    full |= {"tag_dropout_special_tags_mode": "WHITELIST", "tag_dropout_special_tags": "b,x"}
    rising = {**full, "tag_dropout_mode": "RANDOM WEIGHTED", "tag_dropout_special_tags_mode": "NONE"}
    concepts = [
        {"path": "red", "text": full, "image": {}, "balancing": 9, "balancing_strategy": "SAMPLES"},
        {"path": "blue", "text": {**rising, "tag_dropout_probability": 0.9}, "image": {}},
        {"path": "blue", "text": {"prompt_source": "filename"}, "image": {}},
    ]
    (tmp_path / "concepts.json").write_text(json.dumps(concepts))
    dataset = scan(tmp_path)
    assert {p.key: (p.repeats, p.caption) for p in dataset.pictures} == {
        "red/01_hat.png": (4.5, "k, a, b, c"),
        "red/02.png": (4.5, ""),
        "blue/01_hat.png": (1, "k, a, b, c"),
        "blue-2/01_hat.png": (1, "01_hat"),
    }
    shares = {"k, a, b, c": 0.6, "k, b": 0.4}
    assert drawn(dataset, "red/01_hat.png") == pytest.approx(shares, abs=0.04)
    by_hand = {  # chances 0.3, 0.6, 0.9 by place
        "k, a, b, c": 0.7 * 0.4 * 0.1,
        "k, a, b": 0.7 * 0.4 * 0.9,
        "k, a, c": 0.7 * 0.6 * 0.1,
        "k, a": 0.7 * 0.6 * 0.9,
        "k, b, c": 0.3 * 0.4 * 0.1,
        "k, b": 0.3 * 0.4 * 0.9,
        "k, c": 0.3 * 0.6 * 0.1,
        "k": 0.3 * 0.6 * 0.9,
    }
    assert drawn(dataset, "blue/01_hat.png") == pytest.approx(by_hand, abs=0.04)


def test_as_hcps_own_reader_has_it(tmp_path: Path, add: Add) -> None:
    """Facts of its data sources, run on such a file (hcpdiff/data/source/text2img.py, utils/caption_tools.py 404f0e8):
    a name that nobody gave is empty, endings in a table of captions do not count, erasing takes the template, too."""
    add("red/a.png", caption="not read: there is no caption_file")
    add("blue/a.png")
    (tmp_path / "t.txt").write_text("{pt1} {class}, {nothing}{caption}\n")
    (tmp_path / "c.json").write_text('{"a.png": "hat, coat"}')
    erase = {"transforms": [{"_target_": "x.TemplateFill"}, {"_target_": "x.TagErase", "p": 0.3}]}
    common = {"prompt_template": "t.txt", "word_names": {"pt1": "sks", "class": "girl"}}
    sources = {
        "a": {**common, "img_root": "red", "caption_file": None},
        "b": {**common, "img_root": "blue", "caption_file": "c.json", "repeat": 3, "text_transforms": erase},
    }
    (tmp_path / "d.yaml").write_text(json.dumps({"data": {"d": {"source": sources}}}))
    dataset = scan(tmp_path / "d.yaml")
    assert [(p.key, p.repeats, p.caption) for p in dataset.pictures] == [
        ("red/a.png", 1, ""),
        ("blue/a.png", 3, "hat, coat"),
    ]
    run = with_settings(run_from_dict({"words": [{"name": "sks"}], "data": {"shuffle_tags": True}}), dataset.settings)
    chain = make_captions(run, {"sks": "sks"}, None, dataset.pictures)
    rng = random.Random(1)
    assert {chain.draw(dataset["red/a.png"], rng=rng) for _ in range(50)} == {"sks girl"}
    found = Counter(chain.draw(dataset["blue/a.png"], rng=rng) for _ in range(2000))
    assert found.keys() == {"", "sks girl, hat, coat"}
    assert found[""] / 2000 == pytest.approx(0.3, abs=0.04)
    fill = {"transforms": [{"_target_": "x.TemplateFill", "word_names": {"pt1": ["zuko", "zuko-neg"]}}]}
    only = {"s": {"img_root": "red", "prompt_template": "t.txt", "text_transforms": fill}}
    (tmp_path / "d.yaml").write_text(json.dumps({"data": {"d": {"source": only}}}))
    dataset = scan(tmp_path / "d.yaml")
    assert (dataset.pictures[0].concept, dataset.settings["data.templates"]) == ("zuko", ("{word} , {caption}",))
