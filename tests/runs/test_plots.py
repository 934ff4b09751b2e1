"""The curves of a run as pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from lib_pivotal.runs.plots import BOTTOM, COLOURS, HEIGHT, LEFT, RIGHT, TOP, WIDTH, PlotsAtEnd, plot, smoothed
from lib_pivotal.runs.view import CURVE_POINTS
from lib_pivotal.training.events import RunEnded, SeparationMeasured, StepDone


def done(step: int, loss: float, norm: float) -> StepDone:
    return StepDone(step, 9, "joint", {"loss": loss}, {}, {}, {"aoi": norm}, {"aoi": step}, 0.1, 1.0)


def places(image: Image.Image, colour: str) -> list[tuple[int, int]]:
    """Where a colour is below the legend."""
    wanted = tuple(int(colour[index : index + 2], 16) for index in (1, 3, 5))
    pixels = image.load()
    return [(x, y) for x in range(LEFT, WIDTH) for y in range(TOP, HEIGHT - BOTTOM + 1) if pixels[x, y] == wanted]


def test_each_curve_is_written_when_the_run_has_ended(tmp_path: Path) -> None:
    listen = PlotsAtEnd(tmp_path, "gekidol")
    for step in range(1, 10):
        listen(done(step, 1 / step, 0.4))
    listen(SeparationMeasured(9, {}, {"aoi": 0.8}))
    assert not list(tmp_path.iterdir())
    listen(RunEnded("stopped", 9, 1.0, None))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "gekidol.loss.png", "gekidol.norms.png", "gekidol.shares.png",
    ]  # fmt: skip
    for path in tmp_path.iterdir():
        assert Image.open(path).size == (WIDTH, HEIGHT)


def test_curves_of_a_long_run_are_thinned_and_reach_its_end(tmp_path: Path) -> None:
    listen = PlotsAtEnd(tmp_path, "long")
    for step in range(1, 5 * CURVE_POINTS):
        listen(done(step, 1.0, step / 1000))
    held = listen._norms["aoi"]
    assert len(held.steps) <= CURVE_POINTS and held.steps[-1] > 4.9 * CURVE_POINTS
    listen(RunEnded("finished", step, 1.0, None))
    assert (tmp_path / "long.norms.png").exists()


def test_a_run_without_a_step_leaves_no_plot(tmp_path: Path) -> None:
    PlotsAtEnd(tmp_path, "gekidol")(RunEnded("failed", 0, 1.0, None))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_gone_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    listen = PlotsAtEnd(tmp_path / "gone", "gekidol")
    listen(done(1, 1.0, 0.4))
    listen(RunEnded("finished", 1, 1.0, None))
    assert "could not be written" in caplog.text


def test_smoothing_is_the_mean_of_the_last_values() -> None:
    assert smoothed([(1, 2.0), (2, 4.0), (3, 6.0)], over=2) == [(1, 2.0), (2, 3.0), (3, 5.0)]


def test_a_skipped_step_does_not_spoil_what_follows() -> None:
    values = [value for _, value in smoothed([(1, 2.0), (2, float("nan")), (3, 4.0)], over=2)]
    assert values == [2.0, 2.0, 3.0]


def test_a_falling_curve_falls_and_fills_the_frame() -> None:
    image = plot("Loss", {"smoothed": [(0, 3.0), (50, 2.0), (100, 1.0)]})
    found = places(image, COLOURS[0])
    assert min(x for x, _ in found) <= LEFT + 2 and max(x for x, _ in found) >= WIDTH - RIGHT - 2
    left = [y for x, y in found if x < LEFT + 50]
    right = [y for x, y in found if x > WIDTH - RIGHT - 50]
    assert max(left) < min(right), "down is larger y"


def test_numbers_that_are_none_leave_a_gap_and_no_error() -> None:
    image = plot("Loss", {"smoothed": [(0, 1.0), (1, float("nan")), (2, float("inf")), (3, 2.0)]})
    assert places(image, COLOURS[0])
    plot("Loss", {"smoothed": [(0, float("nan"))]})
    plot("Loss", {"flat": [(0, 1.0), (1, 1.0)]})
