"""Presets: sound runs, fitted to the pictures; users' own kept as files."""

import json
from dataclasses import replace

import pytest

from lib_pivotal.config import DataConfig, EmbeddingConfig, Run, check_consistency, check_run, run_to_dict
from lib_pivotal.config_schema import walk
from lib_pivotal.data.tags import TagShare
from lib_pivotal.errors import ConfigError
from lib_pivotal.runs.presets import (
    MEASURED_FROM,
    PRESETS,
    apply_preset,
    fitting_preset,
    load_preset,
    preset,
    preview_interval,
    save_preset,
    saved_presets,
    separation_interval,
)
from lib_pivotal.runs.proposal import EmbeddingRow

ROWS = (
    EmbeddingRow(EmbeddingConfig("aoi", "blue hair", vectors=6), 20, 0.5, absorbed=(TagShare("blue hair", 1.0),)),
    EmbeddingRow(EmbeddingConfig("ink"), 40, 1.0, style=True),
)
RUN = Run(
    name="gekidol",
    seed=7,
    clip_skip=2,
    embeddings=tuple(row.embedding for row in ROWS),
    data=DataConfig(folder="pictures", resolution_px=64, templates=("{word}, {caption}",)),
)


@pytest.mark.parametrize("key", [one.key for one in PRESETS])
def test_a_preset_makes_a_sound_run(key):
    run = apply_preset(key, RUN, ROWS)
    assert check_consistency(run) == []
    assert check_run(run_to_dict(run)) == (run, [])
    assert run.schedule.max_steps >= 100 and run.saving.sample_every_steps > 0


@pytest.mark.parametrize("key", [one.key for one in PRESETS])
def test_what_names_the_run_stays(key):
    run = apply_preset(key, RUN, ROWS)
    assert (run.name, run.seed, run.clip_skip) == ("gekidol", 7, 2)
    assert (run.data.folder, run.data.resolution_px, run.data.templates) == ("pictures", 64, ("{word}, {caption}",))
    assert [embedding.name for embedding in run.embeddings] == ["aoi", "ink"]


@pytest.mark.parametrize("one", PRESETS, ids=lambda one: one.key)
def test_presets_only_set_what_there_is(one):
    known = {path for path, _, _ in walk(Run)}
    assert set(one.settings) <= known and one.help and one.label


def test_embeddings_absorb_only_where_there_is_something():
    assert [embedding.prune for embedding in apply_preset("character", RUN, ROWS).embeddings] == [True, False]
    assert [embedding.prune for embedding in apply_preset("style", RUN, ROWS).embeddings] == [False, False]


def test_two_phases_share_the_steps():
    run = apply_preset("two_phase", RUN, ROWS)
    assert run.schedule.phases == "two_phase" and run.schedule.embeddings_steps * 2 == run.schedule.max_steps


def test_rarer_embeddings_make_longer_runs():
    rare = tuple(replace(row, sampling_share=row.sampling_share / 4) for row in ROWS)
    assert apply_preset("several", RUN, rare).schedule.max_steps > apply_preset("several", RUN, ROWS).schedule.max_steps


def test_the_preset_that_fits():
    assert fitting_preset(ROWS) == "several"
    assert fitting_preset(ROWS[:1]) == "character" and fitting_preset(ROWS[1:]) == "style"
    assert fitting_preset(()) == "character"


def test_preview_intervals_are_round():
    assert [preview_interval(steps) for steps in (100, 800, 1500, 6000)] == [10, 100, 200, 750]


def test_separation_is_measured_half_as_often_as_samples_are_made():
    assert [separation_interval(steps) for steps in (100, 1500, 3000, 6000)] == [400, 400, 750, 1500]
    run = apply_preset("character", RUN, ROWS)
    assert run.saving.separation_every_steps == separation_interval(run.schedule.total_steps)
    few = [replace(row, pictures=MEASURED_FROM - 1) for row in ROWS]
    assert apply_preset("character", RUN, few).saving.separation_every_steps == 0, "none of few pictures is held out"


def test_an_unknown_preset_is_named():
    with pytest.raises(ConfigError, match="is not a preset"):
        preset("quickest")


def test_own_presets_are_kept_without_embeddings_and_pictures(tmp_path):
    path = save_preset(tmp_path / "presets", "  my best 1 ", apply_preset("style", RUN, ROWS))
    plain = json.loads(path.read_text())
    assert plain["embeddings"] == [] and plain["name"] == "" and plain["data"]["folder"] == ""
    assert saved_presets(tmp_path / "presets") == {path.stem: path}
    run = load_preset(path, RUN)
    assert run.embeddings == RUN.embeddings and run.name == "gekidol" and run.data.folder == "pictures"
    assert run.network.unet_targets == "all"


@pytest.mark.parametrize("name", ["", " ", "..."])
def test_a_preset_needs_a_name(tmp_path, name):
    with pytest.raises(ConfigError, match="not a name"):
        save_preset(tmp_path, name, RUN)


def test_a_preset_of_embeddings_alone_survives(tmp_path):
    """Without network and words it trains nothing: that is no fault of a preset."""
    alone = replace(RUN, network=replace(RUN.network, algorithm="none"))
    assert load_preset(save_preset(tmp_path, "words", alone), RUN).network.algorithm == "none"


def test_a_broken_preset_is_told(tmp_path):
    (tmp_path / "x.json").write_text('{"loss": {"kind": "best"}}')
    with pytest.raises(ConfigError, match="loss.kind"):
        load_preset(tmp_path / "x.json", RUN)
