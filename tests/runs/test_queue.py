"""The queue as plain values: order, numbers, states, and what a process that ended leaves."""

import json
from dataclasses import replace

import pytest

from lib_pivotal.config import run_from_dict
from lib_pivotal.errors import FileNameError, HostError
from lib_pivotal.runs.queue import Axis, QueuedRun, RunQueue, Sweep, queue_from_plain, refuse_clashes
from lib_pivotal.training.results import Results


@pytest.fixture
def queue():
    return RunQueue().with_added([QueuedRun(name=name, settings={"name": name}) for name in "abcd"])


def names(queue):
    return "".join(entry.name for entry in queue.runs)


def test_numbers_are_given_once(queue):
    assert [entry.id for entry in queue.runs] == [1, 2, 3, 4]
    shorter = queue.without(4)
    assert [entry.id for entry in shorter.with_added([QueuedRun(name="e")]).runs] == [1, 2, 3, 5]
    with pytest.raises(HostError, match="no run 4"):
        shorter.get(4)


@pytest.mark.parametrize(
    ("entry_id", "to", "wanted"), [(4, 1, "dabc"), (1, 2, "bacd"), (1, 99, "bcda"), (2, 0, "bacd")]
)
def test_waiting_runs_are_moved(queue, entry_id, to, wanted):
    assert names(queue.with_moved(entry_id, to)) == wanted


def test_only_those_that_wait_are_moved_and_counted(queue):
    queue = queue.with_changed(1, state="done").with_changed(2, state="running")
    assert [queue.position(number) for number in (1, 2, 3, 4)] == [0, 0, 1, 2]
    assert names(queue.with_moved(4, 1)) == "abdc" and queue.next().name == "c"
    for number in (1, 2):
        with pytest.raises(HostError, match="only runs that wait"):
            queue.with_moved(number, 1)
    with pytest.raises(HostError, match="b is running"):
        queue.without(2)
    assert names(queue.without_ended()) == "bcd"


def test_after_the_process_has_ended_nothing_starts_by_itself(queue):
    cut_off = queue.with_changed(1, state="done").with_changed(2, state="running", run_id="folder", step=0)
    after = cut_off.recovered(pause_waiting=False)
    assert after.paused and "b was training" in after.notice
    assert [entry.state for entry in after.runs] == ["done", "interrupted", "waiting", "waiting"]
    resumed = after.with_resume()
    assert not resumed.paused and not resumed.notice
    assert (resumed.next().name, resumed.next().run_id) == ("b", "folder")
    assert not queue.recovered(pause_waiting=False).paused
    assert queue.recovered(pause_waiting=True).paused
    ended = replace(queue, runs=tuple(replace(entry, state="done") for entry in queue.runs))
    assert ended.recovered(pause_waiting=True) == ended


def test_it_survives_as_json(queue):
    sweep = Sweep(name="s", axes=(Axis("network.unet_lr", (1e-4, 3e-4)), Axis("network.unet_rank", (4, 8))))
    whole = queue.with_added([QueuedRun(name="x", place=(0, 1), overwrite=True)], sweep).with_pause("why")
    assert queue_from_plain(json.loads(json.dumps(whole.to_plain()))) == whole
    assert whole.runs[-1].sweep == whole.sweeps[0].id and whole.of_sweep(whole.sweeps[0].id) == (whole.runs[-1],)
    assert whole.without(whole.runs[-1].id).sweeps == ()


@pytest.mark.parametrize(
    "plain",
    [
        [],
        {},
        {"version": 2},
        {"version": 1, "runs": {}},
        {"version": 1, "runs": [3]},
        {"version": 1, "runs": [{"id": True}]},
        {"version": 1, "runs": [{"id": 1, "state": "odd"}]},
        {"version": 1, "runs": [{"id": 1}, {"id": 1}]},
        {"version": 1, "sweeps": [{"axes": [{"path": 1}]}]},
    ],
)
def test_what_is_no_queue(plain):
    with pytest.raises(ValueError, match=r"."):
        queue_from_plain(plain)


def results(name, **saving):
    return Results.of(run_from_dict({"name": name, "embeddings": [{"name": "aoi"}], "saving": saving}))


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        (results("x"), results("X"), "x.safetensors"),
        (results("x"), results("x-000500"), "x-000500.safetensors"),
        (results("x-000500"), results("x"), "x-000500.safetensors"),
        (results("x", embedding_files=True), results("aoi"), "aoi.safetensors"),
        (results("x"), results("aoi"), ""),
        (results("x"), results("x-5"), ""),
    ],
)
def test_runs_that_write_the_same_file(first, second, clash):
    assert first.clash(second) == clash
    if not clash:
        refuse_clashes([second], [first])
        return
    with pytest.raises(FileNameError, match=clash):
        refuse_clashes([second], [first])
    with pytest.raises(FileNameError, match=clash):
        refuse_clashes([first, second], [])
