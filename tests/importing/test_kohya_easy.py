"""LoRA_Easy_Training_Scripts' TOML: settings and pictures in one file, imported and scanned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lib_pivotal.importing.settings import import_file
from lib_pivotal.standalone.cli import main
from tests.conftest import write_pictures

EASY = """
[[subsets]]
caption_extension = ".txt"
image_dir = "{where}/8_name"
keep_tokens = 1
name = "subset 1"
num_repeats = 8
shuffle_caption = true

[[subsets]]
image_dir = "{where}/class"
is_reg = true
name = "subset 2"
num_repeats = 1

[train_mode]
train_mode = "lora"

[general_args.args]
clip_skip = 2
seed = 23
max_train_epochs = 4
pretrained_model_name_or_path = "C:/models/m.safetensors"

[general_args.dataset_args]
resolution = [ 768, 768,]
batch_size = 2

[network_args.args]
network_dim = 16
network_alpha = 8.0

[network_args.args.network_args]
conv_dim = 4
conv_alpha = 1.0

[optimizer_args.args]
optimizer_type = "AdamW8bit"
lr_scheduler = "cosine"
unet_lr = 0.0003
text_encoder_lr = 0.00015
warmup_ratio = 0.1

[optimizer_args.args.optimizer_args]
weight_decay = "0.1"

[saving_args.args]
output_name = "easy"
save_every_n_epochs = 1

[bucket_args.dataset_args]
enable_bucket = true
bucket_reso_steps = 64
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "img", {"8_name/1": "aoi, hat", "8_name/2": "aoi, sea", "class/1": "1girl"})
    (tmp_path / "easy.toml").write_text(EASY.format(where=tmp_path / "img"))
    return tmp_path / "easy.toml"


def test_imported_with_its_pictures(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", str(file), "-o", str(file.with_suffix(".json"))]) == 0
    assert "LoRA_Easy_Training_Scripts settings" in capsys.readouterr().out
    found = import_file(file)
    run, told = found.run, {line.key: line for line in found.report.lines}
    assert (run.name, run.seed, run.clip_skip) == ("easy", 23, 2)
    assert (run.network.unet_rank, run.network.unet_alpha, run.network.unet_lr, run.network.te_lr) == (
        *(16, 8.0, 3e-4, 1.5e-4),
    )
    assert (run.schedule.max_steps, run.schedule.batch_size, run.schedule.warmup_steps) == (32, 2, 0.1)
    assert (run.data.resolution_px, run.data.keep_first, run.data.shuffle_tags, run.data.bucketing) == (
        768,
        1,
        True,
        True,
    )
    assert run.network.weight_decay == 0.1 and run.saving.every_steps == 8
    assert run.data.folder == str(file) and run.regularisation.folder == str(file.parent / "img" / "class")
    assert told["network_args.conv_dim"].known and not found.faults
    assert [line.key for line in found.report.unknown()] == []


def test_imported_where_its_pictures_are_not_here(file: Path) -> None:
    file.write_text(EASY.format(where="Z:/gone/far"))
    run = import_file(file).run
    assert (run.schedule.epochs, run.schedule.warmup_steps, run.saving.every_epochs) == (4, 0.1, 1)


def test_settings_without_pictures(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(EASY[EASY.index("[train_mode]") :])
    run = import_file(file).run
    assert (run.network.unet_rank, run.data.folder) == (16, "")
    assert main(["scan", str(file)]) == 2
    assert "Settings of a trainer are read by `import`" in capsys.readouterr().err


def test_scanned(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scan", str(file), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["pictures"], summary["draws_per_epoch"]) == (2, 16)
    assert summary["settings"]["data.keep_first"] == 1 and summary["settings"]["data.resolution_px"] == 768
    assert main(["plan", str(file), "--json"]) == 0


def test_folders_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pictures(tmp_path / "a", {"1": "aoi, hat"})
    (tmp_path / "subsets.toml").write_text('[[subsets]]\nimage_dir = "a"\nnum_repeats = 3\n')
    assert main(["scan", str(tmp_path / "subsets.toml"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["draws_per_epoch"] == 3
