"""Runs whose pictures another trainer's file describes: sources, settings of single folders, epochs as steps."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from lib_pivotal.commands.datasets import scan_pictures
from lib_pivotal.config import run_from_dict
from lib_pivotal.data.dataset import scan as scan_with
from lib_pivotal.importing.datasets import DATASET_FILES
from lib_pivotal.importing.settings import Imported, import_file
from lib_pivotal.runs.defaults import fitted_run
from lib_pivotal.training.epochs import with_epoch_steps

scan = partial(scan_with, files=DATASET_FILES)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Three red pictures and two blue ones, with captions."""
    for name, count in (("red", 3), ("blue", 2)):
        (tmp_path / name).mkdir()
        for number in range(count):
            Image.new("RGB", (64, 64), (number * 40, 90, 200)).save(tmp_path / name / f"{number}.png")
            (tmp_path / name / f"{number}.txt").write_text(f"aoi, {name}")
    return tmp_path


def lines(found: Imported) -> dict[str, tuple[str, str]]:
    return {line.key: (line.fate, line.became) for line in found.report.lines}


HCP = """
train: {train_epochs: 6, gradient_accumulation_steps: 2, save_step: 10}
lora_unet: [{lr: 1e-4, rank: 4, layers: ['re:.*attn.?$']}]
tokenizer_pt: {train: [{name: aoi, lr: 0.003}]}
data:
  dataset1:
    batch_size: 4
    loss_weight: 1.0
    source:
      a: {img_root: red, repeat: 5, caption_file: red, word_names: {pt1: aoi}}
      b:
        img_root: blue
        caption_file: blue.json
        cond_dir: none
        text_transforms: {transforms: [{_target_: hcpdiff.utils.caption_tools.TagDropout, p: 0.2}]}
  dataset2:
    batch_size: 4
    source: {c: {img_root: red, repeat: 2, caption_file: red}}
"""


def test_hcps_sources_become_the_runs(folders: Path) -> None:
    (folders / "run.yaml").write_text(HCP)
    (folders / "blue.json").write_text(json.dumps({"0": "aoi, coat", "1": "aoi, boots"}))
    found = import_file(folders / "run.yaml")
    run, told = found.run, lines(found)
    assert run.data.folder == str(folders / "run.yaml") and found.report.unknown() == []
    pictures = scan_pictures(run.data).pictures
    assert [(picture.key, picture.repeats, picture.caption) for picture in pictures] == [
        *((f"red/{n}.png", 5, "aoi, red") for n in range(3)),
        *((f"blue/{n}.png", 1, text) for n, text in enumerate(("aoi, coat", "aoi, boots"))),
        *((f"red-2/{n}.png", 2, "aoi, red") for n in range(3)),
    ]
    assert [(part.applies_to, part.tag_dropout) for part in run.data.parts] == [
        ("red/*", 0.0),
        ("blue/*", 0.2),
        ("red-2/*", 0.0),
    ]
    assert told["data.dataset1.source.a.repeat"][0] == told["data.dataset2.source.c.img_root"][0] == "taken"
    assert told["data.dataset1.source.b.cond_dir"][0] == "not supported"
    # 3×5 + 2 + 3×2 pictures by 4 in twos: 3 updates an epoch
    assert run.schedule.max_steps == 18 and told["train.train_epochs"] == ("translated", "schedule.max_steps = 18")


def test_hcps_sources_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(HCP)
    found = import_file(tmp_path / "run.yaml")
    told = lines(found)
    assert told["data.dataset1.source.a.img_root"][0] == "not supported"
    assert (found.run.schedule.epochs, told["train.train_epochs"]) == (6, ("translated", "schedule.epochs = 6"))


@pytest.mark.parametrize("inside", [True, False])
def test_onetrainers_concepts_and_epochs(folders: Path, inside: bool) -> None:
    concepts = [
        {"path": "red", "enabled": True, "balancing": 2.5, "text": {"enable_tag_shuffling": True}, "image": {}},
        {
            "path": "blue",
            "enabled": True,
            "balancing": 9,
            "balancing_strategy": "SAMPLES",
            "loss_weight": 0.5,
            "text": {},
            "image": {"enable_random_hue": True},
        },
    ]
    embedding = {"placeholder": "aoi", "token_count": 2, "train": True, "stop_training_after": 2}
    plain = {
        "training_method": "LORA",
        "model_type": "STABLE_DIFFUSION_15",
        "batch_size": 2,
        "epochs": 10,
        "gradient_accumulation_steps": 2,
        "save_every": 3,
        "save_every_unit": "EPOCH",
        "additional_embeddings": [{**embedding, "stop_training_after_unit": "EPOCH"}],
    }
    if inside:
        plain["concepts"] = concepts
    else:
        (folders / "concepts.json").write_text(json.dumps(concepts))
        plain["concept_file_name"] = "concepts.json"
    (folders / "run.json").write_text(json.dumps(plain))
    found = import_file(folders / "run.json")
    run, told = found.run, lines(found)
    # 3×2.5 rounded down, and 9, are 16 pictures by 2 in twos: 4 updates an epoch
    assert (run.schedule.max_steps, run.saving.every_steps, run.embeddings[0].freeze_step) == (40, 12, 8)
    assert run.data.folder == str(folders / ("run.json" if inside else "concepts.json"))
    assert [picture.repeats for picture in scan_pictures(run.data).pictures] == [2.5, 2.5, 2.5, 4.5, 4.5]
    own = [(part.applies_to, part.shuffle_tags, part.loss_weight) for part in run.data.parts]
    assert own == [("red/*", True, 1.0), ("blue/*", False, 0.5)]
    assert any("image.enable_random_hue" in remark for remark in found.report.remarks)
    if inside:
        assert told["concepts.1.image.enable_random_hue"][0] == "not supported"
        assert told["concepts.1.loss_weight"][0] == told["concepts.0.path"][0] == "taken"


def test_kohyas_tables_come_before_its_flags(folders: Path) -> None:
    (folders / "data.toml").write_text(
        "[general]\nflip_aug = true\n[[datasets]]\nbatch_size = 3\nresolution = 640\n"
        "[[datasets.subsets]]\nimage_dir = 'red'\nnum_repeats = 4\n"
        "[[datasets.subsets]]\nimage_dir = 'blue'\nflip_aug = false\n"
    )
    (folders / "run.toml").write_text(
        "network_dim = 4\nmax_train_epochs = 5\ntrain_batch_size = 8\nlearning_rate = 1e-4\n"
        'dataset_config = "data.toml"\nsave_every_n_epochs = 2\n'
    )
    run = import_file(folders / "run.toml").run
    # 3×4 + 2 pictures by 3: 5 steps an epoch
    assert (run.schedule.batch_size, run.schedule.max_steps, run.saving.every_steps) == (3, 25, 10)
    assert run.data.resolution_px == 640
    assert [(part.applies_to, part.flip) for part in run.data.parts] == [("red/*", True), ("blue/*", False)]


def test_a_scan_turns_epochs_into_steps(folders: Path) -> None:
    dataset = scan(folders)
    run = run_from_dict(
        {
            "words": [{"name": "aoi"}],
            "data": {"folder": str(folders)},
            "schedule": {"epochs": 7, "batch_size": 2, "accumulation": 2, "warmup_steps": 50},
        }
    )
    fitted = with_epoch_steps(run, dataset.pictures).schedule
    assert (fitted.max_steps, fitted.epochs, fitted.warmup_steps) == (14, 0, 13)  # 5 pictures by 4: 2 steps an epoch
    fitted = fitted_run(dataset, run, embeddings_only=True).run.schedule
    assert (fitted.max_steps, fitted.epochs) == (14, 0)
    fitted = fitted_run(dataset, run).run.schedule
    assert (fitted.max_steps, fitted.epochs) == (7 * -(-5 // (fitted.batch_size * fitted.accumulation)), 0)
    assert with_epoch_steps(run, ()) == run


KOHYA_EPOCHS = """
network_module = "networks.lora"
network_dim = 4
unet_lr = 1e-4
max_train_epochs = 10
lr_scheduler = "cosine"
lr_warmup_steps = 0.1
train_batch_size = 2
save_every_n_epochs = 2
sample_every_n_epochs = 5
"""
GUI_EPOCHS = {"LoRA_type": "Standard", "epoch": 14, "lr_warmup": 10, "lr_scheduler": "cosine", "max_train_steps": ""}
GUI_EPOCHS |= {"train_batch_size": 2, "max_resolution": "512,512", "network_dim": 8, "unet_lr": 3e-4}
OT_EPOCHS = {
    "__version": 10,
    "training_method": "LORA",
    "model_type": "STABLE_DIFFUSION_15",
    "learning_rate_scheduler": "COSINE",
    "learning_rate_warmup_steps": 0.25,
    "epochs": 20,
    "batch_size": 4,
    "peft_type": "LORA",
    "lora_rank": 8,
    "save_every": 5,
    "save_every_unit": "EPOCH",
    "sample_after": 1,
    "sample_after_unit": "EPOCH",
    "text_encoder": {"stop_training_after": 5, "stop_training_after_unit": "EPOCH"},
    "additional_embeddings": [
        {"placeholder": "aoi", "stop_training_after": 10, "stop_training_after_unit": "EPOCH"},
    ],
}


@pytest.mark.parametrize(
    ("name", "text", "warmup", "epochs"),
    [
        ("a.toml", KOHYA_EPOCHS, 0.1, 10),
        ("a.toml", KOHYA_EPOCHS.replace("0.1", "0.05") + 'train_data_dir = "Z:/gone"\n', 0.05, 10),
        ("gui.json", json.dumps(GUI_EPOCHS), 0.1, 14),
        ("gui.json", json.dumps({**GUI_EPOCHS, "lr_warmup": 100}), 0.9999, 14),
        ("gui.json", json.dumps({**GUI_EPOCHS, "lr_warmup_steps": 30}), 30, 14),
        ("ot.json", json.dumps(OT_EPOCHS), 0.25, 20),
        ("ot.json", json.dumps({**OT_EPOCHS, "learning_rate_warmup_steps": 40}), 40, 20),
    ],
    ids=["kohya", "folder gone", "gui", "gui, all of it", "gui, steps", "onetrainer", "onetrainer, steps"],
)
def test_a_fraction_stays_one_until_the_length_is_known(
    name: str, text: str, warmup: float, epochs: int, folders: Path
) -> None:
    (folders / name).write_text(text)
    found = import_file(folders / name)
    assert (found.run.schedule.warmup_steps, found.run.schedule.epochs) == (warmup, epochs)
    data = {"folder": str(folders), "resolution_px": 64}
    run = with_epoch_steps(replace(found.run, data=run_from_dict({"data": data}).data), scan(folders).pictures)
    steps = epochs * -(-5 // run.schedule.batch_size)
    expected = min(int(warmup), steps - 1) if warmup >= 1 else int(warmup * steps)
    assert (run.schedule.max_steps, run.schedule.warmup_of(steps)) == (steps, expected)


def test_a_fraction_stays_one_where_pictures_were_counted(folders: Path) -> None:
    """The run may get another batch or other pictures than those that an import has seen."""
    (folders / "3_red").mkdir()
    for path in (folders / "red").iterdir():
        path.rename(folders / "3_red" / path.name)
    (folders / "a.toml").write_text(f'{KOHYA_EPOCHS}train_data_dir = "."\n')
    found = import_file(folders / "a.toml")
    assert found.run.schedule.max_steps == 10 * 6  # 3 × 3 + 2 pictures by 2
    assert found.run.schedule.warmup_steps == 0.1
    assert (found.run.saving.every_steps, found.run.saving.sample_every_steps) == (12, 30)


def test_intervals_and_ends_in_epochs_wait_for_the_pictures(folders: Path) -> None:
    (folders / "a.toml").write_text(KOHYA_EPOCHS)
    saving = import_file(folders / "a.toml").run.saving
    assert (saving.every_epochs, saving.sample_every_epochs) == (2, 5)
    (folders / "b.toml").write_text(KOHYA_EPOCHS.replace("max_train_epochs = 10", "max_train_steps = 300"))
    by_steps = import_file(folders / "b.toml").run
    assert (by_steps.schedule.max_steps, by_steps.schedule.warmup_steps, by_steps.saving.every_epochs) == (300, 30, 2)
    (folders / "ot.json").write_text(json.dumps(OT_EPOCHS))
    found = import_file(folders / "ot.json")
    run, told = found.run, lines(found)
    assert (run.saving.every_epochs, run.saving.sample_every_epochs) == (5, 1)
    assert (run.embeddings[0].freeze_at, run.schedule.te_stop) == (0.5, 0.25)
    assert told["save_every"] == ("translated", "saving.every_epochs = 5")
    settled = with_epoch_steps(run, scan(folders).pictures)  # 5 pictures by 4
    assert (settled.schedule.max_steps, settled.saving.every_steps, settled.saving.every_epochs) == (40, 10, 0)
