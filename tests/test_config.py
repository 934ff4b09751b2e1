"""Settings: every fault at once, by field; run.json in and out."""

import dataclasses
import json
import subprocess
import sys
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_pivotal import ports
from lib_pivotal.bundle import writer
from lib_pivotal.config import (
    VERSION,
    EmbeddingConfig,
    Run,
    check_run,
    read_run,
    run_from_dict,
    run_to_dict,
    write_run,
)
from lib_pivotal.config_checks import option_lines
from lib_pivotal.config_schema import describe, walk
from lib_pivotal.data import (
    balance,
    buckets,
    caption_chain,
    captioning,
    image_probes,
    masks,
    mixing,
    pictures,
    pruning,
    tags,
)
from lib_pivotal.data.sources import source
from lib_pivotal.embeddings import control, editability, initial, norm_targets
from lib_pivotal.errors import ConfigError
from lib_pivotal.networks import registry, targets
from lib_pivotal.training import objective, optimizers, rates, schedule, start_file


def faults_of(plain):
    return {fault.field: fault for fault in check_run(plain)[1]}


def test_defaults_with_one_embedding_are_a_sound_run():
    run = run_from_dict({"words": [{"name": "aoi"}]})
    assert run.embeddings == (EmbeddingConfig(name="aoi"),)
    assert run.schedule.optimizer == "adamw"


def test_every_fault_is_listed_at_once():
    found = faults_of(
        {
            "words": [{"name": "a.b", "vectors": 76}, {"name": "ok", "vectors": "two"}],
            "schedule": {"max_steps": 0, "rate": "zigzag"},
            "network": {"unet_rnak": 4},
            "noise": {"timestep_min": 900, "timestep_max": 100},
        }
    )
    assert set(found) >= {
        "embeddings.0.name",
        "embeddings.0.vectors",
        "embeddings.1.vectors",
        "schedule.max_steps",
        "schedule.lr_scheduler",
        "network.unet_rnak",
        "noise.timestep_min",
    }
    assert "unet_rank" in found["network.unet_rnak"].remedy
    assert found["embeddings.0.vectors"].value == 76


@pytest.mark.parametrize(
    ("plain", "field"),
    [
        ({"words": []}, None),
        ({"words": [], "network": {"unet_lr": 0.0}}, "embeddings"),
        ({"words": [{"name": "aoi"}, {"name": "aoi"}]}, "embeddings.1.name"),
        ({"words": [{"name": "aoi"}], "schedule": {"phases": "two_phase"}}, "schedule.embeddings_steps"),
        ({"words": [{"name": "aoi"}], "schedule": {"warmup_steps": 1500}}, "schedule.warmup_steps"),
        ({"words": [{"name": "aoi"}], "version": VERSION + 1}, "version"),
        ({"words": [{"name": "aoi"}], "embeddings_common": {"lr": float("nan")}}, "embeddings_common.lr"),
        ({"words": "aoi"}, "embeddings"),
        ({"schedule": {"max_steps": True}, "words": [{"name": "aoi"}]}, "schedule.max_steps"),
    ],
)
def test_fault_is_found(plain, field):
    found = faults_of(plain)
    assert (field in found) if field else not found


def test_error_text_names_field_value_and_remedy():
    with pytest.raises(ConfigError, match=r"schedule\.lr_scheduler = 'zigzag'.*Use one of: constant"):
        run_from_dict({"words": [{"name": "aoi"}], "schedule": {"rate": "zigzag"}})


def test_cuts_that_would_all_be_the_same():
    def faults(**data):
        return list(faults_of({"words": [{"name": "aoi"}], "data": data}))

    assert faults(crops=4) == faults(crops=4, crop="top") == faults(scale_augmentation=True) == ["data.crops"]
    assert faults(crops=4, crop="random") == faults(crops=4, crop="face") == []
    assert faults(crops=4, scale_augmentation=True) == faults() == []


def test_file_round_trip(tmp_path):
    run = run_from_dict({"name": "x", "words": [{"name": "aoi", "init_text": "1girl, *[0.1,2]", "vectors": 6}]})
    write_run(tmp_path / "run.json", run)
    assert read_run(tmp_path / "run.json") == run
    assert json.loads((tmp_path / "run.json").read_text())["version"] == VERSION


def test_broken_file_is_named(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ConfigError, match=r"run\.json.*cannot be read as JSON"):
        read_run(tmp_path / "run.json")


def test_every_setting_has_help_and_sound_default():
    paths = [path for path, _, _ in walk(Run)]
    assert len(paths) == len(set(paths)) > 60
    for path, field, _ in walk(Run):
        described = describe(field)
        assert len(described.help) > 10, path
        if described.choices:
            assert field.default in described.choices, path


REGISTRIES = {
    "start.network": get_args(start_file.NetworkUse),
    "start.embeddings": get_args(start_file.Use),
    "embeddings_common.control": {**control.CONTROLS, control.DIRECTION: None},
    "embeddings_common.norm_target": norm_targets.NORM_TARGETS,
    "embeddings_common.start": initial.STARTS,
    "embeddings_common.editability": editability.EDITABILITY,
    "network.algorithm": {"none": None, **registry.ALGORITHMS},
    "network.unet_targets": {"none": None, **targets.LAYER_SETS["unet"]},
    "network.te_targets": {"none": None, **targets.LAYER_SETS["te"]},
    "network.te2_targets": {"same": None, "none": None, **targets.LAYER_SETS["te2"]},
    "noise.timestep_distribution": schedule.DISTRIBUTIONS,
    "loss.kind": objective.LOSSES,
    "loss.huber_schedule": objective.HUBER_SCHEDULES,
    "loss.weighting": objective.WEIGHTINGS,
    "schedule.optimizer": optimizers.OPTIMIZERS,
    "network.lr_ramp": rates.RAMPS,
    "schedule.lr_scheduler": rates.RATES,
    "schedule.phases": rates.PHASE_PLANS,
    "memory.precision": get_args(ports.Precision),
    "saving.dtype": writer.DTYPES,
    "data.caption_lines": get_args(source.Lines),
    "data.missing_caption": get_args(captioning.MissingCaption),
    "data.duplicates": get_args(image_probes.Duplicates),
    "data.crop": get_args(buckets.CropMode),
    "data.transparency": get_args(pictures.Transparency),
    "data.masks": ("none", *get_args(masks.MaskScale)),
    "data.tag_dropout_mode": get_args(caption_chain.DropMode),
    "data.prune_mode": get_args(pruning.PruneMode),
    "data.core_rule": get_args(tags.CoreRule),
    "data.balance": get_args(balance.Balance),
    "regularisation.target": get_args(mixing.ClassTarget),
}


def test_choices_are_those_of_the_registries():
    """Listed once, where they are implemented; what a registry gains, the setting offers."""
    asked = {path: describe(field).choices for path, field, _ in walk(Run) if isinstance(describe(field).listed, str)}
    assert asked == {path: tuple(names) for path, names in REGISTRIES.items()}


def test_a_run_of_defaults_is_read_without_torch():
    code = "import sys; from lib_pivotal.config import check_run; check_run({'network': {'algorithm': 'lora'}}); "
    assert subprocess.run([sys.executable, "-c", f"{code}sys.exit('torch' in sys.modules)"]).returncode == 0


def test_options_of_the_optimiser_are_lines():
    lines = ["betas = [0.9, 0.98]", "eps=1e-6"]
    assert not faults_of({"words": [{"name": "aoi"}], "schedule": {"optimizer_options": lines}})
    assert option_lines(lines) == {"betas": [0.9, 0.98], "eps": 1e-6}
    for line in ("betas", "betas = (0.9", "a b = 1"):
        found = faults_of({"words": [{"name": "aoi"}], "schedule": {"optimizer_options": [line]}})
        assert found["schedule.optimizer_options"].value == line


def test_unknown_settings_never_pass_silently():
    for path, field, _ in walk(Run):
        section = path.rpartition(".")[0]
        plain: dict = {"words": [{"name": "aoi"}]}
        if section:
            plain[section] = {field.name + "_typo": 1}
            assert any(name.endswith("_typo") for name in faults_of(plain)), path


@given(
    st.builds(
        EmbeddingConfig,
        name=st.from_regex(r"[a-z][a-z0-9_-]{0,8}[a-z]", fullmatch=True),
        vectors=st.integers(1, 75),
        lr_factor=st.floats(0, 100),
    )
)
def test_round_trip_of_any_legal_embedding(embedding):
    run = dataclasses.replace(Run(), embeddings=(embedding,))
    plain = json.loads(json.dumps(run_to_dict(run)))
    again, faults = check_run(plain)
    assert again == run
    assert not [fault for fault in faults if not fault.field.endswith("name")]


def test_run_json_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    write_run(path, Run(name="before"))
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left") as caught:
        write_run(path, Run(name="after"))
    assert caught.value.filename == str(path)
    assert path.read_bytes() == before and [one.name for one in tmp_path.iterdir()] == ["run.json"]
