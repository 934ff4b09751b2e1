"""The queue on the page: what a click does, over a real manager."""

import pytest

from lib_pivotal.commands import queue as commands
from lib_pivotal.commands.queue import QueuePlace


@pytest.fixture
def queue(manager):
    """The queue as it is."""
    place = QueuePlace.of_manager(manager)
    commands.pause(place)
    yield lambda: place.file.look()
    manager.queue.begin_no_more()
    assert manager.queue.join(60) and manager.join(60)
    manager.queue.close()


def act(browser, text):
    browser.set("pivotal_queue_act", text)
    return browser.press("pivotal_queue_do")


def test_added_moved_and_removed(browser, queue):
    for name in ("first", "second"):
        browser.set("pivotal_name", name)
        told = browser.press("pivotal_queue_add")
        assert f"{name} is in the queue. The queue is paused." in told["pivotal_feedback"]
    assert queue().runs[0].settings["data"]["folder"] == browser.run().data.folder
    assert "in the queue writes a file of this name" in browser.press("pivotal_queue_add")["pivotal_feedback"]
    act(browser, "up:2")
    assert [entry.name for entry in queue().runs] == ["second", "first"]
    act(browser, "down:2")
    act(browser, "skip:2")
    act(browser, "remove:1")
    assert [(entry.name, entry.state) for entry in queue().runs] == [("second", "skipped")]
    assert "no run 9" in act(browser, "remove:9")["pivotal_feedback"]
    for nonsense in ("", "remove", "remove:x", "nothing:2"):
        act(browser, nonsense)
    browser.press("pivotal_queue_clear")
    assert queue().runs == ()


def test_a_sweep_is_typed(browser, queue):
    browser.set("pivotal_name", "s")
    browser.set("pivotal_queue_sweep", "network.unet_lr = 1e-4, 3e-4\n\nseed = 1, 2")
    told = browser.press("pivotal_queue_add")
    assert "4 runs are in the queue" in told["pivotal_feedback"] and told["pivotal_queue_sweep"] == ""
    browser.set("pivotal_queue_sweep", "network.unet_lrs = 1, 2")
    told = browser.press("pivotal_queue_add")
    assert "no setting of a run" in told["pivotal_feedback"] and len(queue().runs) == 4


def test_shown_with_the_pulse_and_a_failure_stops_nobody(browser, manager, queue):
    told = browser.press("pivotal_refresh")
    assert told["pivotal_queue_tools"]["visible"] is False
    assert told["pivotal_queue_pause"]["value"] == "Resume the queue"
    for name in ("first", "second"):
        browser.set("pivotal_name", name)
        browser.press("pivotal_queue_add")
    told = browser.press("pivotal_refresh")
    assert "first" in told["pivotal_queue"] and told["pivotal_queue_tools"]["visible"] is True
    browser.press("pivotal_queue_pause")
    assert manager.queue.join(60)
    assert [entry.state for entry in queue().runs] == ["failed", "failed"], "this process has no model"
    told = browser.press("pivotal_refresh")
    assert "no checkpoint is loaded" in told["pivotal_queue"]
    assert told["pivotal_queue_pause"]["value"] == "Pause the queue"


def test_faults_are_told_and_nothing_is_added(browser, queue):
    browser.set("pivotal_name", "a/b")
    assert "which no file's name may have" in browser.press("pivotal_queue_add")["pivotal_feedback"].replace(
        "&#x27;", "'"
    )
    assert queue().runs == ()


def test_a_longer_run_needs_a_run_and_steps(browser, manager):
    assert "Choose a run" in browser.press("pivotal_go_further")["pivotal_feedback"]
    browser.set("pivotal_finished", "nobody")
    browser.set("pivotal_finished_steps", 10)
    assert "no interrupted run" in browser.press("pivotal_go_further")["pivotal_feedback"]


def test_a_folder_that_cannot_be_read_is_told_in_the_queues_place(browser, backend, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr(backend, "runs_folder", lambda: tmp_path / "file" / "below")
    assert "cannot be read" in browser.press("pivotal_refresh")["pivotal_queue"]
