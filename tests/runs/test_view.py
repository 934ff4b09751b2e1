"""A run as pages see it."""

import json

import pytest

from lib_pivotal.runs.view import CURVE_POINTS, NOTICES, Curve, RunView
from lib_pivotal.training.events import Notice, Preparing, RunEnded, RunStarted, SeparationMeasured, StepDone, Validated


def step(number, loss=0.5):
    return StepDone(number, 10, "joint", {"loss": loss}, {"unet": 1e-4}, {}, {"aoi": 0.4}, {"aoi": number}, 0.5, 1.0)


def test_curve_is_thinned_and_stays_in_order():
    curve = Curve()
    for number in range(10 * CURVE_POINTS):
        curve.add(number, float(number))
    assert CURVE_POINTS / 2 <= len(curve.steps) <= CURVE_POINTS
    assert curve.steps == sorted(curve.steps) and curve.values == [float(number) for number in curve.steps]
    assert curve.steps[-1] > 10 * CURVE_POINTS - 2 * curve.every


def test_snapshot_follows_the_events_and_is_json(tmp_path):
    view = RunView("a", "two", max_steps=10, folder=tmp_path)
    view.listen(Preparing("encoding pictures", 3, 7))
    assert view.snapshot()["activity"] == "encoding pictures (3 of 7)"
    view.listen(RunStarted("two", 0, 10, ("aoi",), 100, 800))
    view.listen(step(1))
    view.listen(step(2, float("nan")))
    view.set_status("paused", "paused")
    view.listen(step(3))
    shown = view.snapshot()
    assert shown["status"] == "paused" and shown["step"] == 3
    assert shown["loss"] == {"steps": [1, 3], "values": [0.5, 0.5]}
    losses = {"aoi": {"whole": 0.6, "unet": 0.6, "te": 0.8, "words": 0.8, "base": 1.0}}
    view.listen(SeparationMeasured(3, losses, {"aoi": 0.6}))
    view.listen(RunEnded("finished", 10, 5.0, tmp_path / "two.safetensors"))
    view.set_status("training")
    shown = json.loads(json.dumps(view.snapshot(), allow_nan=False))
    assert shown["status"] == "finished" and shown["shares"]["aoi"]["values"] == [0.6]
    assert {part: curve["values"] for part, curve in shown["explained"].items()} == {
        "unet": [1.0],
        "te": [pytest.approx(0.5)],
        "words": [pytest.approx(0.5)],
    }
    assert view.ended


def test_an_error_stays_however_much_is_said_after_it(tmp_path):
    view = RunView("a", "two", max_steps=10, folder=tmp_path)
    view.listen(Notice("info", 1, "first"))
    view.listen(Notice("error", 2, "does not learn"))
    for number in range(2 * NOTICES):
        view.listen(Notice("info", 3, str(number)))
    said = view.snapshot()["notices"]
    assert len(said) == NOTICES
    assert said[0] == {"level": "error", "step": 2, "message": "does not learn"}
    assert said[-1]["message"] == str(2 * NOTICES - 1)
    for number in range(2 * NOTICES):
        view.listen(Notice("error", 4, str(number)))
    assert len(view.snapshot()["notices"]) == NOTICES, "errors without end are bounded, too"


def test_validations_are_curves_with_their_lowest_step(tmp_path):
    view = RunView("a", "two", max_steps=10, folder=tmp_path)
    assert view.snapshot()["validation"]["best_step"] is None
    view.listen(Validated(2, {"aoi": 0.5, "hana": 0.7}, {"aoi": 0.4}, 0.6, 0.4, 2, 0.6, False))
    view.listen(Validated(4, {"aoi": 0.6, "hana": 0.8}, {"aoi": 0.3}, 0.7, 0.3, 2, 0.6, True, "it overfits"))
    found = json.loads(json.dumps(view.snapshot()["validation"], allow_nan=False))
    assert found["means"] == {
        "held_out": {"steps": [2, 4], "values": [0.6, 0.7]},
        "trained": {"steps": [2, 4], "values": [0.4, 0.3]},
    }
    assert found["held_out"]["hana"]["values"] == [0.7, 0.8] and found["trained"]["aoi"]["values"] == [0.4, 0.3]
    assert (found["best_step"], found["best_loss"], found["overfits"], found["said"]) == (2, 0.6, True, "it overfits")
