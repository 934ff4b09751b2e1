"""Who waits for other processes finds out when one of them is gone. The store is torch's own."""

import threading
import time

import pytest
import torch.distributed as dist

from lib_pivotal.errors import TrainingError
from lib_pivotal.training.liveness import Liveness


@pytest.fixture
def store():
    return dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def life(store, rank, **settings):
    return Liveness(store, rank=rank, size=2, **{"beat_s": 0.02, "patience_s": 0.6, **settings})


def test_as_long_as_all_live_waiting_is_free(store):
    first, second = life(store, 0), life(store, 1)
    done = time.monotonic() + 1.5
    first.wait(lambda: time.monotonic() > done)
    assert first.departed() == second.departed() == ""
    first.close(), second.close()


def test_one_that_is_killed_is_noticed(store):
    first, second = life(store, 0), life(store, 1)
    assert first.departed() == ""
    second.close()  # no sign of life any more, and no word of farewell
    started = time.monotonic()
    with pytest.raises(TrainingError, match=r"process 1 of this run has given no sign of life for \d+ s"):
        first.wait(lambda: False)
    assert time.monotonic() - started < 5
    first.close()


def test_one_that_never_came_is_noticed(store):
    first = life(store, 0)
    with pytest.raises(TrainingError, match="no sign of life"):
        first.wait(lambda: False)
    first.close()


def test_one_that_leaves_says_why(store):
    first, second = life(store, 0, patience_s=60), life(store, 1)
    threading.Timer(0.3, second.leave, ["OSError: no such picture"]).start()
    with pytest.raises(TrainingError, match="process 1 of this run has exited: OSError: no such picture"):
        first.wait(lambda: False)
    first.close(), second.close()
