"""From a folder to a run without a choice."""

from __future__ import annotations

from pathlib import Path

from lib_pivotal.config import DataConfig, Run
from lib_pivotal.data.records import Dataset, Picture
from lib_pivotal.runs.defaults import fitted_run
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
    assert [word.name for word in fitted.run.words] == ["aoi", "hana"] and fitted.run.data.resolution_px == 64
    assert make_plan(data, fitted.run).at_least("warning") == ()


def test_what_the_user_chose_stays() -> None:
    run = Run(name="mine", data=DataConfig(core_rule="kgrid", prefix="ink"))
    fitted = fitted_run(_dataset({"aoi": 12}), run).run
    assert (fitted.name, fitted.data.core_rule, fitted.data.prefix) == ("mine", "kgrid", "ink")
