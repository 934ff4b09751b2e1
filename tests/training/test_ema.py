"""lib_pivotal/training/ema.py: the sum written out, swapping, resume."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lib_pivotal.errors import StateError, TrainingError
from lib_pivotal.training.ema import EMA


def walk(parameters: list[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter.dtype))


def trained(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(3, 2, dtype=dtype)), nn.Parameter(torch.zeros(4, dtype=dtype))]


@pytest.mark.parametrize("warmup", [False, True])
def test_average_is_the_weighted_sum_of_all_values(warmup: bool) -> None:
    """avg_n = Π d_k · p_0 + Σ_k (1-d_k) · Π_{j>k} d_j · p_k, in float64."""
    parameters = trained()
    ema = EMA(parameters, decay=0.9, warmup=warmup)
    history: list[Tensor] = [parameters[0].detach().double().clone()]
    for step in range(40):
        walk(parameters, step)
        ema.update()
        history.append(parameters[0].detach().double().clone())
    decays = [min(0.9, (1 + n) / (10 + n)) if warmup else 0.9 for n in range(1, 41)]
    expected = torch.zeros(3, 2, dtype=torch.float64)
    weight = 1.0
    for value, decay in zip(reversed(history[1:]), reversed(decays), strict=True):
        expected += (1 - decay) * weight * value
        weight *= decay
    expected += weight * history[0]
    torch.testing.assert_close(ema.averages[0].double(), expected, rtol=1e-5, atol=1e-5)


def test_warm_up_rule() -> None:
    ema = EMA(trained(), decay=0.5)
    assert ema.current_decay() == 2 / 11
    for _ in range(3):
        ema.update()
    assert ema.current_decay() == 4 / 13
    for _ in range(20):
        ema.update()
    assert ema.current_decay() == 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_swapped_shows_the_averages_and_restores_exactly(dtype: torch.dtype) -> None:
    parameters = trained(dtype)
    ema = EMA(parameters, decay=0.9)
    for step in range(5):
        walk(parameters, step)
        ema.update()
    before = [parameter.detach().clone() for parameter in parameters]
    averages = [average.clone() for average in ema.averages]
    with pytest.raises(KeyError), ema.swapped():
        assert all(torch.equal(p, a.to(dtype)) for p, a in zip(parameters, averages, strict=True))
        assert not torch.equal(parameters[0], before[0])
        with pytest.raises(TrainingError, match="leave swapped"):
            ema.update()
        with pytest.raises(TrainingError, match="already swapped"), ema.swapped():
            pass
        raise KeyError
    assert all(torch.equal(p, b) for p, b in zip(parameters, before, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(ema.averages, averages, strict=True))
    assert all(average.dtype == torch.float32 for average in ema.averages)


def test_small_updates_are_not_lost_in_half_precision() -> None:
    parameters = [nn.Parameter(torch.ones(1, dtype=torch.float16))]
    ema = EMA(parameters, decay=0.9999, warmup=False)
    with torch.no_grad():
        parameters[0].fill_(1.5)
    for _ in range(10):
        ema.update()
    assert float(ema.averages[0]) == pytest.approx(1.5 - 0.5 * 0.9999**10, rel=1e-6)


def test_resume_is_bit_exact() -> None:
    whole = trained()
    ema = EMA(whole, decay=0.99)
    for step in range(5):
        walk(whole, step)
        ema.update()
    saved, values = ema.state_dict(), [parameter.detach().clone() for parameter in whole]
    for step in range(5, 10):
        walk(whole, step)
        ema.update()
    resumed = [nn.Parameter(value) for value in values]
    again = EMA(resumed, decay=0.99)
    again.load_state_dict(saved)
    for step in range(5, 10):
        walk(resumed, step)
        again.update()
    assert again.updates == ema.updates == 10
    assert all(torch.equal(a, b) for a, b in zip(ema.averages, again.averages, strict=True))


def test_faults_are_named() -> None:
    with pytest.raises(TrainingError, match="EMA decay 1"):
        EMA(trained(), decay=1.0)
    ema = EMA(trained())
    for averages in ([torch.zeros(3, 2)], [torch.zeros(3, 2), torch.zeros(5)]):
        with pytest.raises(StateError, match=r"does not fit the 2 \(3x2, 4\)"):
            ema.load_state_dict({"updates": 3, "averages": averages})
    assert ema.updates == 0
    many = EMA([torch.zeros(1)] * 6)
    with pytest.raises(StateError, match=r"\(1, 1, 1, 1, \.\.\.\)"):
        many.load_state_dict(ema.state_dict())
