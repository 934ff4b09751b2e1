"""Loss scaling against torch's own rule."""

import pytest
import torch

from lib_pivotal.standalone.model import StandaloneHost
from lib_pivotal.training import trainable
from lib_pivotal.training.events import Notice, StepDone
from lib_pivotal.training.scaler import LossScaler
from tests.conftest import make_tiny_models
from tests.training.runs import Recorder, assert_same, make_run, tensors_of, train


def test_disabled_changes_nothing():
    scaler = LossScaler(enabled=False)
    loss = torch.tensor(0.5)
    assert scaler.scaled(loss) is loss
    scaler.update(overflowed=True)
    assert scaler.scale == 1.0 and scaler.at_floor


def test_scaled_gradient_comes_back_exactly():
    scaler = LossScaler(enabled=True)
    weight = torch.tensor([0.3, -0.7], requires_grad=True)
    scaler.scaled((weight**2).sum()).backward()
    scaler.unscale([weight.grad])
    torch.testing.assert_close(weight.grad, 2 * weight.detach(), rtol=0, atol=0)


@pytest.mark.skipif(not hasattr(torch.amp, "GradScaler"), reason="torch before 2.3 has no scaler for the CPU")
def test_same_scales_as_torch():
    ours = LossScaler(enabled=True, initial=1024.0, growth_steps=3)
    theirs = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3, growth_factor=2.0, backoff_factor=0.5)
    for overflow in [False, False, False, True, False, True, True, False, False, False, False]:
        parameter = torch.zeros(1, requires_grad=True)
        optimizer = torch.optim.SGD([parameter], lr=0.1)
        theirs.scale(parameter.sum()).backward()
        if overflow:
            parameter.grad.fill_(float("inf"))
        theirs.step(optimizer)
        theirs.update()
        ours.update(overflowed=overflow)
        assert ours.scale == theirs.get_scale()


def test_state_round_trip():
    scaler = LossScaler(enabled=True)
    scaler.update(overflowed=True)
    again = LossScaler(enabled=True)
    again.load_state_dict(scaler.state_dict())
    assert again.state_dict() == scaler.state_dict()


# ---- in whole runs ----


def test_a_scaled_run_is_the_run_without(tiny_host, two_embeddings_folder, tmp_path, monkeypatch):
    """Powers of two are exact: clipping, weight decay and words see the same gradients, to the last bit."""
    files = []
    for on in (False, True):
        monkeypatch.setattr(trainable, "LossScaler", lambda enabled, on=on: LossScaler(enabled=on))
        run = make_run(two_embeddings_folder, clip_embeddings=0.05, clip_network=0.1)
        ended = train(run, tiny_host, output_folder=tmp_path / str(on), listener=Recorder())
        assert ended.reason == "finished", ended.message
        files.append(tensors_of(ended.bundle))
    assert_same(*files)


def test_overflow_in_fp16_skips_the_step_and_the_run_goes_on(two_embeddings_folder, tmp_path, monkeypatch):
    """A scale far too large: gradients overflow until it has come down; only then anything moves."""
    made = []

    def scaler(enabled):
        made.append(LossScaler(enabled=enabled, initial=2.0**32))
        return made[-1]

    monkeypatch.setattr(trainable, "LossScaler", scaler)
    models = make_tiny_models()
    for name in ("unet", "vae", "text_model"):
        models[name].half()
    host, recorder = StandaloneHost(**models, scale_factor=1.0), Recorder()
    ended = train(make_run(two_embeddings_folder, max_steps=24), host, output_folder=tmp_path, listener=recorder)
    assert ended.reason == "finished", ended.message
    skips = [event for event in recorder.of(Notice) if "fp16 overflow: the step was skipped" in event.message]
    assert made[0].enabled and 0 < len(skips) < 24 and made[0].scale == 2.0 ** (32 - len(skips))
    norms = [event.embedding_norms["aoi"] for event in recorder.of(StepDone)]
    skipped = {int(event.message.split()[1].rstrip(":")) - 1 for event in skips}
    moved = {index for index in range(1, 24) if norms[index] != norms[index - 1]}
    assert moved and not moved & skipped, "nothing moves in a step that is skipped"
    assert all(torch.isfinite(tensor).all() for tensor in tensors_of(ended.bundle).values())
