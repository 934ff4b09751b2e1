"""Loss scaling against torch's own rule."""

import pytest
import torch

from lib_pivotal.training.scaler import LossScaler


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
