"""Embeddings-only micro-batches: which they are, and what a real run moves in them."""

from contextlib import nullcontext

import pytest
import torch

from lib_pivotal.config import check_run, run_from_dict
from lib_pivotal.training.embeddings_only import EmbeddingsOnly
from lib_pivotal.training.events import StepDone
from lib_pivotal.training.step import MicroStep
from lib_pivotal.training.trainable import Trainable
from tests.training.runs import Recorder, plain_run, train


def drawn(share, *, seed=0, steps=1200, accumulation=1):
    rule = EmbeddingsOnly(share, seed=seed, accumulation=accumulation)
    return [rule.is_off(step, micro) for step in range(steps) for micro in range(accumulation)]


# ---- which ----


@pytest.mark.parametrize("share", [0.1, 0.25, 0.3, 0.37, 0.5, 0.6, 0.75, 0.9])
def test_every_stretch_of_a_run_has_its_share(share):
    found = drawn(share)
    assert sum(found) == pytest.approx(share * len(found), abs=1)
    window = 120
    for start in range(0, len(found) - window, 7):
        assert abs(sum(found[start : start + window]) - share * window) <= 3


def test_half_is_one_of_each_two_in_no_fixed_order():
    pairs = list(zip(*[iter(drawn(0.5))] * 2, strict=True))
    assert all(sum(pair) == 1 for pair in pairs)
    first = sum(pair[0] for pair in pairs)
    assert 250 < first < 350  # of 600: a picture of each second batch meets both kinds


def test_it_depends_on_the_place_alone():
    assert drawn(0.3, seed=1) == drawn(0.3, seed=1) != drawn(0.3, seed=2)
    assert drawn(0.3, steps=600, accumulation=2) == drawn(0.3, steps=1200)
    rule = EmbeddingsOnly(0.3, accumulation=2)
    for step in range(50):  # class pictures come behind the run's own, and go with them
        assert [rule.is_off(step, micro) for micro in (2, 3)] == [rule.is_off(step, micro) for micro in (0, 1)]
    assert not any(drawn(0.0))


# ---- in a run ----


def share_run(folder, share=0.5, factor=0.0, **more):
    schedule = {"embeddings_only_share": share, "embedding_gradient_factor": factor, "max_steps": 4, **more}
    return run_from_dict(plain_run(folder, **schedule))


@pytest.fixture
def updates(monkeypatch):
    """Before and after each update: parameters and optimiser state of each kind, and the gradients between."""
    seen, original = [], Trainable.update

    def content(trainable, kind):
        of = [
            p
            for group in trainable.groups
            if (group.kind == "embeddings") == (kind == "words")
            for p in group.parameters
        ]
        states = [trainable.optimizer.state.get(p, {}) for p in of]
        moments = [t.clone() for state in states for t in state.values() if isinstance(t, torch.Tensor)]
        return [p.detach().clone() for p in of] + moments, [None if p.grad is None else p.grad.clone() for p in of]

    def update(self, phase, **options):
        before = {kind: content(self, kind) for kind in ("words", "network")}
        done = original(self, phase, **options)
        after = {kind: content(self, kind)[0] for kind in ("words", "network")}
        seen.append(
            {
                kind: (same(before[kind][0], after[kind]), any(g is not None for g in before[kind][1]))
                for kind in ("words", "network")
            }
        )
        return done

    monkeypatch.setattr(Trainable, "update", update)
    return seen


def same(first, second):
    return len(first) == len(second) and all(map(torch.equal, first, second))


def test_an_off_step_moves_the_embeddings_only_and_the_others_the_network_only(
    updates, tiny_host, two_embeddings_folder, tmp_path
):
    recorder = Recorder()
    run = share_run(two_embeddings_folder)
    train(run, tiny_host, output_folder=tmp_path, listener=recorder)
    assert len(updates) == 8 == recorder.of(StepDone)[-1].max_steps  # 4 with the network, as asked
    rule = EmbeddingsOnly(0.5, seed=run.seed)
    for step, found in enumerate(updates):
        off = rule.is_off(step, 0)
        unmoved, has_gradient = found["network"]
        assert (unmoved, has_gradient) == (off, not off)
        unmoved, has_gradient = found["words"]
        assert (unmoved, has_gradient) == (not off, off)
    assert sum(rule.is_off(step, 0) for step in range(8)) == 4
    assert not recorder.told  # above all: nobody says that embeddings got no gradient


def test_with_a_factor_both_move_in_steps_with_the_network(updates, tiny_host, two_embeddings_folder, tmp_path):
    run = share_run(two_embeddings_folder, factor=0.2)
    train(run, tiny_host, output_folder=tmp_path, listener=Recorder())
    rule = EmbeddingsOnly(0.5, seed=run.seed)
    for step, found in enumerate(updates):
        assert found["network"][1] != rule.is_off(step, 0) and found["words"][1]


def test_an_accumulated_step_is_the_mean_over_those_that_saw_it(
    tiny_host, two_embeddings_folder, tmp_path, monkeypatch
):
    """The first step's gradients against the losses of its micro-batches taken by hand."""
    calls, compared = [], []
    losses_of, update_of = MicroStep.losses, Trainable.update

    def losses(self, batch, embeddings, **options):
        calls.append((self, batch, options))
        return losses_of(self, batch, embeddings, **options)

    def update(self, phase, **options):
        if not compared:
            network, words = self.network, self.embeddings
            taken = {id(p): p.grad.clone() for p in self.parameters if p.grad is not None}
            for micro, (step, batch, given) in enumerate(calls):
                off = EmbeddingsOnly(0.5, seed=3, accumulation=2).is_off(0, micro)
                trained = list(words.parameters() if off else network.parameters())
                with network.with_multipliers(unet=0.0, te=0.0) if off else nullcontext():
                    torch.manual_seed(0)  # nothing in it draws
                    loss = losses_of(step, batch, words.as_mapping(), **given).mean()
                    found = torch.autograd.grad(loss, trained, allow_unused=True)
                for parameter, gradient in zip(trained, found, strict=True):
                    if gradient is not None:
                        torch.testing.assert_close(taken[id(parameter)], gradient, rtol=1e-4, atol=1e-7)
                        compared.append(off)
        return update_of(self, phase, **options)

    monkeypatch.setattr(MicroStep, "losses", losses)
    monkeypatch.setattr(Trainable, "update", update)
    run = share_run(two_embeddings_folder, accumulation=2, max_steps=1)
    train(run, tiny_host, output_folder=tmp_path, listener=Recorder())
    assert set(compared) == {True, False}


def test_before_the_network_starts_nothing_is_off(updates, tiny_host, two_embeddings_folder, tmp_path):
    run = share_run(two_embeddings_folder, network_start=0.5)
    train(run, tiny_host, output_folder=tmp_path, listener=Recorder())
    assert [found["words"][1] for found in updates[:4]] == [True] * 4
    assert sum(found["network"][1] for found in updates[4:]) == 2


# ---- its settings ----


@pytest.mark.parametrize(
    ("schedule", "steps"),
    [
        ({}, 1000),
        ({"embeddings_only_share": 0.5}, 2000),
        ({"embeddings_only_share": 0.1}, 1112),
        (
            {
                "embeddings_only_share": 0.5,
                "phases": "two_phase",
                "embeddings_steps": 400,
                "continued_embedding_lr_factor": 0.2,
            },
            1600,
        ),
    ],
)
def test_the_share_does_not_shorten_the_networks_training(two_embeddings_folder, schedule, steps):
    plain = plain_run(two_embeddings_folder)
    plain["schedule"] = {"max_steps": 1000, **schedule}
    assert run_from_dict(plain).schedule.total_steps == steps


def test_a_share_without_use_is_a_fault(two_embeddings_folder):
    plain = plain_run(two_embeddings_folder, embeddings_only_share=0.5)
    for change in (
        {"network": {"algorithm": "none"}},
        {"words": []},
        {"schedule": {**plain["schedule"], "phases": "two_phase", "embeddings_steps": 2}},
    ):
        _, faults = check_run({**plain, **change})
        assert [fault.field for fault in faults] == ["schedule.embeddings_only_share"]
