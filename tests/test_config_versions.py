"""Runs of older versions are read as they were meant."""

import json
from pathlib import Path

import pytest

from lib_pivotal.config import Run, check_run, read_run, run_from_dict, run_to_dict, write_run
from lib_pivotal.config_schema import walk
from lib_pivotal.config_versions import RENAMED_IN_2, VALUES_IN_2, VERSION, as_version_1, path_in_1, upgraded
from lib_pivotal.ui.form import TABLE

OF_VERSION_1 = {
    "version": 1,
    "name": "gekidol",
    "words": [{"name": "aoi", "absorb": ["hat"], "keep": ["smile"], "draw_weight": 2.0, "mirror": False}],
    "words_common": {"lr": 1e-3, "control": "none"},
    "data": {"caption_lines": "draw", "balance": "words", "folder": "pictures"},
    "schedule": {
        "rate": "linear",
        "clip_words": 1.0,
        "phases": "two_phase",
        "words_steps": 100,
        "continued_words_factor": 0.5,
        "max_steps": 200,
    },
    "saving": {
        "preview_every_steps": 10,
        "preview_every_epochs": 0,
        "preview_prompts": ["{word}"],
        "preview_words": ["aoi"],
        "keep_previewed": False,
    },
}


def test_a_run_of_version_1_keeps_each_of_its_settings():
    run = run_from_dict(OF_VERSION_1)
    embedding = run.embeddings[0]
    assert (embedding.prune_tags, embedding.keep_tags, embedding.sampling_weight) == (("hat",), ("smile",), 2.0)
    assert not embedding.flip and (run.embeddings_common.lr, run.embeddings_common.control) == (1e-3, "none")
    assert (run.data.caption_lines, run.data.balance) == ("random", "embeddings")
    schedule, saving = run.schedule, run.saving
    assert (schedule.lr_scheduler, schedule.clip_embeddings, schedule.embeddings_steps) == ("linear", 1.0, 100)
    assert schedule.continued_embedding_lr_factor == 0.5
    assert (saving.sample_every_steps, saving.sample_prompts, saving.sample_embeddings) == (10, ("{word}",), ("aoi",))
    assert not saving.keep_sampled


def test_it_is_written_in_the_newest_version_and_read_back(tmp_path: Path):
    run = run_from_dict(OF_VERSION_1)
    write_run(tmp_path / "run.json", run)
    plain = json.loads((tmp_path / "run.json").read_text())
    assert plain["version"] == VERSION == 3 and not {"words", "words_common"} & plain.keys()
    assert read_run(tmp_path / "run.json") == run


def test_a_body_without_a_version_may_use_either():
    old = {key: value for key, value in OF_VERSION_1.items() if key != "version"}
    new = {key: value for key, value in run_to_dict(run_from_dict(old)).items() if key != "version"}
    mixed = {**new, "words": old["words"]}
    del mixed["embeddings"]
    assert run_from_dict(old) == run_from_dict(new) == run_from_dict(mixed)


def test_both_names_at_once_are_told():
    _, faults = check_run({"words": [{"name": "aoi"}], "embeddings": [{"name": "hana"}]})
    assert [fault.field for fault in faults] == ["words"]


def test_version_2_knows_no_old_names():
    _, faults = check_run({"version": 2, "embeddings": [{"name": "aoi"}], "schedule": {"rate": "linear"}})
    assert [fault.field for fault in faults] == ["schedule.rate"]


@pytest.mark.parametrize(
    "plain", [{"words": 3}, {"words": [3]}, {"schedule": None}, {"saving": []}, {"data": {"balance": []}}]
)
def test_what_is_no_setting_is_told_and_not_raised(plain):
    assert check_run(plain)[1]


def test_every_new_name_is_a_setting_and_no_old_one_is():
    paths = {path.partition(".")[2] if path.startswith("embeddings.") else path for path, _, _ in walk(Run)}
    flat = {path.rpartition(".")[2] for path in paths} | {field.split(".")[0] for field in paths}
    embedding = set(run_to_dict(run_from_dict(OF_VERSION_1))["embeddings"][0])
    for section, names in RENAMED_IN_2.items():
        known = embedding if section == "embeddings" else flat
        assert set(names.values()) <= known and not set(names) & (known - {"flip"}), section
    assert upgraded({"data": {"balance": "words"}}, 1) == {"data": {"balance": "embeddings"}}
    assert set(VALUES_IN_2["data"]) <= flat


def test_what_version_1_wrote_is_written_again():
    """Written by version 0.1; hashes of its states are over this."""
    written = json.loads((Path(__file__).parent / "golden" / "run_version_1.json").read_text())
    assert as_version_1(run_to_dict(run_from_dict(written))) == written


def path_in_2(path: str) -> str:
    """The path of today for one of version 1; others as they are."""
    section, dot, rest = path.partition(".")
    section = RENAMED_IN_2[""].get(section, section)
    return f"{section}{dot}{RENAMED_IN_2.get(section, {}).get(rest, rest)}"


def test_ids_of_the_page_stay():
    ids = {row.path: row.elem_id for row in TABLE}
    assert (
        ids["embeddings_common.lr"] == "pivotal_words_common_lr" and ids["network.unet_lr"] == "pivotal_network_unet_lr"
    )
    assert ids["schedule.lr_scheduler"] == "pivotal_schedule_rate" and ids["embeddings"] == "pivotal_words"
    assert all(path_in_2(path_in_1(row.path)) == row.path for row in TABLE)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("body", [{}, {"embeddings_common": {"lr": 1e-3}}, {"embeddings_common": {"control": "std"}}])
def test_a_file_of_before_keeps_the_norm_that_it_was_trained_towards(version, body):
    assert check_run({"version": version, **body})[0].embeddings_common.norm_target == "median"


def test_a_new_file_and_a_body_without_a_version_have_the_default_of_today():
    today = Run().embeddings_common.norm_target
    assert today == "captions"
    for body in ({}, {"version": VERSION}, {"words_common": {"lr": 1e-3}}, {"embeddings_common": {"control": "std"}}):
        assert check_run(body)[0].embeddings_common.norm_target == today
    assert (
        check_run({"version": 2, "embeddings_common": {"norm_target": today}})[0].embeddings_common.norm_target == today
    )


def test_a_hash_of_version_1_holds_only_for_what_was_done_then():
    """A state of then is continued with the target of then, or it is another run."""
    old = run_from_dict(OF_VERSION_1)
    new = run_from_dict({key: value for key, value in OF_VERSION_1.items() if key != "version"})
    assert "norm_target" not in as_version_1(run_to_dict(old))["words_common"]
    assert as_version_1(run_to_dict(new))["words_common"]["norm_target"] == "captions"
