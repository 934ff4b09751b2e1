"""Turns: samples with the network and without it, how each counts, and a range of timesteps that makes them."""

from contextlib import nullcontext

import pytest
import torch

from lib_pivotal.config import check_run, run_from_dict
from lib_pivotal.training.events import StepDone
from lib_pivotal.training.step import MicroStep
from lib_pivotal.training.trainable import Trainable
from lib_pivotal.training.turns import Turn, turns_of, weighed, with_gradient_times
from tests.training.runs import Recorder, plain_run, tensors_of, train


def test_a_micro_batch_is_one_turn_or_two():
    assert turns_of(3, [False, False]) == [Turn(3, [0, 1])]
    assert turns_of(3, [True, True]) == [Turn(3, [0, 1], off=True)]
    assert turns_of(3, [True, False, True]) == [Turn(3, [1]), Turn(3, [0, 2], off=True)]


@pytest.mark.parametrize("factor", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("off", [(True, False, False), (False, True, True), (True,) * 3, (False,) * 3])
def test_gradients_are_means_over_the_samples_that_gave_them(off, factor):
    """The loop's Σ weight · loss / all samples, against the means written out."""
    sizes, generator = (4, 2, 3), torch.Generator().manual_seed(0)
    targets = [torch.randn(size, generator=generator) for size in sizes]
    word = torch.tensor(0.3, requires_grad=True)
    network = torch.tensor(-0.7, requires_grad=True)
    turns = [Turn(micro, range(size), off[micro]) for micro, size in enumerate(sizes)]
    without = sum(size for size, is_off in zip(sizes, off, strict=True) if is_off)
    for turn in weighed(turns, total=sum(sizes), without=without, gradient_factor=factor):
        (vector,) = with_gradient_times({"aoi": (word,)}, turn.embedding_factor)["aoi"]
        losses = (vector + (0 if turn.off else network) - targets[turn.micro]).square()
        (losses.sum() / sum(sizes) * turn.weight).backward()

    def slopes(is_off):
        which = [target for target, this in zip(targets, off, strict=True) if this == is_off]
        return [2 * (0.3 - (0 if is_off else 0.7) - target) for target in which]

    on, alone = slopes(False), slopes(True)
    if on:
        torch.testing.assert_close(network.grad, torch.cat(on).mean())
    else:
        assert network.grad is None
    if factor == 0:
        expected = torch.cat(alone).mean() if alone else None
    else:
        expected = torch.cat([*alone, *(slope * factor for slope in on)]).mean()
    if expected is None:
        assert word.grad is None
    else:
        torch.testing.assert_close(word.grad, expected)


def test_values_are_untouched_and_a_factor_of_0_cuts():
    vectors = torch.randn(3, 4, requires_grad=True)
    embeddings = {"aoi": (vectors, torch.zeros(3, 6))}
    assert with_gradient_times(embeddings, 1.0) is embeddings
    for factor in (0.0, 0.25):
        passed = with_gradient_times(embeddings, factor)
        assert all(torch.equal(a, b) for a, b in zip(passed["aoi"], embeddings["aoi"], strict=True))
    assert not with_gradient_times(embeddings, 0.0)["aoi"][0].requires_grad


# ---- a range of timesteps of the network's own ----


def ranged_run(folder, low=0, high=500, **schedule):
    plain = plain_run(folder, **schedule)
    plain["network"] |= {"timestep_min": low, "timestep_max": high}
    return run_from_dict(plain)


def test_a_sample_outside_of_the_range_has_no_network(tiny_host, two_embeddings_folder, tmp_path, monkeypatch):
    """The gradients of the first steps against those of the losses of single samples, each by its own timestep."""
    calls, compared = [], []
    losses_of, update_of = MicroStep.losses, Trainable.update

    def losses(self, batch, embeddings, **options):
        calls.append((self, batch, options))
        return losses_of(self, batch, embeddings, **options)

    def update(self, phase, **options):
        taken = {id(p): p.grad.clone() for p in self.parameters if p.grad is not None}
        network, words = list(self.network.parameters()), list(self.embeddings.parameters())
        sums = {id(p): torch.zeros_like(p) for p in (*network, *words)}
        total = seen = 0
        for step, batch, given in calls:
            inside = step.timesteps(given["samples"], seeds=given["seeds"]) < 500
            assert len(set(inside.tolist())) == 1  # what is computed together is alike
            total, seen = total + len(inside), seen + int(inside.sum())
            with nullcontext() if inside[0] else self.network.with_multipliers(unet=0.0, te=0.0):
                loss = losses_of(step, batch, self.embeddings.as_mapping(), **given).sum()
                trained = [*network, *words] if inside[0] else words
                for parameter, found in zip(
                    trained, torch.autograd.grad(loss, trained, allow_unused=True), strict=True
                ):
                    if found is not None:
                        sums[id(parameter)] += found
        for parameter in network:
            if id(parameter) in taken:
                torch.testing.assert_close(taken[id(parameter)], sums[id(parameter)] / seen, rtol=1e-3, atol=1e-7)
        for parameter in words:
            if id(parameter) in taken:
                torch.testing.assert_close(taken[id(parameter)], sums[id(parameter)] / total, rtol=1e-3, atol=1e-7)
        compared.append((total, seen))
        calls.clear()
        return update_of(self, phase, **options)

    monkeypatch.setattr(MicroStep, "losses", losses)
    monkeypatch.setattr(Trainable, "update", update)
    run = ranged_run(two_embeddings_folder, max_steps=4, batch_size=4)
    train(run, tiny_host, output_folder=tmp_path, listener=Recorder())
    assert [total for total, _ in compared] == [4] * 4 and any(0 < seen < 4 for _, seen in compared)


def test_no_sample_within_the_range_leaves_the_network_alone(tiny_host, two_embeddings_folder, tmp_path):
    plain = plain_run(two_embeddings_folder, max_steps=4)
    plain["network"] |= {"timestep_max": 1}  # one draw of a thousand
    recorder = Recorder()
    ended = train(run_from_dict(plain), tiny_host, output_folder=tmp_path, listener=recorder)
    for event in recorder.of(StepDone):
        norms = event.gradient_norms
        assert norms["unet"] == norms["te"] == 0 < norms["word aoi"] + norms["word hana"]
    ups = [tensor for key, tensor in tensors_of(ended.bundle).items() if key.endswith("lora_up.weight")]
    assert ups and not any(up.any() for up in ups)


def test_a_range_without_timesteps_is_a_fault(two_embeddings_folder):
    plain = plain_run(two_embeddings_folder)
    plain["network"] |= {"timestep_max": 300}
    plain["noise"] = {"timestep_min": 300}
    assert [fault.field for fault in check_run(plain)[1]] == ["network.timestep_max"]
