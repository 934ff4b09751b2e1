"""Commands from any thread."""

import threading
import time

from lib_pivotal.training.events import Commands


def test_requests_are_served_once():
    commands = Commands()
    commands.save_now()
    commands.sample_now()
    assert commands.take_save() and not commands.take_save()
    assert commands.take_sample() and not commands.take_sample()


def test_pause_blocks_until_resume_and_stop_ends_it():
    for wake in ("resume", "stop"):
        commands = Commands()
        commands.pause()
        thread = threading.Thread(target=commands.wait_while_paused)
        thread.start()
        time.sleep(0.02)
        assert thread.is_alive()
        getattr(commands, wake)()
        thread.join(2)
        assert not thread.is_alive()
        assert commands.stopping is (wake == "stop")
