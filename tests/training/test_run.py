"""Whole runs on tiny real models: exact resume, nothing written into the checkpoint, failures that lose nothing."""

import dataclasses
import hashlib
import json
import math
import multiprocessing
import os
import random
import shutil
import signal

import pytest
import torch
from PIL import Image

from lib_pivotal.bundle.metadata import separation_shares
from lib_pivotal.bundle.reader import read_bundle, require
from lib_pivotal.config import check_run, run_from_dict
from lib_pivotal.errors import ConfigError, DataError
from lib_pivotal.networks.network import Network
from lib_pivotal.training.events import (
    Commands,
    FileSaved,
    Notice,
    PicturesMade,
    RunStarted,
    SeparationMeasured,
    StepDone,
)
from lib_pivotal.training.state_files import has_states, states_folder
from lib_pivotal.training.step import MicroStep
from lib_pivotal.training.trainable import Trainable
from tests.conftest import write_pictures
from tests.networks.battery import ROWS
from tests.training.runs import Recorder, assert_same, kind_run, make_run, plain_run, stopping_at, tensors_of, train


def model_hash(models):
    digest = hashlib.sha256()
    for key in ("unet", "vae", "text_model"):
        for name, tensor in sorted(models[key].state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def test_a_run_trains_and_leaves_the_checkpoint_alone(tiny_host, tiny_models, two_embeddings_folder, tmp_path):
    before = model_hash(tiny_models)
    grads = [p.requires_grad for m in ("unet", "text_model") for p in tiny_models[m].parameters()]
    recorder = Recorder()
    ended = train(make_run(two_embeddings_folder), tiny_host, output_folder=tmp_path / "out", listener=recorder)
    assert ended.reason == "finished" and ended.bundle == tmp_path / "out" / "two.safetensors"
    assert model_hash(tiny_models) == before
    assert [p.requires_grad for m in ("unet", "text_model") for p in tiny_models[m].parameters()] == grads
    assert not any(m._forward_hooks for part in ("unet", "text_model") for m in tiny_models[part].modules())
    bundle = require(read_bundle(ended.bundle))
    assert set(bundle.embeddings) == {"aoi", "hana"} and bundle.embeddings["aoi"][0].shape == (3, 16)
    assert any(key.startswith("lora_unet_") for key in bundle.network)
    assert any(key.startswith("lora_te_") for key in bundle.network)
    assert bundle.metadata["ss_network_dim"] == "2"
    facts = json.loads(bundle.metadata["pivotal.words"])
    assert facts["aoi"]["init_text"] == "red hair, *[0.1,1]" and facts["aoi"]["images_seen"] > 0
    last = recorder.of(StepDone)[-1]
    assert sum(last.images_seen.values()) == 16 and last.eta_seconds == 0
    assert last.rates["word aoi"] == pytest.approx(0, abs=1e-3)
    assert recorder.of(RunStarted)[0].embeddings == ("aoi", "hana")


def test_everything_that_should_move_moves(tiny_host, two_embeddings_folder, tmp_path):
    first = train(
        make_run(two_embeddings_folder, max_steps=1), tiny_host, output_folder=tmp_path / "a", listener=Recorder()
    )
    later = train(
        make_run(two_embeddings_folder, max_steps=8), tiny_host, output_folder=tmp_path / "b", listener=Recorder()
    )
    start, end = tensors_of(first.bundle), tensors_of(later.bundle)
    still = [key for key in start if not key.endswith("alpha") and torch.equal(start[key], end[key])]
    assert not still


def test_same_seed_same_file_other_seed_other_file(tiny_host, two_embeddings_folder, tmp_path):
    run = make_run(two_embeddings_folder)
    first = train(run, tiny_host, output_folder=tmp_path / "a", listener=Recorder())
    torch.rand(17)  # the caller's own draws must not matter
    second = train(run, tiny_host, output_folder=tmp_path / "b", listener=Recorder())
    assert_same(tensors_of(first.bundle), tensors_of(second.bundle))
    other = train(dataclasses.replace(run, seed=4), tiny_host, output_folder=tmp_path / "c", listener=Recorder())
    assert not torch.equal(tensors_of(other.bundle)["word aoi 0"], tensors_of(first.bundle)["word aoi 0"])


def test_the_callers_random_state_is_untouched(tiny_host, two_embeddings_folder, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(make_run(two_embeddings_folder, max_steps=2), tiny_host, output_folder=tmp_path, listener=Recorder())
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ROWS)
def test_resume_of_every_kind_with_all_of_its_dropout(kind, tiny_host, two_embeddings_folder, tmp_path):
    """Bit for bit, buffers such as a frozen factor or a start included; module dropout is drawn by position."""
    run = kind_run(two_embeddings_folder, kind, dropout=0.3, max_steps=2)
    whole = train(run, tiny_host, output_folder=tmp_path / "whole", listener=Recorder())
    commands = Commands()
    stop_at = Recorder(lambda e: commands.stop() if isinstance(e, StepDone) and e.step == 1 else None)
    train(run, tiny_host, output_folder=tmp_path / "parts", listener=stop_at, commands=commands)
    resumed = train(run, tiny_host, output_folder=tmp_path / "parts", listener=Recorder(), resume=True)
    assert_same(tensors_of(whole.bundle), tensors_of(resumed.bundle))


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"ema_decay": 0.9},
        {"accumulation": 2},
        {"phases": "two_phase", "words_steps": 3, "continued_words_factor": 0.5},
        {"optimizer": "lion"},
        {"max_steps": 4, "embeddings_only_share": 0.5, "embedding_gradient_factor": 0.0},
        {"max_steps": 6, "accumulation": 2, "embeddings_only_share": 0.25, "embedding_gradient_factor": 0.2},
    ],
)
def test_resume_equals_the_uninterrupted_run(extra, tiny_host, two_embeddings_folder, tmp_path):
    run = make_run(two_embeddings_folder, **extra)
    whole = train(run, tiny_host, output_folder=tmp_path / "whole", listener=Recorder())
    commands = Commands()
    stop_at = Recorder(lambda e: commands.stop() if isinstance(e, StepDone) and e.step == 4 else None)
    stopped = train(run, tiny_host, output_folder=tmp_path / "parts", listener=stop_at, commands=commands)
    assert stopped.reason == "stopped" and stopped.step == 4
    rest = Recorder()
    resumed = train(run, tiny_host, output_folder=tmp_path / "parts", listener=rest, resume=True)
    assert rest.of(StepDone)[0].step == 5
    assert_same(tensors_of(whole.bundle), tensors_of(resumed.bundle))
    assert (
        rest.of(StepDone)[-1].images_seen == {"aoi": 8, "hana": 8}
        or sum(rest.of(StepDone)[-1].images_seen.values()) == 16 * run.schedule.accumulation
    )


STARVED = {
    "ramp": {"network": {"lr_ramp": "exponential", "lr_ramp_start": 0.2}},
    "l1": {"network": {"l1": 0.03}},
    "module dropout": {"network": {"module_dropout": 0.3}},
    "timesteps": {"network": {"timestep_min": 100, "timestep_max": 700}},
    "dco": {"loss": {"dco_beta": 1000.0}},
}
SHARED = {"embeddings_only_share": 0.5, "embedding_gradient_factor": 0.2, "max_steps": 4, "accumulation": 2}


def starved_run(folder, *names, **schedule):
    """A run with these settings of `STARVED`."""
    plain = plain_run(folder, **schedule)
    for section, values in (item for name in names for item in STARVED[name].items()):
        plain[section] = {**plain.get(section, {}), **values}
    return run_from_dict(plain)


@pytest.mark.parametrize("names", [*((name,) for name in STARVED), tuple(STARVED)], ids="/".join)
def test_resume_with_a_starved_network(names, tiny_host, two_embeddings_folder, tmp_path):
    """Alone, and all together with an embeddings-only share; the result is not that of a plain run."""
    schedule = SHARED if len(names) > 1 else {"max_steps": 6}
    run = starved_run(two_embeddings_folder, *names, **schedule)
    whole = train(run, tiny_host, output_folder=tmp_path / "whole", listener=Recorder())
    commands = Commands()
    stopped = stopping_at(3, commands)
    train(run, tiny_host, output_folder=tmp_path / "parts", listener=stopped, commands=commands)
    resumed = train(run, tiny_host, output_folder=tmp_path / "parts", listener=Recorder(), resume=True)
    assert_same(tensors_of(whole.bundle), tensors_of(resumed.bundle))
    plain = starved_run(two_embeddings_folder, **schedule)
    other = train(plain, tiny_host, output_folder=tmp_path / "plain", listener=Recorder())
    first, second = tensors_of(whole.bundle), tensors_of(other.bundle)
    assert any(not torch.equal(first[key], second[key]) for key in first if key.startswith("lora_unet"))


def test_module_dropout_leaves_out_another_part_of_the_layers_each_time(
    tiny_host, two_embeddings_folder, tmp_path, monkeypatch
):
    drawn, original = [], Network.without

    def without(self, names):
        names = list(names)
        drawn.append((len(names) / len(self.layer_names), tuple(names)))
        return original(self, names)

    monkeypatch.setattr(Network, "without", without)
    run = starved_run(two_embeddings_folder, "module dropout", max_steps=6)
    train(run, tiny_host, output_folder=tmp_path, listener=Recorder())
    shares = [share for share, _ in drawn]
    assert len(drawn) == 6 == len(set(drawn)) and sum(shares) / 6 == pytest.approx(0.3, abs=0.1)


def test_the_l1_penalty_is_its_gradient(tiny_host, two_embeddings_folder, tmp_path, monkeypatch):
    """Against autograd of l1 · mean |p| over all of the network, as eden adds it to the loss."""
    plain = plain_run(two_embeddings_folder, max_steps=3)
    plain["network"]["l1"] = 5.0
    compared, original = [], Trainable._add_l1

    def add_l1(self):
        parameters = [p for p in self.network.parameters() if p.grad is not None]
        before = [p.grad.clone() for p in parameters]
        original(self)
        every = list(self.network.parameters())
        with torch.enable_grad():
            penalty = 5.0 * sum(p.abs().sum() for p in every) / sum(p.numel() for p in every)
            expected = torch.autograd.grad(penalty, parameters)
        for parameter, old, slope in zip(parameters, before, expected, strict=True):
            torch.testing.assert_close(parameter.grad - old, slope, rtol=1e-3, atol=1e-6)
        compared.append(len(parameters))

    monkeypatch.setattr(Trainable, "_add_l1", add_l1)
    train(run_from_dict(plain), tiny_host, output_folder=tmp_path, listener=Recorder())
    assert len(compared) == 3 and min(compared) > 10


def test_the_l1_penalty_makes_the_network_smaller(tiny_host, two_embeddings_folder, tmp_path):
    def mean_size(l1):
        plain = plain_run(two_embeddings_folder, max_steps=6, rate="constant")
        plain["network"] |= {"l1": l1, "weight_decay": 0.0}
        ended = train(run_from_dict(plain), tiny_host, output_folder=tmp_path / str(l1), listener=Recorder())
        factors = [t for key, t in tensors_of(ended.bundle).items() if key.endswith(("down.weight", "up.weight"))]
        return sum(t.abs().sum() for t in factors) / sum(t.numel() for t in factors)

    assert mean_size(100.0) < 0.97 * mean_size(0.0)


def test_dco_costs_a_forward_more_and_begins_at_ln_2(tiny_host, tiny_models, two_embeddings_folder, tmp_path):
    """While the network does nothing, the losses with it and without are the same."""
    run, calls = starved_run(two_embeddings_folder, "dco", max_steps=2), []
    handle = tiny_models["unet"].register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    recorder = Recorder()
    try:
        train(run, tiny_host, output_folder=tmp_path, listener=recorder)
    finally:
        handle.remove()
    assert calls == [False, True] * 2
    assert recorder.losses[0] == pytest.approx(math.log(2), rel=1e-4) != recorder.losses[1]


@pytest.fixture
def class_folder(tmp_path):
    return write_pictures(tmp_path / "class", {"a": "1girl, hat", "b": "1girl, coat", "c": "1girl"})


def kept_run(folder, class_folder="", **regularisation):
    plain = plain_run(folder, max_steps=5)
    plain["regularisation"] = {"folder": str(class_folder), **regularisation}
    return run_from_dict(plain)


REGULARISATIONS = [
    {"batch_size": 1, "weight": 0.5},
    {"batch_size": 1, "target": "prior"},
    {"batch_size": 1, "target": "prior", "preservation": 0.3},
]


@pytest.mark.parametrize("settings", REGULARISATIONS)
def test_resume_with_class_pictures(settings, tiny_host, tiny_models, two_embeddings_folder, class_folder, tmp_path):
    run = kept_run(two_embeddings_folder, class_folder, **settings)
    before = model_hash(tiny_models)
    whole = Recorder()
    first = train(run, tiny_host, output_folder=tmp_path / "whole", listener=whole)
    commands = Commands()
    stop_at = Recorder(lambda e: commands.stop() if isinstance(e, StepDone) and e.step == 2 else None)
    train(run, tiny_host, output_folder=tmp_path / "parts", listener=stop_at, commands=commands)
    rest = Recorder()
    resumed = train(run, tiny_host, output_folder=tmp_path / "parts", listener=rest, resume=True)
    assert_same(tensors_of(first.bundle), tensors_of(resumed.bundle))
    assert model_hash(tiny_models) == before
    told = whole.of(StepDone)
    names = {"loss", "class pictures"} | ({"preservation"} if "preservation" in settings else set())
    assert all(set(event.losses) == names for event in told)
    assert sum(told[-1].images_seen.values()) == 10  # words are counted in the run's own pictures only
    if settings.get("target") == "prior":  # the network begins as nothing, so it begins where the checkpoint is
        assert told[0].losses["class pictures"] == 0.0 and told[-1].losses["class pictures"] > 0.0
    if "preservation" in settings:
        assert told[0].losses["preservation"] == 0.0 and told[-1].losses["preservation"] > 0.0


def test_the_own_loss_is_told_as_it_would_be_alone(tiny_host, two_embeddings_folder, class_folder, tmp_path):
    alone, beside = Recorder(), Recorder()
    train(make_run(two_embeddings_folder, max_steps=5), tiny_host, output_folder=tmp_path / "a", listener=alone)
    run = kept_run(two_embeddings_folder, class_folder, batch_size=3)
    train(run, tiny_host, output_folder=tmp_path / "b", listener=beside)
    assert beside.losses[0] == pytest.approx(alone.losses[0], rel=1e-5)
    assert beside.losses[1:] != alone.losses[1:]


def test_preservation_holds_the_network_back(tiny_host, two_embeddings_folder, tmp_path):
    """The heavier, the less the network changes what the checkpoint says of the class."""
    ends = []
    for weight in (0.01, 10.0):
        recorder = Recorder()
        plain = plain_run(two_embeddings_folder, max_steps=14, rate="constant")
        plain["regularisation"] = {"preservation": weight, "class_text": "1girl"}
        train(run_from_dict(plain), tiny_host, output_folder=tmp_path / str(weight), listener=recorder)
        ends.append(sum(event.losses["preservation"] for event in recorder.of(StepDone)[-5:]) / weight)
    assert ends[1] < 0.5 * ends[0]


def test_preservation_looks_at_the_same_noise(tiny_host, tiny_models, two_embeddings_folder, tmp_path):
    plain = plain_run(two_embeddings_folder, max_steps=2, accumulation=2)
    plain["regularisation"] = {"preservation": 1.0}
    seen = []
    handle = tiny_models["unet"].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[:2]))
    try:
        train(run_from_dict(plain), tiny_host, output_folder=tmp_path, listener=Recorder())
    finally:
        handle.remove()
    assert len(seen) == 2 * 6
    for step in range(2):
        own, again = seen[6 * step : 6 * step + 2], seen[6 * step + 2 : 6 * step + 6]
        for first, (bare, moved) in zip(own, (again[:2], again[2:]), strict=True):
            for other in (bare, moved):
                assert torch.equal(first[0], other[0]) and torch.equal(first[1], other[1])
        assert not torch.equal(own[0][0], own[1][0])


def test_while_only_embeddings_train_other_sets_cost_nothing(tiny_host, tiny_models, two_embeddings_folder, tmp_path):
    plain = plain_run(two_embeddings_folder, max_steps=4, phases="two_phase", embeddings_steps=2)
    plain["regularisation"] = {"preservation": 1.0}
    calls, by_step = [], []

    def note(event):
        if isinstance(event, StepDone):
            by_step.append(len(calls))
            calls.clear()

    handle = tiny_models["unet"].register_forward_hook(lambda *_: calls.append(1))
    recorder = Recorder(note)
    try:
        train(run_from_dict(plain), tiny_host, output_folder=tmp_path, listener=recorder)
    finally:
        handle.remove()
    assert by_step == [1, 1, 3, 3]  # later also the same pictures twice: with the network, and without
    assert [event.losses["preservation"] for event in recorder.of(StepDone)][:3] == [0.0, 0.0, 0.0]


def test_class_pictures_that_cannot_be_used(tiny_host, two_embeddings_folder, class_folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no class picture can be used"):
        train(
            kept_run(two_embeddings_folder, tmp_path / "empty"), tiny_host, output_folder=tmp_path, listener=Recorder()
        )
    with pytest.raises(ConfigError, match="needs a network"):
        plain = plain_run(two_embeddings_folder)
        plain["network"] = {"algorithm": "none"}
        plain["regularisation"] = {"folder": str(class_folder)}
        run_from_dict(plain)
    (class_folder / "c.txt").write_text("aoi, hat", encoding="utf-8")
    recorder = Recorder()
    train(kept_run(two_embeddings_folder, class_folder), tiny_host, output_folder=tmp_path, listener=recorder)
    assert any("1 class picture(s) name a trained embedding" in notice.message for notice in recorder.of(Notice))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_moment_the_run_still_ends_the_same(tiny_host, two_embeddings_folder, tmp_path):
    """`kill -9` 20 times at random moments while every step saves a state; the end equals the uninterrupted run."""
    run = make_run(two_embeddings_folder, saving={"state_every_steps": 1, "keep_states": 2}, max_steps=40)
    quiet = dataclasses.replace(run, saving=dataclasses.replace(run.saving, state_every_steps=0))
    whole = train(quiet, tiny_host, output_folder=tmp_path / "whole", listener=Recorder())
    out = tmp_path / "killed"

    def child():
        resume = has_states(states_folder(out, run.name))  # the first may be killed before it saved anything
        train(run, tiny_host, output_folder=out, listener=lambda event: None, resume=resume)

    rng = random.Random(0)
    kills, context = 0, multiprocessing.get_context("fork")
    while kills < 20:
        process = context.Process(target=child)
        process.start()
        process.join(rng.uniform(0.05, 0.6))
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        elif (out / "two.safetensors").exists():  # finished between two kills: begin again
            shutil.rmtree(out)
        process.join()
    process = context.Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == 0
    assert_same(tensors_of(whole.bundle), tensors_of(out / "two.safetensors"))


def test_non_finite_loss_is_skipped_then_rolled_back_and_never_saved(
    tiny_host, two_embeddings_folder, tmp_path, monkeypatch
):
    original = MicroStep.losses
    calls = {"n": 0}

    def poisoned(self, *args, **kwargs):
        calls["n"] += 1
        losses = original(self, *args, **kwargs)
        return losses * float("nan") if 3 <= calls["n"] <= 5 else losses

    monkeypatch.setattr(MicroStep, "losses", poisoned)
    recorder = Recorder()
    ended = train(make_run(two_embeddings_folder), tiny_host, output_folder=tmp_path, listener=recorder)
    messages = [event.message for event in recorder.of(Notice)]
    assert sum("skipped" in message for message in messages) == 2
    assert any("learning rates × 0.5" in message for message in messages)
    assert ended.reason == "finished"
    assert all(torch.isfinite(tensor).all() for tensor in tensors_of(ended.bundle).values())
    assert recorder.of(StepDone)[6].rates["word aoi"] < recorder.of(StepDone)[1].rates["word aoi"] / 1.5


def test_endless_non_finite_loss_ends_with_advice_and_a_good_file(
    tiny_host, two_embeddings_folder, tmp_path, monkeypatch
):
    original = MicroStep.losses
    monkeypatch.setattr(MicroStep, "losses", lambda self, *a, **k: original(self, *a, **k) * float("inf"))
    ended = train(make_run(two_embeddings_folder, max_steps=50), tiny_host, output_folder=tmp_path, listener=Recorder())
    assert ended.reason == "failed" and "Lower the learning rates" in ended.message
    assert all(torch.isfinite(tensor).all() for tensor in tensors_of(ended.bundle).values())


def test_out_of_memory_halves_the_micro_batch_and_changes_nothing_else(
    tiny_host, two_embeddings_folder, tmp_path, monkeypatch
):
    run = make_run(two_embeddings_folder, batch_size=4, max_steps=3)
    plain = Recorder()
    train(run, tiny_host, output_folder=tmp_path / "a", listener=plain)
    original = MicroStep.losses

    def hungry(self, batch, *args, **kwargs):
        if batch.latents.shape[0] > 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return original(self, batch, *args, **kwargs)

    monkeypatch.setattr(MicroStep, "losses", hungry)
    small = Recorder()
    ended = train(run, tiny_host, output_folder=tmp_path / "b", listener=small)
    assert ended.reason == "finished"
    assert sum("out of memory" in event.message for event in small.of(Notice)) == 2
    assert small.losses == pytest.approx(plain.losses, rel=1e-4)


def test_memory_that_never_suffices_is_said_with_advice(tiny_host, two_embeddings_folder, tmp_path, monkeypatch):
    def hungry(self, *args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(MicroStep, "losses", hungry)
    ended = train(make_run(two_embeddings_folder), tiny_host, output_folder=tmp_path, listener=Recorder())
    assert ended.reason == "failed" and "gradient checkpointing" in ended.message and ended.bundle is None


def test_a_crash_in_the_middle_keeps_what_was_trained(tiny_host, two_embeddings_folder, tmp_path, monkeypatch):
    original = MicroStep.losses
    calls = {"n": 0}

    def crash(self, *args, **kwargs):
        calls["n"] += 1
        if calls["n"] == 5:
            raise ValueError("boom")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(MicroStep, "losses", crash)
    ended = train(make_run(two_embeddings_folder), tiny_host, output_folder=tmp_path, listener=Recorder())
    assert (ended.reason, ended.step) == ("failed", 4) and "boom" in ended.message
    monkeypatch.setattr(MicroStep, "losses", original)
    resumed = train(
        make_run(two_embeddings_folder), tiny_host, output_folder=tmp_path, listener=Recorder(), resume=True
    )
    whole = train(make_run(two_embeddings_folder), tiny_host, output_folder=tmp_path / "whole", listener=Recorder())
    assert_same(tensors_of(resumed.bundle), tensors_of(whole.bundle))


def test_keyboard_interrupt_saves(tiny_host, two_embeddings_folder, tmp_path):
    def interrupt(event):
        if isinstance(event, StepDone) and event.step == 3:
            raise KeyboardInterrupt

    ended = train(make_run(two_embeddings_folder), tiny_host, output_folder=tmp_path, listener=Recorder(interrupt))
    assert ended.reason == "stopped" and "3 of 8" in ended.message
    assert set(require(read_bundle(ended.bundle)).embeddings) == {"aoi", "hana"}


def test_commands_save_sample_pause(tiny_host, two_embeddings_folder, tmp_path):
    commands = Commands()

    def act(event):
        if isinstance(event, StepDone) and event.step == 2:
            commands.save_now()
            commands.sample_now()

    recorder = Recorder(act)
    train(make_run(two_embeddings_folder), tiny_host, output_folder=tmp_path, listener=recorder, commands=commands)
    kinds = [(event.kind, event.step) for event in recorder.of(FileSaved)]
    assert ("bundle", 2) in kinds and ("state", 2) in kinds and ("bundle", 8) in kinds
    assert [event.step for event in recorder.of(PicturesMade)] == [2]
    assert recorder.of(PicturesMade)[0].path.exists()


def test_looking_changes_nothing(tiny_host, two_embeddings_folder, tmp_path):
    """Pictures, scores and saves on the way leave the trained result bit for bit as it is without them."""
    quiet = train(make_run(two_embeddings_folder), tiny_host, output_folder=tmp_path / "a", listener=Recorder())
    looks = {"every_steps": 3, "preview_every_steps": 4}
    recorder = Recorder()
    busy = train(
        make_run(two_embeddings_folder, saving=looks), tiny_host, output_folder=tmp_path / "b", listener=recorder
    )
    assert recorder.of(PicturesMade)
    assert_same(tensors_of(quiet.bundle), tensors_of(busy.bundle))


def test_separation_is_measured_on_held_out_pictures(tiny_host, tmp_path):
    from tests.conftest import write_pictures

    folder = write_pictures(tmp_path / "p", {f"aoi_{i}": f"aoi, tag{i}" for i in range(12)})
    run, faults = check_run(
        {
            "name": "one",
            "words": [{"name": "aoi", "vectors": 2}],
            "network": {"unet_rank": 2, "unet_lr": 2e-2},
            "data": {"folder": str(folder), "resolution_px": 64},
            "schedule": {"max_steps": 6, "batch_size": 2, "warmup_steps": 0},
            "saving": {"separation_every_steps": 3, "state_every_steps": 0},
        }
    )
    assert not faults
    recorder = Recorder()
    ended = train(run, tiny_host, output_folder=tmp_path, listener=recorder)
    measured = recorder.of(SeparationMeasured)
    assert [event.step for event in measured] == [3, 6]
    assert set(measured[0].losses["aoi"]) == {"whole", "unet", "te", "words", "base"}
    facts = separation_shares(require(read_bundle(ended.bundle)).metadata)
    assert facts == {name: share for name, share in measured[-1].shares.items() if math.isfinite(share)} != {}


@pytest.mark.parametrize(("pictures", "steps"), [(12, [4, 8, 10]), (4, [])])
def test_separation_is_in_the_file_also_of_a_continued_run(pictures, steps, tiny_host, tmp_path):
    """As last measured, on the way and at the end; nothing where there are too few pictures to hold one out."""
    folder = write_pictures(tmp_path / "p", {f"aoi_{i}": f"aoi, tag{i}" for i in range(pictures)})
    plain = plain_run(folder, max_steps=10)
    plain |= {"words": [{"name": "aoi", "vectors": 2}], "saving": {**plain["saving"], "separation_every_steps": 4}}
    run, heard = run_from_dict(plain), []
    for stop in (6, 7, 10):
        commands = Commands()
        recorder = stopping_at(stop, commands)
        out = tmp_path / "out"
        ended = train(run, tiny_host, output_folder=out, listener=recorder, commands=commands, resume=stop > 6)
        heard += recorder.of(SeparationMeasured)
        facts = separation_shares(require(read_bundle(ended.bundle)).metadata)
        assert facts == (heard[-1].shares if heard else {})
    assert [event.step for event in heard] == steps


def test_sides_in_steps_of_8(tiny_host, tmp_path):
    """72 and 56 px: latents of 9 and 7, which the U-Net halves unevenly."""
    folder = write_pictures(tmp_path / "p", {f"aoi_{number}": "aoi, hat" for number in range(3)})
    for number in range(3):
        Image.new("RGB", (90, 70), (90, 40 * number, 9)).save(folder / f"wide_{number}.png")
        (folder / f"wide_{number}.txt").write_text("aoi, coat")
    plain = plain_run(folder, max_steps=6)
    plain["words"] = [{"name": "aoi"}]
    plain["data"].update(resolution_px=72, bucket_step_px=8)
    recorder = Recorder()
    ended = train(run_from_dict(plain), tiny_host, output_folder=tmp_path / "out", listener=recorder)
    assert ended.reason == "finished" and all(loss == loss for loss in recorder.losses)
    buckets = json.loads(require(read_bundle(ended.bundle)).metadata["ss_bucket_info"])["buckets"]
    assert {tuple(bucket["resolution"]) for bucket in buckets.values()} == {(72, 72), (80, 64)}


def test_one_picture_is_overfitted(tiny_host, tmp_path):
    from tests.conftest import write_pictures

    folder = write_pictures(tmp_path / "p", {"aoi_1": "aoi"})
    run = run_from_dict(
        {
            "name": "fit",
            "words": [{"name": "aoi", "vectors": 4}],
            "embeddings_common": {"lr": 0.02},
            "network": {"unet_targets": "all", "unet_rank": 8, "unet_alpha": 8.0, "unet_lr": 0.02},
            "data": {"folder": str(folder), "resolution_px": 64, "random_latent": False},
            "noise": {"timestep_min": 600, "timestep_max": 1000},
            "schedule": {"max_steps": 80, "batch_size": 4},
            "saving": {"state_every_steps": 0},
        }
    )
    recorder = Recorder()
    train(run, tiny_host, output_folder=tmp_path, listener=recorder)
    assert sum(recorder.losses[-10:]) < 0.6 * sum(recorder.losses[:10])


def test_embedding_without_captions_is_refused_before_anything_starts(tiny_host, two_embeddings_folder, tmp_path):
    plain = plain_run(two_embeddings_folder)
    plain["words"].append({"name": "kaze"})
    with pytest.raises(ConfigError, match="no caption mentions this embedding"):
        train(run_from_dict(plain), tiny_host, output_folder=tmp_path / "out", listener=Recorder())
    assert not (tmp_path / "out").exists()


def test_a_template_writes_the_embedding(tiny_host, tmp_path):
    """Captions without the word, `{word}` in a template: the word is drawn and learns."""
    from tests.conftest import write_pictures

    folder = write_pictures(tmp_path / "p", {"1": "red hair", "2": "blue hair"})
    plain = plain_run(folder, max_steps=2)
    plain["words"] = plain["words"][:1]
    plain["data"]["templates"] = ["a photo of {word}, {caption}"]
    recorder = Recorder()
    ended = train(run_from_dict(plain), tiny_host, output_folder=tmp_path / "out", listener=recorder)
    assert ended.reason == "finished" and recorder.of(StepDone)[-1].images_seen == {"aoi": 4}


def test_empty_folder_is_refused(tiny_host, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no picture can be used"):
        train(make_run(tmp_path / "empty"), tiny_host, output_folder=tmp_path / "out", listener=Recorder())


def test_core_tags_are_pruned_and_become_the_init_text(tiny_host, two_embeddings_folder, tmp_path):
    plain = plain_run(two_embeddings_folder, max_steps=1)
    plain["words"] = [{"name": "aoi", "prune": True, "vectors": 4}, {"name": "hana", "vectors": 2}]
    ended = train(run_from_dict(plain), tiny_host, output_folder=tmp_path, listener=Recorder())
    facts = json.loads(require(read_bundle(ended.bundle)).metadata["pivotal.words"])
    assert facts["aoi"]["pruned_tags"] == ["red hair"]
    assert facts["aoi"]["init_text"].startswith("red hair")


def test_frozen_embedding_stays_bit_for_bit(tiny_host, two_embeddings_folder, tmp_path):
    plain = plain_run(two_embeddings_folder)
    plain["words"][0]["freeze_step"] = 4
    plain["saving"]["every_steps"] = 4
    recorder = Recorder()
    ended = train(run_from_dict(plain), tiny_host, output_folder=tmp_path, listener=recorder)
    halfway = tensors_of(tmp_path / "two-000004.safetensors")
    final = tensors_of(ended.bundle)
    assert torch.equal(halfway["word aoi 0"], final["word aoi 0"])
    assert not torch.equal(halfway["word hana 0"], final["word hana 0"])
    assert any("'aoi' is frozen" in event.message for event in recorder.of(Notice))


def test_two_phase_leaves_the_network_alone_in_the_first_phase(tiny_host, two_embeddings_folder, tmp_path):
    run = make_run(two_embeddings_folder, phases="two_phase", embeddings_steps=4, saving={"every_steps": 4})
    ended = train(run, tiny_host, output_folder=tmp_path, listener=Recorder())
    halfway, final = tensors_of(tmp_path / "two-000004.safetensors"), tensors_of(ended.bundle)
    ups = [key for key in halfway if key.endswith("lora_up.weight")]
    assert ups and all(not halfway[key].any() for key in ups)
    assert all(final[key].any() for key in ups)
    assert torch.equal(halfway["word aoi 0"], final["word aoi 0"])


def test_embedding_without_pictures_in_a_step_is_not_touched(tiny_host, two_embeddings_folder, tmp_path):
    """Momentum, decay and norm control leave a word alone while none of its pictures is drawn."""
    recorder = Recorder()
    seen_steps = {}

    def note(event):
        if isinstance(event, StepDone):
            seen_steps[event.step] = (dict(event.images_seen), dict(event.embedding_norms))

    recorder._then = note
    train(
        make_run(two_embeddings_folder, batch_size=1, max_steps=12),
        tiny_host,
        output_folder=tmp_path,
        listener=recorder,
    )
    still = 0
    for step in range(2, 13):
        for name in ("aoi", "hana"):
            before, now = seen_steps[step - 1], seen_steps[step]
            if before[0].get(name, 0) == now[0].get(name, 0):
                assert before[1][name] == now[1][name]
                still += 1
    assert still >= 8
