"""What a button of the Train page answers stays to be read."""

import pytest

from lib_pivotal.commands import queue as commands
from lib_pivotal.commands.queue import QueuePlace

REFUSED = {
    "pivotal_train": "there is a file of this name already",
    "pivotal_preflight": "no checkpoint is loaded",
    "pivotal_class_pictures": "regularisation.folder",
    "pivotal_queue_add": "there is a file of this name already",
    "pivotal_queue_do": "no run 9",
    "pivotal_go_further": "Choose a run",
    "pivotal_resume_run": "Choose a run",
}
"""Buttons of the Train page, and why they refuse."""


@pytest.mark.parametrize("button", REFUSED)
def test_a_look_at_the_settings_does_not_wipe_away_why_a_button_refused(browser, backend, manager, pictures, button):
    commands.pause(QueuePlace.of_manager(manager))
    browser.set("pivotal_data_folder", str(pictures))
    browser.press("pivotal_scan")
    (backend.lora_folder() / "there.safetensors").write_bytes(b"")
    browser.set("pivotal_name", "there")
    browser.set("pivotal_queue_act", "remove:9")
    refused = browser.press(button)["pivotal_feedback"]
    assert REFUSED[button] in refused
    # what was typed just before is looked at half a second later; the same text, so that the page does not flicker
    assert browser.press("pivotal_check")["pivotal_feedback"] == refused
    browser.set("pivotal_name", "free")
    assert "Before it starts" in browser.press("pivotal_check")["pivotal_feedback"]


def test_a_start_wipes_away_what_was_refused_before(browser, backend, manager, pictures):
    browser.set("pivotal_data_folder", str(pictures))
    browser.press("pivotal_scan")
    taken = backend.lora_folder() / "there.safetensors"
    taken.write_bytes(b"")
    browser.set("pivotal_name", "there")
    assert "of this name already" in browser.press("pivotal_train")["pivotal_feedback"]
    taken.unlink()
    browser.press("pivotal_train")
    assert manager.join(20)
    assert "of this name already" not in browser.press("pivotal_check")["pivotal_feedback"]
