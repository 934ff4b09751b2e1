"""Validation: the rule by hand, and whole runs with held-out pictures: same bits, resumed exactly, ended early."""

import math

import pytest
from PIL import Image

from lib_pivotal.bundle.reader import read_bundle, require
from lib_pivotal.config import check_run, run_from_dict
from lib_pivotal.training.events import Commands, FileSaved, SeparationMeasured, StepDone, Validated
from lib_pivotal.training.prepare import prepare_pictures
from lib_pivotal.training.validation import ValidationLosses, ValidationPlan, ValidationProgress
from tests.conftest import write_pictures
from tests.training.runs import Recorder, assert_same, plain_run, stopping_at, tensors_of, train

# ---- the rule ----


def losses(held_out, trained=1.0):
    return ValidationLosses(held_out_mean=held_out, trained_mean=trained)


def gone_through(rule, pairs):
    found = ValidationProgress()
    for number, (held_out, trained) in enumerate(pairs, start=1):
        found = rule.after(10 * number, losses(held_out, trained), found)
    return found


@pytest.mark.parametrize(
    ("held_out", "best_step", "waited", "ends"),
    [
        ([0.5, 0.4, 0.3], 30, 0, False),
        ([0.5, 0.3, 0.4, 0.35], 20, 2, True),
        ([0.5, 0.3, 0.3], 20, 1, False),  # as low is no lower
        ([0.5, 0.3, 0.4, 0.2999], 40, 0, False),  # any fall counts: the noise is always the same
        ([0.5, math.nan, math.nan], 10, 0, False),
    ],
)
def test_the_lowest_and_the_end(held_out, best_step, waited, ends):
    rule = ValidationPlan(every_steps=10, patience=2)
    found = gone_through(rule, [(loss, 1.0) for loss in held_out])
    assert (found.best_step, found.waited, rule.ends(found)) == (best_step, waited, ends)
    assert not ValidationPlan(every_steps=10).ends(found), "patience 0: never"


def test_overfitting_is_a_rise_while_trained_pictures_fall():
    rule = ValidationPlan(every_steps=10)
    both = gone_through(rule, [(0.5, 0.5), (0.4, 0.4), (0.42, 0.36), (0.44, 0.3)])
    assert both.overfits and both.rise == pytest.approx(0.1)
    assert "since step 20" in both.said() and "10.0%" in both.said() and "25.0%" in both.said()
    diverged = gone_through(rule, [(0.5, 0.5), (0.4, 0.4), (0.42, 0.45), (0.44, 0.5)])
    assert not diverged.overfits and "no longer falls" in diverged.said()
    assert not gone_through(rule, [(0.4, 0.4), (0.4001, 0.3), (0.4002, 0.2)]).overfits, "a rise of 0.05 % is none"
    assert gone_through(rule, [(0.4, 0.4), (0.5, 0.3)]).said() == ""


def test_when_it_is_due():
    rule = ValidationPlan(every_steps=4)
    assert [step for step in range(1, 11) if rule.is_due(step, 10)] == [4, 8, 10]
    assert not any(ValidationPlan().is_due(step, 10) for step in range(1, 11))


def test_means_are_over_pictures():
    found = ValidationLosses.of({"a": [1.0, 2.0, 3.0], "b": [6.0]}, {"a": [1.0]})
    assert found.held_out == {"a": 2.0, "b": 6.0} and found.held_out_mean == 3.0 and found.trained_mean == 1.0
    assert math.isnan(ValidationLosses.of({}, {}).held_out_mean)


# ---- settings ----


@pytest.mark.parametrize(
    ("validation", "field"),
    [
        ({"patience": 2}, "validation.patience"),
        ({"every_steps": 5, "share": 0}, "validation.share"),
        ({"every_steps": 5, "share": 0, "folder": "there"}, None),
    ],
)
def test_settings_that_cannot_work(validation, field):
    faults = check_run({"embeddings": [{"name": "aoi"}], "validation": validation})[1]
    assert [fault.field for fault in faults] == ([field] if field else [])


@pytest.fixture
def folder(tmp_path):
    captions = {f"{name}_{i}": f"{name}, red hair, tag{i}" for name in ("aoi", "hana") for i in range(10)}
    return write_pictures(tmp_path / "pictures", captions)


@pytest.fixture
def others(tmp_path):
    """A folder that is never trained: under names that the trained folder has, too, but other pictures."""
    captions = {f"{name}_{i}": f"{name}, red hair, blue hat, tag{i}" for name in ("aoi", "hana") for i in range(3)}
    folder = write_pictures(tmp_path / "others", captions)
    for number, path in enumerate(sorted(folder.glob("*.png"))):
        Image.new("RGB", (64, 64), (200, 30 * number, 7)).save(path)
    return folder


def validated_run(folder, *, validation=None, saving=None, **schedule):
    plain = plain_run(folder, max_steps=12, **schedule)
    plain["validation"] = {"every_steps": 4, **(validation or {})}
    plain["saving"] |= saving or {}
    return run_from_dict(plain)


@pytest.mark.parametrize(
    ("settings", "held"),
    [({}, 1), ({"share": 0.25}, 3), ({"share": 0.5}, 4), ({"share": 0.5, "most": 2}, 2), ({"every_steps": 0}, 0)],
)
def test_a_share_of_each_embedding_is_held_out(settings, held, folder):
    found = prepare_pictures(validated_run(folder, validation=settings))
    counts = [sum(name in p.caption for p in found.held_out) for name in ("aoi", "hana")]
    assert counts == [held, held] and len(found.pictures) == 20 - 2 * held


def test_separation_and_validation_share_the_held_out_set(folder):
    score = {"separation_every_steps": 4}
    both, one = (validated_run(folder, validation=v, saving=score) for v in ({}, {"every_steps": 0}))
    only = validated_run(folder)
    sets = [{p.key for p in prepare_pictures(run).held_out} for run in (both, one, only)]
    assert sets[0] == sets[1] == sets[2] != set()


# ---- whole runs ----


def test_losses_are_told_by_embedding(folder, tiny_host, tmp_path):
    recorder = Recorder()
    ended = train(validated_run(folder), tiny_host, output_folder=tmp_path / "out", listener=recorder)
    events = recorder.of(Validated)
    assert [event.step for event in events] == [4, 8, 12] and ended.reason == "finished"
    for event in events:
        assert set(event.held_out) == set(event.trained) == {"aoi", "hana"}
        assert event.held_out_mean == pytest.approx((event.held_out["aoi"] + event.held_out["hana"]) / 2)
    assert len({event.held_out_mean for event in events}) == 3, "it moves with what is trained"
    best = min(events, key=lambda event: event.held_out_mean)
    assert (events[-1].best_step, events[-1].best_loss) == (best.step, best.held_out_mean)
    kept = [event.step for event in recorder.of(FileSaved) if event.kind == "best"]
    assert kept[-1] == best.step
    assert require(read_bundle(tmp_path / "out" / "steps" / "two-best.safetensors")).embeddings


def test_by_folder_the_trained_bits_are_the_same(folder, others, tiny_host, tmp_path):
    quiet = train(
        validated_run(folder, validation={"every_steps": 0}),
        tiny_host,
        output_folder=tmp_path / "a",
        listener=Recorder(),
    )
    recorder = Recorder()
    run = validated_run(folder, validation={"folder": str(others)}, saving={"separation_every_steps": 6})
    busy = train(run, tiny_host, output_folder=tmp_path / "b", listener=recorder)
    assert len(recorder.of(Validated)) == 3 and len(recorder.of(SeparationMeasured)) == 2
    assert_same(tensors_of(quiet.bundle), tensors_of(busy.bundle))
    assert not any("are trained, too" in told for told in recorder.told)


def test_by_share_only_the_held_out_pictures_differ(folder, tiny_host, tmp_path):
    """The same pictures held out, by separation's setting: not one bit differs with validations."""
    score = {"separation_every_steps": 12}
    ends = [
        train(
            validated_run(folder, validation=v, saving=score),
            tiny_host,
            output_folder=tmp_path / str(n),
            listener=Recorder(),
        )
        for n, v in enumerate([{}, {"every_steps": 0}])
    ]
    assert_same(tensors_of(ends[0].bundle), tensors_of(ends[1].bundle))


@pytest.mark.parametrize("stop", [3, 4, 9])
def test_resume_equals_the_uninterrupted_run(stop, folder, tiny_host, tmp_path):
    run = validated_run(folder, validation={"patience": 50})
    whole, heard = Recorder(), Recorder()
    first = train(run, tiny_host, output_folder=tmp_path / "whole", listener=whole)
    commands = Commands()
    begun = stopping_at(stop, commands)
    train(run, tiny_host, output_folder=tmp_path / "parts", listener=begun, commands=commands)
    resumed = train(run, tiny_host, output_folder=tmp_path / "parts", listener=heard, resume=True)
    assert begun.of(Validated) + heard.of(Validated) == whole.of(Validated)
    assert_same(tensors_of(first.bundle), tensors_of(resumed.bundle))


def test_with_other_validation_pictures_the_comparison_begins_anew(folder, others, tiny_host, tmp_path):
    commands, heard = Commands(), Recorder()
    out = {"output_folder": tmp_path / "out"}
    run = validated_run(folder, validation={"folder": str(others)})
    train(run, tiny_host, listener=stopping_at(5, commands), commands=commands, **out)
    (others / "aoi_0.txt").write_text("aoi, green hair")
    train(run, tiny_host, listener=heard, resume=True, **out)
    assert heard.of(Validated)[0].best_step == 8, "what was found on other captions does not count"


def test_a_run_ends_early(folder, tiny_host, tmp_path):
    """Embeddings and network that do not move: no validation is below the first."""
    plain = plain_run(folder, max_steps=20)
    plain["embeddings_common"] = {"lr": 0.0, "control": "none"}
    plain["network"] |= {"unet_lr": 1e-30, "te_targets": "none", "weight_decay": 0.0}
    plain["validation"] = {"every_steps": 2, "patience": 3}
    plain["saving"]["state_every_steps"] = 4
    recorder, again, on = Recorder(), Recorder(), Recorder()
    out = {"output_folder": tmp_path / "out"}
    ended = train(run_from_dict(plain), tiny_host, listener=recorder, **out)
    assert (ended.reason, ended.step) == ("finished", 8) and ended.bundle.exists()
    assert "step 2" in ended.message and "two-best" in ended.message
    back = train(run_from_dict(plain), tiny_host, listener=again, resume=True, overwrite=True, **out)
    assert back.step == 8 and not again.of(StepDone), "continued as it is, it has ended"
    plain["validation"]["patience"] = 5
    later = train(run_from_dict(plain), tiny_host, listener=on, resume=True, overwrite=True, **out)
    assert later.step == 12, "with more patience it goes on"


def test_a_network_alone_is_validated(folder, tiny_host, tmp_path):
    plain = plain_run(folder, max_steps=4)
    plain |= {"words": [], "validation": {"every_steps": 2, "share": 0.2}}
    recorder = Recorder()
    ended = train(run_from_dict(plain), tiny_host, output_folder=tmp_path / "out", listener=recorder)
    assert ended.reason == "finished" and [set(event.held_out) for event in recorder.of(Validated)] == [{""}, {""}]


def test_what_is_wrong_with_the_folder_is_told(folder, others, tiny_host, tmp_path):
    """Pictures that are trained, too, and such without an embedding."""
    (others / "aoi_1.png").write_bytes((folder / "aoi_1.png").read_bytes())
    (others / "hana_1.txt").write_text("a tree")
    remarks = {
        problem.code for problem in prepare_pictures(validated_run(folder, validation={"folder": str(others)})).remarks
    }
    assert {"validation_trained", "validation_nameless"} <= remarks


def test_captions_of_the_folder_are_pruned_as_the_trained_ones(folder, others):
    plain = plain_run(folder)
    plain["words"][0] |= {"prune": True, "absorb": ["red hair"]}
    plain["validation"] = {"every_steps": 2, "folder": str(others)}
    found = {p.key: p.caption for p in prepare_pictures(run_from_dict(plain)).validation}
    assert found["aoi_0.png"] == "aoi, blue hat, tag0" and found["hana_0.png"] == "hana, red hair, blue hat, tag0"


def test_without_pictures_it_says_so(two_embeddings_folder, tiny_host, tmp_path):
    recorder = Recorder()
    train(validated_run(two_embeddings_folder), tiny_host, output_folder=tmp_path / "out", listener=recorder)
    assert not recorder.of(Validated) and sum("no held-out picture" in told for told in recorder.told) == 1
