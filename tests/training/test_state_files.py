"""Each run has a folder of states of its own; the newest is told by names."""

import threading

from lib_pivotal.training.state_files import (
    has_states,
    latest_run_folder,
    list_states,
    new_run_folder,
    next_state,
    states_folder,
)


def test_each_run_has_a_folder_of_its_own(tmp_path):
    states = states_folder(tmp_path, "two")
    assert states == tmp_path / "two.state" and latest_run_folder(states) is None and not has_states(states)
    first = new_run_folder(states)
    next_state(first, 90).write_bytes(b"")
    assert has_states(states)
    second = new_run_folder(states)
    assert latest_run_folder(states) == second and not has_states(states)
    next_state(second, 2).write_bytes(b"")
    assert has_states(states) and [state.step for state in list_states(second)] == [2]


def test_two_that_begin_together_get_two(tmp_path):
    made, barrier = [], threading.Barrier(8)

    def begin():
        barrier.wait()
        made.append(new_run_folder(tmp_path / "two.state"))

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 8


def test_states_of_old_versions_are_found(tmp_path):
    (tmp_path / "state-00000043.pt").write_bytes(b"")
    assert latest_run_folder(tmp_path) == tmp_path and has_states(tmp_path)
    assert [(state.step, state.is_pickle) for state in list_states(tmp_path)] == [(43, True)]
    next_state(tmp_path, 5).write_bytes(b"")
    assert [state.step for state in list_states(tmp_path)] == [5, 43]


def test_other_files_are_no_states(tmp_path):
    for name in ("state-1.pt", "state-00000001.pt.tmp", ".state-00000001-0001.safetensors.x.tmp", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert not list_states(tmp_path) and not has_states(tmp_path)
