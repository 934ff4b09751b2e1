"""A model that leaves its device for a while. torch's meta device stands for a GPU."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lib_pivotal.borrowing import OffloadedModel, frozen, gradient_flags, types_restored, with_gradient_flags


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
    offloaded = OffloadedModel()
    with offloaded.away(on_gpu):
        assert device(on_gpu) == "cpu"
        with offloaded.here():
            assert device(on_gpu) == "meta"
            with offloaded.here():
                pass
            assert device(on_gpu) == "meta", "the inner one must not send it away"
        assert device(on_gpu) == "cpu"
    assert device(on_gpu) == "meta"
    with offloaded.here():
        assert device(on_gpu) == "meta"


def test_it_comes_back_whatever_happens(on_gpu):
    offloaded = OffloadedModel()
    with pytest.raises(RuntimeError, match="inside"), offloaded.away(on_gpu), offloaded.here():
        raise RuntimeError("inside")
    assert device(on_gpu) == "meta"
    with offloaded.away(on_gpu):
        assert device(on_gpu) == "cpu"


def test_what_is_in_the_machines_memory_stays_there():
    model, offloaded = nn.Linear(2, 2), OffloadedModel()
    pointer = model.weight.data_ptr()
    with offloaded.away(model), offloaded.here():
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


class Products(TorchDispatchMode):
    """The shapes of matrix products inside."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.__name__.split(".")[0] in ("mm", "addmm", "bmm"):
            self.shapes.append([tuple(arg.shape) for arg in args if isinstance(arg, torch.Tensor)][-2:])
        return func(*args, **(kwargs or {}))


def products_of(model, x):
    with torch.no_grad(), Products() as products:
        model(x)
    return products.shapes


def test_pictures_of_a_frozen_model_are_made_by_the_same_products():
    """A strided batch (as the web UI gives SD2's `proj_in`): one product where the weight asks for a gradient."""
    model, x = nn.Linear(4, 8), torch.randn(2, 4, 3).transpose(1, 2)
    before, flags = products_of(model, x), gradient_flags(model)
    assert before == [[(6, 4), (4, 8)]]
    with frozen(model):
        assert products_of(model, x) != before, "torch no longer looks at the flag: what is tested here has gone"
        with with_gradient_flags(flags):
            assert products_of(model, x) == before
        assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_gradient_flags_come_back_whatever_happens():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].weight.requires_grad_(False)
    flags = gradient_flags(model)
    with frozen(model):
        with pytest.raises(RuntimeError, match="inside"), with_gradient_flags(flags):
            assert [parameter.requires_grad for parameter in model.parameters()] == [False, True, True, True]
            raise RuntimeError("inside")
        assert not any(parameter.requires_grad for parameter in model.parameters())
