"""A queue that is served, on tiny real runs: order, a failure in the middle, pause, skip, a restart, a sweep."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lib_pivotal.commands import queue as commands
from lib_pivotal.commands.queue import AddRequest, QueuePlace
from lib_pivotal.config import run_from_dict
from lib_pivotal.errors import FileNameError, HostError
from lib_pivotal.runs.manager import RunManager
from lib_pivotal.runs.queue import Axis
from tests.runs.test_manager import TinyBackend, endless, wait_for


@pytest.fixture
def backend(tiny_host, tmp_path):
    return TinyBackend(tiny_host, tmp_path)


@pytest.fixture
def run(two_embeddings_folder):
    return run_from_dict(
        {
            "name": "two",
            "embeddings": [{"name": "aoi", "vectors": 2}, {"name": "hana", "vectors": 2}],
            "network": {"unet_rank": 2, "unet_lr": 1e-3},
            "data": {"folder": str(two_embeddings_folder), "resolution_px": 64},
            "schedule": {"max_steps": 6, "batch_size": 2},
            "saving": {"state_every_steps": 0, "dtype": "fp32"},
        }
    )


@pytest.fixture
def processes(backend):
    """Managers over the same folders, one after another; `next_one` ends the last one properly first."""
    made = []

    def next_one():
        if made:
            end(made[-1])
        made.append(RunManager(backend))
        return made[-1]

    yield next_one
    if made:
        end(made[-1])


def end(manager):
    manager.stop()  # a run of the queue that is stopped holds it
    assert manager.queue.join(60) and manager.join(60)
    manager.queue.close()


@pytest.fixture
def manager(processes):
    return processes()


def add(manager, run, **request):
    return commands.add(QueuePlace.of_manager(manager), AddRequest(run, **request))


def states(manager):
    return {
        entry["name"]: entry["state"] for entry in commands.listing(QueuePlace.of_manager(manager)).as_dict()["runs"]
    }


def named(run, name, **data):
    return replace(run, name=name, data=replace(run.data, **data))


def test_runs_follow_each_other_and_one_that_fails_stops_nobody(manager, backend, run, tmp_path):
    place = QueuePlace.of_manager(manager)
    commands.pause(place)
    add(manager, named(run, "first"))
    add(manager, named(run, "broken", folder=str(tmp_path / "nowhere")))
    add(manager, named(run, "second"))
    third = add(manager, named(run, "third"))[0]
    assert manager.current is None, "a paused queue begins nothing"
    commands.move(place, third.id, to=1)
    commands.resume(place)
    assert manager.queue.join(240)
    assert states(manager) == {"third": "done", "first": "done", "broken": "failed", "second": "done"}
    listed = {entry["name"]: entry for entry in commands.listing(place).as_dict()["runs"]}
    assert "does not exist" in listed["broken"]["reason"] and listed["first"]["step"] == 6
    assert [path.stem for path in backend.saved] == ["third", "first", "second"]
    assert all((backend.runs_folder() / listed[name]["run_id"]).is_dir() for name in ("first", "second", "third"))


def test_a_run_that_is_added_begins_at_once_and_waits_for_one_by_hand(manager, run):
    by_hand = manager.start(endless(run))
    add(manager, named(run, "queued"))
    wait_for(lambda: by_hand.step >= 2)
    assert states(manager) == {"queued": "waiting"}
    manager.stop()
    assert manager.queue.join(120) and states(manager) == {"queued": "done"}


def test_names_are_refused_when_they_are_added(manager, backend, run):
    place = QueuePlace.of_manager(manager)
    commands.pause(place)
    add(manager, run)
    before = place.file.path.read_bytes()
    for clash in (run, replace(run, name="Two"), named(run, "two-000500")):
        with pytest.raises(FileNameError, match="in the queue writes a file of this name"):
            add(manager, clash)
    (backend.lora_folder()).mkdir()
    (backend.lora_folder() / "there.safetensors").write_bytes(b"x")
    with pytest.raises(FileNameError, match="there is a file of this name already"):
        add(manager, named(run, "there"))
    assert place.file.path.read_bytes() == before
    add(manager, run, overwrite=True)
    commands.resume(place)
    assert manager.queue.join(120)
    assert [entry["state"] for entry in commands.listing(place).as_dict()["runs"]] == ["done", "done"]
    add(manager, named(run, "two-more"))  # runs that have ended hold no name
    assert manager.queue.join(120)


def test_skip_saves_and_goes_on(manager, backend, run):
    place = QueuePlace.of_manager(manager)
    running = add(manager, named(endless(run), "long"))[0]
    waiting, last = (add(manager, named(run, name))[0] for name in ("left", "last"))
    wait_for(lambda: manager.current is not None and manager.current.step >= 2)
    with pytest.raises(HostError, match="is running"):
        commands.remove(place, running.id)
    commands.skip(place, waiting.id)
    commands.skip(place, running.id)
    assert manager.queue.join(120)
    assert states(manager) == {"long": "skipped", "left": "skipped", "last": "done"}
    assert (backend.lora_folder() / "long.safetensors").is_file()
    assert any(folder.name.endswith("-long") for folder in manager.resumable())
    with pytest.raises(HostError, match="skipped already"):
        commands.skip(place, running.id)
    commands.clear(place)
    assert states(manager) == {} and last.id == 3


def test_pause_ends_after_the_present_run(manager, run):
    place = QueuePlace.of_manager(manager)
    add(manager, replace(named(run, "now"), schedule=replace(run.schedule, max_steps=30)))
    add(manager, named(run, "later"))
    wait_for(lambda: manager.current is not None and manager.current.step >= 1)
    commands.pause(place)
    assert manager.queue.join(120) and states(manager) == {"now": "done", "later": "waiting"}
    commands.resume(place)
    assert manager.queue.join(120) and states(manager) == {"now": "done", "later": "done"}


def cut_off(processes, run):
    """What a killed process leaves: a record that a run goes on, and its states; and a manager of the next process."""
    manager = processes()
    entry = add(manager, run)[0]
    add(manager, named(run, "after", folder=run.data.folder))
    wait_for(lambda: manager.current is not None and manager.current.step >= 3)
    manager.stop()
    assert manager.queue.join(120) and states(manager)[run.name] == "interrupted"
    notice = commands.listing(QueuePlace.of_manager(manager)).as_dict()["notice"]
    assert f"{run.name} was stopped" in notice, "a stop by hand holds the queue"
    end(manager)
    path = QueuePlace.of_folder(manager.backend.runs_folder(), manager.backend.lora_folder()).file.path
    plain = json.loads(path.read_text())
    plain |= {"paused": False, "notice": ""}
    plain["runs"][0]["state"] = "running"
    path.write_text(json.dumps(plain))
    return processes(), entry


def test_after_a_restart_it_waits_and_continues_from_the_state(processes, backend, run):
    run = replace(run, schedule=replace(run.schedule, max_steps=60))
    whole = processes().start(named(run, "whole"))
    wait_for(lambda: whole.ended)
    manager, entry = cut_off(processes, run)
    place = QueuePlace.of_manager(manager)
    told = commands.listing(place).as_dict()
    assert told["paused"] and "two was training" in told["notice"] and "Resume continues" in told["notice"]
    assert states(manager) == {"two": "interrupted", "after": "waiting"} and manager.current is None
    commands.resume(place)
    assert manager.queue.join(240) and states(manager) == {"two": "done", "after": "done"}
    folders = [folder for folder in backend.runs_folder().iterdir() if folder.name.endswith("-two")]
    assert len(folders) == 1, "it went on in its own folder"
    first, second = (load_file(backend.lora_folder() / f"{name}.safetensors") for name in ("whole", "two"))
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("damage", ["damaged", "gone"])
def test_a_state_that_cannot_be_read_is_a_failure_and_no_new_start(processes, backend, run, damage):
    manager, entry = cut_off(processes, replace(run, schedule=replace(run.schedule, max_steps=60)))
    for path in backend.runs_folder().glob("*/two.state/run-*/state-*"):
        path.write_bytes(b"damaged") if damage == "damaged" else path.unlink()
    place = QueuePlace.of_manager(manager)
    before = sorted(backend.runs_folder().iterdir())
    commands.resume(place)
    assert manager.queue.join(240) and states(manager) == {"two": "failed", "after": "done"}
    reason = commands.listing(place).as_dict()["runs"][0]["reason"]
    assert "none of the saved states can be read" in reason if damage == "damaged" else "no interrupted run" in reason
    new = set(backend.runs_folder().iterdir()) - set(before)
    assert [folder.name.rpartition("-")[2] for folder in new] == ["after"]


def test_waiting_runs_wait_after_a_restart(processes, run):
    manager = processes()
    commands.pause(QueuePlace.of_manager(manager))
    add(manager, run)
    file = QueuePlace.of_manager(manager).file
    manager.queue.close()
    file.change(lambda queue: replace(queue, paused=False))
    after = processes()
    told = commands.listing(QueuePlace.of_manager(after)).as_dict()
    assert told["paused"] and "started again" in told["notice"] and after.current is None


def test_looking_writes_nothing_and_shows_what_the_next_change_puts_in_order(processes, backend, run):
    manager = processes()
    assert states(manager) == {} and not list(backend.runs_folder().glob("*queue*"))
    commands.pause(QueuePlace.of_manager(manager))
    add(manager, run)
    manager.queue.close()
    path = QueuePlace.of_manager(manager).file.path
    plain = json.loads(path.read_text()) | {"paused": False}
    plain["runs"][0]["state"] = "running"
    path.write_text(json.dumps(plain))
    before = path.read_bytes()
    after = processes()
    assert states(after) == {"two": "interrupted"} and path.read_bytes() == before
    commands.pause(QueuePlace.of_manager(after))
    assert json.loads(path.read_text())["runs"][0]["state"] == "interrupted"


def test_only_one_process_serves(manager, backend, run):
    place = QueuePlace.of_manager(manager)
    commands.pause(place)
    other = RunManager(backend)
    add(other, run)  # may fill it
    assert other.current is None and states(manager) == {"two": "waiting"}
    offline = QueuePlace.of_folder(backend.runs_folder(), backend.lora_folder())
    for elsewhere in (QueuePlace.of_manager(other), offline):
        with pytest.raises(HostError, match="another program serves this queue"):
            commands.resume(elsewhere)
    manager.queue.close()
    commands.resume(QueuePlace.of_manager(other))
    assert other.queue.join(120) and states(other) == {"two": "done"}
    other.queue.close()


def test_a_checkpoint_that_cannot_be_trained_or_is_another_one_holds_the_queue(manager, backend, run, monkeypatch):
    place = QueuePlace.of_manager(manager)
    backend.refusal = "SD3 cannot be trained."
    add(manager, run)
    assert manager.queue.join(60)
    told = commands.listing(place).as_dict()
    assert told["paused"] and "two could not begin: SD3 cannot be trained. Resume" in told["notice"]
    backend.refusal = ""
    monkeypatch.setattr(backend, "checkpoint", lambda: "other.safetensors [12]")
    commands.resume(place)
    assert manager.queue.join(60)
    told = commands.listing(place).as_dict()
    assert told["paused"] and "added for the checkpoint tiny, and other.safetensors [12] is loaded" in told["notice"]
    assert states(manager) == {"two": "waiting"} and manager.current is None
    monkeypatch.setattr(backend, "checkpoint", lambda: "tiny [12]")
    commands.resume(place)
    assert manager.queue.join(120) and states(manager) == {"two": "done"}


def test_whatever_is_raised_at_a_start_is_a_failure_of_that_run(manager, run, monkeypatch):
    place = QueuePlace.of_manager(manager)
    commands.pause(place)
    add(manager, named(run, "odd"))
    add(manager, named(run, "even"))
    original = manager.start

    def start(run, **more):
        if run.name == "odd":
            raise RuntimeError("a fault for the test")
        return original(run, **more)

    monkeypatch.setattr(manager, "start", start)
    commands.resume(place)
    assert manager.queue.join(120) and states(manager) == {"odd": "failed", "even": "done"}
    assert commands.listing(place).as_dict()["runs"][0]["reason"] == "a fault for the test"


def test_a_disk_that_fails_is_told_and_ends_no_process(manager, run, monkeypatch):
    place = QueuePlace.of_manager(manager)
    monkeypatch.setattr(manager.queue, "_refuse_unready", lambda entry: 1 / 0)
    add(manager, run)
    wait_for(lambda: commands.listing(place).as_dict()["paused"])
    assert "The queue stopped: division by zero" in commands.listing(place).as_dict()["notice"]
    monkeypatch.undo()
    commands.resume(place)
    assert manager.queue.join(120) and states(manager) == {"two": "done"}


def test_a_sweep_ends_in_one_picture(manager, backend, run, tmp_path):
    drawn = replace(run, saving=replace(run.saving, sample_every_steps=3, sample_prompts=("smile",)))
    drawn = replace(drawn, schedule=replace(drawn.schedule, max_steps=3))
    axes = (Axis("network.unet_lr", (1e-3, 1e-2)), Axis("network.unet_rank", (2, 4)))
    place = QueuePlace.of_manager(manager)
    added = add(manager, drawn, sweep=axes)
    assert [entry.place for entry in added] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    wait_for(lambda: added[0].name in str(manager.current and manager.current.name))
    commands.skip(place, added[3].id)
    assert manager.queue.join(240)
    (sweep,) = commands.listing(place).as_dict()["sweeps"]
    assert sweep["settings"] == {"network.unet_lr": [1e-3, 1e-2], "network.unet_rank": [2, 4]}
    with Image.open(sweep["grid"]) as opened:
        sheet = opened.convert("RGB")
    listed = commands.listing(place).as_dict()["runs"]
    for entry in listed[:3]:
        assert entry["state"] == "done"
        grid = backend.runs_folder() / entry["run_id"] / f"{entry['name']}-000003.png"
        assert holds(sheet, Image.open(grid).convert("RGB")), entry["name"]
    assert listed[3]["state"] == "skipped" and listed[3]["run_id"] == ""


def holds(sheet, picture):
    """Whether a picture is a part of another, pixel by pixel."""
    whole, part = np.asarray(sheet), np.asarray(picture)
    high, wide = part.shape[:2]
    rows, columns = range(whole.shape[0] - high + 1), range(whole.shape[1] - wide + 1)
    row = part[high // 2]
    return any(
        np.array_equal(whole[top + high // 2, left : left + wide], row)
        and np.array_equal(whole[top : top + high, left : left + wide], part)
        for top in rows
        for left in columns
    )


def test_a_longer_run_goes_on_from_its_end(manager, backend, run):
    """A finished run whose state was kept is continued with more steps, and is the run that was that long at once."""
    steady = replace(run.schedule, lr_scheduler="constant")  # others follow the length
    kept = replace(run, schedule=steady, saving=replace(run.saving, state_every_steps=3))
    longer = replace(kept, schedule=replace(kept.schedule, max_steps=9))
    view = manager.start(named(longer, "whole"))
    wait_for(lambda: view.ended)
    first = manager.start(kept)
    wait_for(lambda: first.ended)
    assert manager.join(60)
    again = manager.resume_run(first.run_id, max_steps=9)
    wait_for(lambda: again.ended)
    assert again.snapshot()["status"] == "finished" and again.snapshot()["loss"]["steps"] == [7, 8, 9]
    one, two = (load_file(backend.lora_folder() / f"{name}.safetensors") for name in ("whole", "two"))
    assert all(torch.equal(one[key], two[key]) for key in one)
