"""Sweeps: values as they are typed, a run for each, names that tell the values."""

import pytest

from lib_pivotal.config import run_from_dict, run_to_dict
from lib_pivotal.errors import ConfigError
from lib_pivotal.runs.queue import Axis
from lib_pivotal.runs.sweep import MOST_RUNS, as_axes, label, read_axis, set_value, sweep_runs


@pytest.fixture
def run():
    return run_from_dict({"name": "aoi", "embeddings": [{"name": "aoi"}, {"name": "hana", "vectors": 2}]})


@pytest.mark.parametrize(
    ("text", "path", "values"),
    [
        ("network.unet_lr = 1e-4, 3e-4", "network.unet_lr", (1e-4, 3e-4)),
        ("network.unet_rank=4,8", "network.unet_rank", (4, 8)),
        ("schedule.lr_scheduler=cosine, constant", "schedule.lr_scheduler", ("cosine", "constant")),
        ("data.flip=true,false", "data.flip", (True, False)),
        ('saving.sample_prompts=[["a, b"], ["c"]]', "saving.sample_prompts", (["a, b"], ["c"])),
        ("name=a=b", "name", ("a=b",)),
    ],
)
def test_an_axis_as_it_is_typed(text, path, values):
    assert read_axis(text) == Axis(path, values)


@pytest.mark.parametrize("text", ["", "network.unet_lr", "network.unet_lr =", "= 1, 2"])
def test_what_is_no_axis(text):
    with pytest.raises(ConfigError, match="setting with its values"):
        read_axis(text)
    assert as_axes({"a.b": [1, 2]}) == (Axis("a.b", (1, 2)),)
    with pytest.raises(ConfigError, match="list of values"):
        as_axes({"a.b": 1})


def test_one_run_for_each_pair_of_values(run):
    axes = (Axis("network.unet_lr", (1e-4, 3e-4)), Axis("embeddings.1.vectors", (2, 4, 8)))
    made = sweep_runs(run, axes)
    assert [place for place, _ in made] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert made[4][1].name == "aoi-unet_lr-0.0003-vectors-4"
    for (first, second), one in made:
        plain = run_to_dict(run)
        plain["network"]["unet_lr"] = (1e-4, 3e-4)[first]
        plain["embeddings"][1]["vectors"] = (2, 4, 8)[second]
        plain["name"] = one.name
        assert run_to_dict(one) == plain
    assert len({one.name for _, one in made}) == 6
    assert run.network.unet_lr == run_from_dict(run_to_dict(run)).network.unet_lr


def test_names_are_legal_and_told_apart(run):
    made = sweep_runs(run, [Axis("data.prefix", ("a/b", "a:b", "c"))])
    assert [one.name for _, one in made] == ["aoi-prefix-a_b", "aoi-prefix-a_b-2", "aoi-prefix-c"]
    assert label(Axis("network.unet_lr", (0.5,)), 0) == "unet_lr-0.5"


@pytest.mark.parametrize(
    ("axes", "told"),
    [
        ([], "1 to 2 settings"),
        ([Axis("seed", (1, 2))] * 3, "1 to 2 settings"),
        ([Axis("seed", (1, 2))] * 2, "given twice"),
        ([Axis("seed", (1, 1))], "values that differ"),
        ([Axis("seed", ())], "values that differ"),
        ([Axis("name", ("a", "b"))], "cannot be swept"),
        ([Axis("seed", tuple(range(MOST_RUNS + 1)))], "more runs"),
        ([Axis("network.unet_lrs", (1, 2))], "no setting of a run"),
        ([Axis("embeddings.2.vectors", (1, 2))], "no setting of a run"),
        ([Axis("seed.more", (1, 2))], "no setting of a run"),
        ([Axis("network.unet_rank", (4, -1, "x"))], "network.unet_rank"),
    ],
)
def test_what_is_no_sweep(run, axes, told):
    with pytest.raises(ConfigError, match=told):
        sweep_runs(run, axes)


def test_a_value_put_in_a_list():
    plain = {"a": [{"b": 1}, {"b": 2}], "c": [1, 2]}
    set_value(plain, "a.1.b", 5)
    set_value(plain, "c.0", 7)
    assert plain == {"a": [{"b": 1}, {"b": 5}], "c": [7, 2]}
