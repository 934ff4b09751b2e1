"""From a folder to a run without a choice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lib_pivotal.config import DataConfig, Run
from lib_pivotal.data.records import Dataset, Picture
from lib_pivotal.runs.defaults import fitted_run
from lib_pivotal.runs.host_defaults import HostDefaults
from lib_pivotal.runs.plan import make_plan

PLACES = ("park", "sky", "sea", "city")


def _dataset(names: dict[str, int]) -> Dataset:
    captions = [
        (name, f"{name}, 1girl, {name[0]} hair, {PLACES[n % 4]}") for name, count in names.items() for n in range(count)
    ]
    pictures = tuple(Picture(f"{c}/{n}.png", Path("x"), text, 64, 64, c) for n, (c, text) in enumerate(captions))
    return Dataset(Path("My Set"), pictures, {n: tuple(p.key for p in pictures if p.concept == n) for n in names}, ())


def test_a_folder_becomes_a_run_without_a_fault() -> None:
    data = _dataset({"aoi": 12, "hana": 4})
    fitted = fitted_run(data)
    assert (fitted.run.name, fitted.preset, fitted.run.data.balance) == ("my-set", "several", "words")
    assert [embedding.name for embedding in fitted.run.embeddings] == [
        "aoi",
        "hana",
    ] and fitted.run.data.resolution_px == 64
    assert make_plan(data, fitted.run).at_least("warning") == ()


def test_what_the_user_chose_stays() -> None:
    run = Run(name="mine", data=DataConfig(core_rule="kgrid", prefix="ink"))
    fitted = fitted_run(_dataset({"aoi": 12}), run).run
    assert (fitted.name, fitted.data.core_rule, fitted.data.prefix) == ("mine", "kgrid", "ink")


def test_the_checkpoints_size_and_choices_for_all_runs_count() -> None:
    data = _dataset({"aoi": 12})
    data = replace(data, pictures=tuple(replace(p, width_px=1100, height_px=1000) for p in data.pictures))
    assert fitted_run(data).run.data.resolution_px == 512
    around = HostDefaults(1024, adjusted=lambda run: replace(run, clip_skip=2))
    run = fitted_run(data, circumstances=around).run
    assert (run.data.resolution_px, run.clip_skip) == (1024, 2)


def test_embeddings_changed_by_hand_stay_and_untouched_ones_follow() -> None:
    data = _dataset({"aoi": 12, "hana": 4})
    first = fitted_run(data)
    changed = replace(first.run.embeddings[0], vectors=2)
    run = replace(first.run, embeddings=(changed, first.run.embeddings[1]))
    again = fitted_run(data, run, before=first.proposed)
    assert again.run.embeddings[0] == changed and again.run.embeddings[1] == first.run.embeddings[1]
    assert any("Kept as they were changed by hand: aoi" in remark for remark in again.remarks)
    assert fitted_run(data, run).run.embeddings[0] == changed  # without a list of before all words are the user's


def test_embeddings_alone_leave_every_other_setting() -> None:
    first = fitted_run(_dataset({"aoi": 12}))
    run = replace(first.run, schedule=replace(first.run.schedule, max_steps=77))
    again = fitted_run(_dataset({"aoi": 12, "hana": 12}), run, before=first.proposed, embeddings_only=True)
    assert [embedding.name for embedding in again.run.embeddings] == ["aoi", "hana"] and again.preset == ""
    assert replace(again.run, embeddings=()) == replace(run, embeddings=())
