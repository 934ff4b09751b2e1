"""A model that leaves its device for a while. torch's meta device stands for a GPU."""

import pytest
import torch
from torch import nn

from lib_pivotal.borrowing import Parking, types_restored


class Movable(nn.Linear):
    """Goes to and from the meta device; its numbers are lost there, which nobody asks for."""

    def to(self, device):
        return self._apply(lambda tensor: torch.empty_like(tensor, device=device))


@pytest.fixture
def on_gpu():
    return Movable(2, 2).to("meta")


def device(model):
    return next(model.parameters()).device.type


def test_away_but_for_those_who_need_it(on_gpu):
    parking = Parking()
    with parking.away(on_gpu):
        assert device(on_gpu) == "cpu"
        with parking.here():
            assert device(on_gpu) == "meta"
            with parking.here():
                pass
            assert device(on_gpu) == "meta", "the inner one must not send it away"
        assert device(on_gpu) == "cpu"
    assert device(on_gpu) == "meta"
    with parking.here():
        assert device(on_gpu) == "meta"


def test_it_comes_back_whatever_happens(on_gpu):
    parking = Parking()
    with pytest.raises(RuntimeError, match="inside"), parking.away(on_gpu), parking.here():
        raise RuntimeError("inside")
    assert device(on_gpu) == "meta"
    with parking.away(on_gpu):
        assert device(on_gpu) == "cpu"


def test_what_is_in_the_machines_memory_stays_there():
    model, parking = nn.Linear(2, 2), Parking()
    pointer = model.weight.data_ptr()
    with parking.away(model), parking.here():
        assert model.weight.data_ptr() == pointer


def test_what_was_widened_inside_is_narrow_again():
    """As --upcast-sampling does with group norms: the same parameter, in fp32."""
    model = nn.Sequential(nn.GroupNorm(1, 2), nn.Linear(2, 2)).half()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    parameters = list(model.parameters())
    with pytest.raises(RuntimeError, match="inside"), types_restored(model):
        model[0].float()
        raise RuntimeError("inside")
    after = model.state_dict()
    assert all(after[name].dtype is torch.float16 and torch.equal(after[name], before[name]) for name in before)
    assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))
