"""Whether a run fits, and what to change; the count itself is tested in tests/training/test_memory.py."""

from dataclasses import replace

import pytest

from lib_pivotal.errors import HostError
from lib_pivotal.runs import fitting, preflight
from lib_pivotal.runs.fitting import advice, changes, judge, room
from lib_pivotal.training.memory import MemoryCount, MemoryPhase
from lib_pivotal.training.prepare import prepare_pictures
from tests.training.test_memory import make_run

MIB = 2**20


def need(run):
    """150 MiB a picture, a third of it with checkpointing, on top of 300."""
    each = 50 if run.memory.gradient_checkpointing else 150
    return (300 + each * run.schedule.batch_size) * MIB


@pytest.fixture
def run(two_embeddings_folder):
    return make_run(two_embeddings_folder, batch=4)


def test_checkpointing_comes_first_then_the_batch(run):
    tried = list(changes(run))
    assert [(other.memory.gradient_checkpointing, other.schedule.batch_size) for _, other in tried] == [
        (True, 4),
        (True, 2),
        (True, 1),
    ]
    assert all(other.schedule.batch_size * other.schedule.accumulation == 4 for _, other in tried)


def test_pictures_are_given_up_first_and_with_all_else_last(run):
    drawing = replace(run, saving=replace(run.saving, preview_every_steps=10))

    def need_with_pictures(other):
        return max(need(other), 800 * MIB if other.saving.preview_every_steps else 0)

    _, told = advice(drawing, 900 * MIB, need_with_pictures, 900 * MIB)
    assert told.startswith("It fits with no samples while it trains: 0.9 GB")
    _, told = advice(drawing, 900 * MIB, need_with_pictures, 820 * MIB)
    assert told.startswith("It fits with gradient checkpointing (about")
    _, told = advice(drawing, 900 * MIB, need_with_pictures, 520 * MIB)
    assert "gradient checkpointing" in told and "no samples" in told


@pytest.mark.parametrize(
    ("free", "told"),
    [(520, "gradient checkpointing (about"), (420, "a batch of 2 and 2 micro"), (350, "a batch of 1 and 4 micro")],
)
def test_the_first_change_that_fits_is_told(run, free, told):
    first, second = advice(run, need(run), need, free * MIB)
    assert "0.9 GB are needed" in first and told in second


def test_nothing_fits(run):
    _, second = advice(run, need(run), need, 100 * MIB)
    assert "Even one picture at a time" in second and "0.3 GB" in second


def test_room_is_what_is_free_and_what_the_checkpoint_takes(tiny_host):
    total, free = room(tiny_host)
    assert 0 < free <= total


@pytest.fixture
def counted(monkeypatch):
    """Counts as `need` has them, in place of those that take seconds."""

    def count(run, host):
        return MemoryCount((MemoryPhase("a step", {"unet": 300 * MIB, "kept_unet": need(run) - 300 * MIB}),))

    monkeypatch.setattr(fitting, "compile_run", lambda run, prepared: run)
    monkeypatch.setattr(fitting, "count_memory", count)


def test_a_run_that_does_not_fit(tiny_host, run, monkeypatch, counted):
    prepared = prepare_pictures(run)
    verdicts = []
    for free in (2000, 910, 600):
        monkeypatch.setattr(fitting, "room", lambda host, free=free: (2**40, free * MIB))
        verdicts.append(judge(run, tiny_host, prepared))
    fits, close, short = verdicts
    assert fits.fits and fits.remarks == () and fits.needed_bytes == sum(fits.parts.values()) == 900 * MIB
    assert list(fits.parts) == ["U-Net", "kept for the gradient, U-Net"] and fits.moment == "a step"
    assert close.fits and "closely" in close.remarks[0]
    assert (
        short.fits is False and short.remarks[0].startswith("It does not fit") and "checkpointing" in short.remarks[1]
    )


def test_a_model_that_cannot_be_counted_is_measured_all_the_same(tiny_host, run, monkeypatch):
    def refused(*_):
        raise NotImplementedError("no meta kernel")

    monkeypatch.setattr(fitting, "count_memory", refused)
    found = preflight.measure(run, tiny_host)
    assert found.step_s > 0 and found.memory_bytes is None and "no meta kernel" in found.remarks[0]


def test_steps_that_fail_for_lack_of_memory_are_told_with_the_remedy(tiny_host, run, monkeypatch, counted):
    def failed(*_):
        return [], "memory does not suffice"

    monkeypatch.setattr(preflight, "_take_steps", failed)
    with pytest.raises(HostError, match="memory does not suffice"):
        preflight.measure(run, tiny_host)
    monkeypatch.setattr(fitting, "room", lambda host: (2**40, 2**10))
    found = preflight.measure(replace(run, schedule=replace(run.schedule, batch_size=1)), tiny_host)
    assert found.step_s == 0 and found.memory_fits is False and "does not fit" in found.remarks[0]
