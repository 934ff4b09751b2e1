"""States are complete or absent, rolling, and never executed."""

import os
import pickle

import pytest
import torch

from lib_pivotal.errors import StateError
from lib_pivotal.training.state import list_states, load_latest_state, load_state, save_state, state_path


def content(value):
    return {"trainable": {"x": torch.full((3,), float(value)), "n": value, "l": [1, 2.5, "a", None]}}


def test_round_trip_is_exact(tmp_path):
    tensor = torch.randn(5, dtype=torch.float64)
    path = save_state(tmp_path, 7, {"t": tensor, "step_name": "seven"})
    loaded = load_state(path)
    assert torch.equal(loaded["t"], tensor) and loaded["step"] == 7 and loaded["step_name"] == "seven"


def test_only_the_newest_are_kept(tmp_path):
    for step in (1, 2, 10, 9):
        save_state(tmp_path, step, content(step), keep=2)
    assert list_states(tmp_path) == [state_path(tmp_path, 10), state_path(tmp_path, 9)]


def test_damaged_newest_falls_back_to_the_one_before(tmp_path, caplog):
    save_state(tmp_path, 1, content(1))
    path = save_state(tmp_path, 2, content(2))
    path.write_bytes(path.read_bytes()[:100])
    assert load_latest_state(tmp_path)["step"] == 1
    assert "state-00000002.pt" in caplog.text


def test_nothing_there(tmp_path):
    assert load_latest_state(tmp_path / "absent") is None


def test_pickled_code_is_not_executed(tmp_path):
    marker = tmp_path / "executed"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    path = state_path(tmp_path, 1)
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(StateError, match="Delete it"):
        load_state(path)
    torch.save({"format_version": 1, "evil": Evil()}, path)
    with pytest.raises(StateError):
        load_state(path)
    assert not marker.exists()


def test_unwritable_folder_leaves_old_states(tmp_path):
    save_state(tmp_path / "s", 1, content(1))
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(StateError, match="Free disk space"):
        save_state(blocked / "x", 2, content(2))
    assert load_latest_state(tmp_path / "s")["step"] == 1


def test_stray_temporaries_are_removed(tmp_path):
    (tmp_path / ".state-00000001.pt.0a1b2c.tmp").write_bytes(b"half")
    save_state(tmp_path, 2, content(2))
    assert [path.name for path in tmp_path.iterdir()] == ["state-00000002.pt"]


def test_newer_format_is_refused(tmp_path):
    path = state_path(tmp_path, 1)
    torch.save({"format_version": 99}, path)
    with pytest.raises(StateError, match="format 99"):
        load_state(path)
