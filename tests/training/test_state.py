"""States are complete or absent, rolling, told apart from damaged ones, and never executed."""

import os
import pickle
import random

import pytest
import torch
from safetensors import safe_open

from lib_pivotal.errors import StateError
from lib_pivotal.training.state import load_latest_state, load_state, save_state
from lib_pivotal.training.state_files import StateFile, list_states


def content(value):
    return {"trainable": {"x": torch.full((3,), float(value)), "n": value, "l": [1, 2.5, "a", None]}}


def newest(folder):
    return list_states(folder)[0]


def old_file(path, step=1):
    return StateFile(-1, step, path)


EVERYTHING = {
    "dtypes": [torch.arange(5).to(t) for t in (torch.uint8, torch.int64, torch.bfloat16, torch.float16, torch.bool)],
    "double": torch.randn(5, dtype=torch.float64),
    "nothing": torch.empty(0, 3),
    "scalar": torch.tensor(1 / 3),
    "view": torch.arange(12.0).reshape(3, 4).t(),
    "betas": (0.9, 0.999),
    "by number": {0: {"step": torch.tensor(3.0)}, 1: {}},
    "odd numbers": [float("inf"), float("-inf"), 1 / 3, 2**70, -0.0, True, None, "é\n"],
    "looks like a table of ours": {"tensor": 0, "float": "nan", "dict": [[1, 2]]},
}


def assert_equal(first, second):
    assert type(first) is type(second)
    if isinstance(first, torch.Tensor):
        assert first.dtype == second.dtype and first.shape == second.shape and torch.equal(first, second)
    elif isinstance(first, dict):
        assert list(first) == list(second)
        for key in first:
            assert_equal(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_equal(one, other)
    else:
        assert repr(first) == repr(second)


def test_round_trip_is_exact(tmp_path):
    save_state(tmp_path, 7, EVERYTHING)
    loaded = load_state(newest(tmp_path))
    assert loaded.pop("format_version") == 2 and loaded.pop("step") == 7
    assert_equal(EVERYTHING, loaded)


def test_the_state_of_every_optimiser_goes_through(tmp_path):
    from lib_pivotal.parameter_groups import ParameterGroup
    from lib_pivotal.training.optimizers import build_optimizer

    for name in ("adamw", "lion", "adafactor"):
        parameter = torch.nn.Parameter(torch.randn(4, 3))
        optimizer = build_optimizer(name, [ParameterGroup("word aoi", (parameter,), 1e-3, 1.0, 0.0)])
        parameter.grad = torch.randn(4, 3)
        optimizer.step()
        save_state(tmp_path / name, 1, {"optimizer": optimizer.state_dict()})
        assert_equal(optimizer.state_dict(), load_state(newest(tmp_path / name))["optimizer"])


def test_any_program_can_read_the_file(tmp_path):
    save_state(tmp_path, 3, content(3))
    with safe_open(newest(tmp_path).path, "pt") as file:
        assert torch.equal(file.get_tensor("0"), torch.full((3,), 3.0))
        assert "trainable" in file.metadata()["pivotal.state"]


def test_what_is_no_plain_value_is_named(tmp_path):
    with pytest.raises(StateError, match=r"state\.trainable\.x is a set"):
        save_state(tmp_path, 1, {"trainable": {"x": {1, 2}}})
    with pytest.raises(StateError, match="has the key"):
        save_state(tmp_path, 1, {"trainable": {(1, 2): 3}})
    assert not list_states(tmp_path)


def test_only_the_last_written_are_kept(tmp_path):
    for step in (1, 2, 10, 9):
        save_state(tmp_path, step, content(step), keep=2)
    assert [state.step for state in list_states(tmp_path)] == [9, 10]


def test_what_was_just_written_stays_whatever_else_is_there(tmp_path):
    """States with higher numbers lay in the folder: the new one was deleted as the oldest."""
    for step in (400, 500):
        save_state(tmp_path, step, content(step), keep=2)
    for step in (2, 4, 6):
        assert save_state(tmp_path, step, content(step), keep=2).exists()
        assert load_latest_state(tmp_path).step == step
    for number in (100, 200):
        torch.save({"format_version": 1, "step": number}, tmp_path / f"state-{number:08d}.pt")
    assert save_state(tmp_path, 8, content(8), keep=1).exists()
    assert [state.step for state in list_states(tmp_path)] == [8]


def test_a_clock_that_goes_back_changes_nothing(tmp_path):
    first = save_state(tmp_path, 1, content(1))
    second = save_state(tmp_path, 2, content(2))
    os.utime(first, (2e9, 2e9))
    os.utime(second, (1e9, 1e9))
    assert load_latest_state(tmp_path).step == 2
    save_state(tmp_path, 3, content(3), keep=2)
    assert [state.step for state in list_states(tmp_path)] == [3, 2]


def test_damaged_newest_falls_back_to_the_one_before(tmp_path):
    save_state(tmp_path, 1, content(1))
    path = save_state(tmp_path, 2, content(2))
    path.write_bytes(path.read_bytes()[:100])
    found = load_latest_state(tmp_path)
    assert found.step == 1 and path.name in found.passed_over[0]


def test_every_cut_and_every_flipped_bit_is_noticed(tmp_path):
    path = save_state(tmp_path, 1, EVERYTHING)
    good = path.read_bytes()
    rng = random.Random(0)
    for _ in range(300):
        broken = bytearray(good)
        if rng.random() < 0.3:
            broken = broken[: rng.randrange(len(good))]
        else:
            place = rng.randrange(len(good))
            broken[place] ^= 1 << rng.randrange(8)
        path.write_bytes(broken)
        try:
            found = load_state(newest(tmp_path))
        except StateError:
            continue
        found.pop("format_version"), found.pop("step")  # a blank of the header's padding may change
        assert_equal(EVERYTHING, found)


def test_nothing_there_and_nothing_readable_are_refused(tmp_path):
    with pytest.raises(StateError, match="nothing to continue"):
        load_latest_state(tmp_path / "absent")
    for step in (1, 2):
        save_state(tmp_path, step, content(step)).write_bytes(b"gone")
    with pytest.raises(StateError, match="none of the saved states"):
        load_latest_state(tmp_path)
    assert len(list_states(tmp_path)) == 2


def test_states_of_version_one_are_read(tmp_path):
    path = tmp_path / "state-00000043.pt"
    torch.save({"format_version": 1, "step": 43, **content(43)}, path)
    found = load_latest_state(tmp_path)
    assert found.step == 43 and found.path == path
    assert torch.equal(found.content["trainable"]["x"], torch.full((3,), 43.0))


def test_pickled_code_is_not_executed(tmp_path):
    marker = tmp_path / "executed"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    path = tmp_path / "state-00000001.pt"
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(StateError):
        load_state(old_file(path))
    torch.save({"format_version": 1, "evil": Evil()}, path)
    with pytest.raises(StateError):
        load_state(old_file(path))
    assert not marker.exists()


def test_unwritable_folder_leaves_old_states(tmp_path):
    save_state(tmp_path / "s", 1, content(1))
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(StateError, match="Free disk space"):
        save_state(blocked / "x", 2, content(2))
    assert load_latest_state(tmp_path / "s").step == 1


def test_stray_temporaries_are_removed(tmp_path):
    (tmp_path / ".state-00000001-0001.safetensors.0a1b2c.tmp").write_bytes(b"half")
    save_state(tmp_path, 2, content(2))
    assert [path.name for path in tmp_path.iterdir()] == ["state-00000002-0001.safetensors"]


def test_newer_format_is_refused(tmp_path):
    path = tmp_path / "state-00000001.pt"
    torch.save({"format_version": 99}, path)
    with pytest.raises(StateError, match="format 99"):
        load_state(old_file(path))
