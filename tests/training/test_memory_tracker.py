"""Every storage once, by its kind, until it dies."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile

from lib_pivotal.training.memory_tracker import WORKING, MemoryTracker

KIB = 1024


def made(kib):
    return torch.empty(kib * KIB, dtype=torch.uint8)


def test_the_most_that_was_alive_at_once():
    with MemoryTracker() as tally:
        with tally.counting("kept"):
            first = made(3)
        made(50)
        second = made(10)
        del first
        third = made(20)
    assert tally.peak() == {"kept": 3 * KIB, WORKING: 50 * KIB}
    assert second.numel() + third.numel() == 30 * KIB


def test_views_and_work_in_place_take_nothing():
    with MemoryTracker() as tally:
        base = made(4)
        again = base.view(2, -1)[0].detach().add_(1)
        assert again.untyped_storage().data_ptr() == base.untyped_storage().data_ptr()
    assert tally.peak() == {WORKING: 4 * KIB}


def test_renamed():
    with MemoryTracker() as tally:
        tensor = made(4)
        tally.rename([tensor], "gradients")
    assert tally.peak() == {"gradients": 4 * KIB}


def test_nothing_counted_is_nothing():
    assert MemoryTracker().peak() == {}


@pytest.mark.parametrize("numberless", [False, True])
def test_equals_the_profilers_records(numberless):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.LayerNorm(64), nn.SiLU(), nn.Linear(64, 32), nn.GELU())
    pixels = torch.randn(128, 16)

    def step():
        model(pixels).square().mean().backward()
        model.zero_grad()

    tally = MemoryTracker()
    if numberless:
        with FakeTensorMode(allow_non_fake_inputs=True), tally:
            step()
    else:
        with tally:
            step()
    step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as records:
        step()
    live = most = 0
    events = [event for event in records.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    assert sum(tally.peak().values()) == pytest.approx(most, rel=0.02)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_question_for_a_number_is_answered():
    with FakeTensorMode(), MemoryTracker():
        tensor = torch.zeros(3)
        assert bool(torch.isfinite(tensor).all()) and float(tensor.sum()) == 1.0 and int(tensor.long().sum()) == 1
