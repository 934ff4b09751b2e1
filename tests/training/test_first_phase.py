"""A first phase of embeddings alone that ends by itself: the rule, and whole runs with it."""

import math
from dataclasses import replace

import pytest
import torch

from lib_pivotal.config import check_run, run_from_dict
from lib_pivotal.evaluation.separation import embeddings_alone, separation
from lib_pivotal.networks.network import build_network
from lib_pivotal.networks.targets import LayerRule
from lib_pivotal.ports import TrainingBatch
from lib_pivotal.training.events import Commands, StepDone
from lib_pivotal.training.first_phase import FirstPhase, FirstPhaseEnd, gain
from lib_pivotal.training.objective import Objective
from lib_pivotal.training.rates import PhasePlan
from lib_pivotal.training.schedule import NoiseSchedule
from lib_pivotal.training.step import MicroStep
from tests.conftest import write_pictures
from tests.training.runs import Recorder, assert_same, plain_run, stopping_at, tensors_of, train

# ---- the rule ----


def looked(rule, gains):
    """Where the phase ends for gains at each look, and how far it then is."""
    phase, values = FirstPhase(), iter(gains)
    for step in range(1, rule.most_steps):
        if rule.is_due(step, phase):
            phase = rule.after_look(step, next(values), phase)
    return phase


@pytest.mark.parametrize(
    ("gains", "ends_at"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9], None),
        ([0.1, 0.2, 0.2, 0.2], 40),
        ([0.1, 0.2, 0.19, 0.3, 0.3, 0.3], 60),
        ([0.1, 0.2, 0.2009, 0.2009], 40),  # a rise of less than a hundredth is none
        ([0.0, -0.1], 20),
        ([math.nan] * 9, None),  # what could not be measured does not count
        ([0.1, math.nan, 0.1, 0.1], 40),
    ],
)
def test_it_ends_where_the_gain_has_stopped_rising(gains, ends_at):
    rule = FirstPhaseEnd(patience=2, every_steps=10, most_steps=100)
    found = looked(rule, gains)
    assert found.skipped == (0 if ends_at is None else 100 - ends_at)


def test_least_and_most():
    flat = [0.1] * 9
    rule = FirstPhaseEnd(patience=2, every_steps=10, least_steps=55, most_steps=100)
    assert looked(rule, flat).skipped == 40  # the first look after step 55 is at 60
    assert looked(replace(rule, least_steps=100), flat).skipped == 0
    assert not any(replace(rule, patience=0).is_due(step, FirstPhase()) for step in range(200))
    assert not rule.is_due(100, FirstPhase()) and not rule.is_due(0, FirstPhase())
    assert rule.is_due(50, FirstPhase(looked_at=40)) and not rule.is_due(50, FirstPhase(looked_at=50))


def test_the_gain_is_the_mean_of_what_is_explained():
    assert gain({"a": 0.5, "b": 0.9}, {"a": 1.0, "b": 1.0}) == pytest.approx(0.3)
    assert math.isnan(gain({}, {}))


def test_what_is_measured_is_the_scores_own_loss(tiny_host):
    network = build_network(tiny_host.layers(), [LayerRule("attn2", 2, 2.0)], seed=0, device="cpu")
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    step = MicroStep(
        tiny_host.text,
        tiny_host.denoiser,
        schedule=NoiseSchedule(tiny_host.alphas_cumprod),
        objective=Objective(),
        device=torch.device("cpu"),
    )
    embeddings = {"aoi": (torch.randn(2, 16),)}
    batch = TrainingBatch(torch.randn(1, 4, 8, 8), ["aoi"], None, torch.ones(1), ["k"], [("aoi",)])
    with network.attach():
        whole = separation(
            step, {"aoi": [batch]}, embeddings=embeddings, initial_embeddings=embeddings, network=network
        )
        alone = embeddings_alone(step, {"aoi": [batch]}, embeddings=embeddings, network=network)
    assert alone == {"aoi": whole["aoi"].embeddings} and alone["aoi"] != whole["aoi"].whole


# ---- whole runs ----


@pytest.fixture
def folder(tmp_path):
    """More than four pictures an embedding: some can be held out."""
    captions = {f"{name}_{i}": f"{name}, red hair, tag{i}" for name in ("aoi", "hana") for i in range(6)}
    return write_pictures(tmp_path / "pictures", captions)


def first_phase_run(folder, *, lr=5e-3, **schedule):
    plain = plain_run(folder, max_steps=12, phases="two_phase", embeddings_steps=8, embeddings_look_steps=2, **schedule)
    plain["schedule"] |= {"embeddings_patience": 1, "continued_embedding_lr_factor": 0.2, **schedule}
    plain["embeddings_common"] = {"lr": lr}
    return run_from_dict(plain)


def phases(recorder):
    return [event.phase for event in recorder.of(StepDone)]


def test_embeddings_that_do_not_learn_hand_over_early(folder, tiny_host, tmp_path):
    recorder = Recorder()
    ended = train(first_phase_run(folder, lr=1e-12), tiny_host, output_folder=tmp_path / "out", listener=recorder)
    assert phases(recorder) == ["words"] * 2 + ["network"] * 4 and ended.step == 6
    steps = recorder.of(StepDone)
    assert steps[1].max_steps == 12 and steps[-1].max_steps == 6 and steps[-1].eta_seconds == 0
    plan = PhasePlan(12, kind="two_phase", embeddings_steps=8)
    assert [event.rates["unet"] for event in steps[2:]] == pytest.approx(  # the whole course of the network's rate
        [1e-3 * (1 + math.cos(math.pi * plan.rate_position(step)[0] / 4)) / 2 for step in range(8, 12)]
    )
    assert any("the network begins" in told for told in recorder.told)


def test_not_before_the_least_steps(folder, tiny_host, tmp_path):
    run = first_phase_run(folder, lr=1e-12, embeddings_least_steps=5)
    recorder = Recorder()
    train(run, tiny_host, output_folder=tmp_path / "out", listener=recorder)
    assert phases(recorder) == ["words"] * 6 + ["network"] * 4


def test_without_pictures_to_measure_by_it_lasts_as_set(two_embeddings_folder, tiny_host, tmp_path):
    recorder = Recorder()
    train(first_phase_run(two_embeddings_folder), tiny_host, output_folder=tmp_path / "out", listener=recorder)
    assert phases(recorder) == ["words"] * 8 + ["network"] * 4
    assert sum("cannot end by itself" in told for told in recorder.told) == 1


@pytest.mark.parametrize("lr", [1e-12, 3e-2])
@pytest.mark.parametrize("stop", [2, 3, 5])
def test_resume_equals_the_uninterrupted_run(stop, lr, folder, tiny_host, tmp_path):
    """Stopped before a look that is due, behind it, and later; the phase ends at the first look, or not."""
    run = first_phase_run(folder, lr=lr, embeddings_only_share=0.5)
    whole, heard = Recorder(), Recorder()
    first = train(run, tiny_host, output_folder=tmp_path / "whole", listener=whole)
    commands = Commands()
    train(run, tiny_host, output_folder=tmp_path / "parts", listener=stopping_at(stop, commands), commands=commands)
    resumed = train(run, tiny_host, output_folder=tmp_path / "parts", listener=heard, resume=True)
    assert phases(whole)[stop:] == phases(heard) and first.step == resumed.step
    assert_same(tensors_of(first.bundle), tensors_of(resumed.bundle))
    if lr < 1e-6:
        assert first.step == 2 + 8  # four steps with the network become eight at a share of a half


def test_each_embedding_goes_on_at_its_own_rate(two_embeddings_folder, tiny_host, tmp_path):
    plain = plain_run(
        two_embeddings_folder,
        phases="two_phase",
        embeddings_steps=4,
        continued_embedding_lr_factor=0.2,
        rate="constant",
    )
    plain["words"][0]["continued_lr_factor"] = 0.0
    plain["words"][1]["continued_lr_factor"] = 0.5
    recorder = Recorder()
    train(run_from_dict(plain), tiny_host, output_folder=tmp_path, listener=recorder)
    before, after = recorder.of(StepDone)[3], recorder.of(StepDone)[-1]
    assert before.rates["word aoi"] == before.rates["word hana"] == 5e-3
    assert after.rates["word aoi"] == 0 and after.rates["word hana"] == pytest.approx(5e-4)
    assert after.embedding_norms["aoi"] == before.embedding_norms["aoi"]
    assert after.embedding_norms["hana"] != before.embedding_norms["hana"]


def test_least_above_most_is_a_fault(folder):
    plain = plain_run(folder, phases="two_phase", embeddings_steps=4, embeddings_patience=1, embeddings_least_steps=5)
    assert [fault.field for fault in check_run(plain)[1]] == ["schedule.embeddings_least_steps"]
