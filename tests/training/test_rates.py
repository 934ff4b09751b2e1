"""lib_pivotal/training/rates.py against torch.optim.lr_scheduler's curves and the web UI's stepwise rates."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.optim import SGD, Optimizer, lr_scheduler

from lib_pivotal.errors import TrainingError
from lib_pivotal.training.optimizers import ParameterGroup, build_optimizer
from lib_pivotal.training.rates import RATE_KINDS, parse_stepwise, rate_factor, set_rates

STEPS = 60


def torch_curve(make: Callable[[Optimizer], lr_scheduler.LRScheduler]) -> list[float]:
    """The rates (base 1) that a torch scheduler gives in steps 0 to STEPS - 1."""
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, rates = make(optimizer), []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("kind", "arguments", "make"),
    [
        ("constant", {}, lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
        ("linear", {}, lambda o: lr_scheduler.LinearLR(o, 1.0, 0.0, STEPS)),
        ("linear", {"final_factor": 0.2}, lambda o: lr_scheduler.LinearLR(o, 1.0, 0.2, STEPS)),
        ("cosine", {}, lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS)),
        ("cosine", {"final_factor": 0.1}, lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS, eta_min=0.1)),
        ("cosine_restarts", {"cycles": 3}, lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, STEPS // 3)),
        ("polynomial", {"power": 1.7}, lambda o: lr_scheduler.PolynomialLR(o, STEPS, power=1.7)),
        (
            "one_cycle",
            {"final_factor": 1 / 250_000},
            lambda o: lr_scheduler.OneCycleLR(o, max_lr=1.0, total_steps=STEPS + 1),
        ),
        (
            "one_cycle",
            {"warmup_steps": 12, "start_factor": 0.1, "final_factor": 0.01},
            lambda o: lr_scheduler.OneCycleLR(
                o, max_lr=1.0, total_steps=STEPS + 1, pct_start=12 / (STEPS + 1), div_factor=10, final_div_factor=10
            ),
        ),
    ],
)
def test_curves_are_torchs(
    kind: str, arguments: dict[str, float], make: Callable[[Optimizer], lr_scheduler.LRScheduler]
) -> None:
    max_steps = STEPS + 1 if kind == "one_cycle" else STEPS
    ours = [rate_factor(kind, step, max_steps=max_steps, **arguments) for step in range(STEPS)]  # type: ignore[arg-type]
    assert ours == pytest.approx(torch_curve(make), abs=1e-9)


def test_warm_up_then_the_curve() -> None:
    """Linear warm-up that reaches 1 in its last step, then cosine over what is left."""
    found = [rate_factor("cosine", step, max_steps=14, warmup_steps=4) for step in range(15)]
    expected = [0.25, 0.5, 0.75, 1.0] + [(1 + math.cos(math.pi * k / 10)) / 2 for k in range(11)]
    assert found == pytest.approx(expected)


def test_one_cycle_rises_and_falls() -> None:
    found = [rate_factor("one_cycle", step, max_steps=100) for step in range(100)]
    assert found[0] == pytest.approx(0.04) and max(found) == found[29] == 1.0 and found[-1] == pytest.approx(0)
    assert found[:30] == sorted(found[:30]) and found[29:] == sorted(found[29:], reverse=True)


@example("linear", 1, 1, 1.0, 0.0, 1)  # a run that is all warm-up
@settings(max_examples=60, deadline=None, database=None)
@given(
    st.sampled_from(RATE_KINDS),
    st.integers(1, 300),
    st.integers(0, 400),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(1, 5),
)
def test_factors_stay_between_final_and_one(
    kind: str, max_steps: int, step: int, warmup_share: float, final: float, cycles: int
) -> None:
    warmup = int(warmup_share * max_steps)
    factor = rate_factor(kind, step, max_steps=max_steps, warmup_steps=warmup, final_factor=final, cycles=cycles)
    assert 0 <= factor <= 1 + 1e-12
    if step >= warmup and kind != "one_cycle":
        assert factor >= final - 1e-12
    if step >= max_steps and kind != "constant":
        assert factor == pytest.approx(final)


def test_faults_of_schedules_are_named() -> None:
    with pytest.raises(TrainingError, match="'exponential' is unknown"):
        rate_factor("exponential", 0, max_steps=10)
    with pytest.raises(TrainingError, match="warm-up no longer than the run"):
        rate_factor("linear", 0, max_steps=10, warmup_steps=11)


# ---- stepwise ----


def web_ui_rates(text: str, max_steps: int) -> list[float]:
    """The web UI's LearnRateScheduler (v1.10.1) followed by hand for well-formed texts."""
    pieces = []
    for part in text.split(","):
        rate, _, end = part.partition(":")
        until = max_steps if not end or int(end) == -1 else min(int(end), max_steps)
        pieces.append((float(rate), until))
    rates, index = [], 0
    for step in range(max_steps):
        if step >= pieces[index][1] and index + 1 < len(pieces):
            index += 1
        rates.append(pieces[index][0])
    return rates


@pytest.mark.parametrize(
    "text", ["0.005", "0.005:10, 1e-3:20, 1e-5:40", "0.005:10,1e-3", "5e-3:10, 1e-3:-1", "0.1:1, 0.2:2, 0.3:100"]
)
def test_stepwise_is_the_web_uis(text: str) -> None:
    rates = parse_stepwise(text)
    assert [rates(step) for step in range(40)] == web_ui_rates(text, 40)


def test_stepwise_holds_its_last_rate() -> None:
    rates = parse_stepwise(" 0.005:100, 1e-3:1000, ")
    assert (rates(0), rates(99), rates(100), rates(999), rates(5000)) == (0.005, 0.005, 0.001, 0.001, 0.001)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it is empty"),
        (" , ", "it is empty"),
        ("fast", "'fast' is not LR or LR:step"),
        ("0.1:ten", "'0.1:ten' is not LR or LR:step"),
        ("0.1:10:20", "is not LR or LR:step"),
        ("-0.1", "not a number of 0 or more"),
        ("nan", "not a number of 0 or more"),
        ("0.1, 0.2:5", "'0.2:5' comes after a learning rate that holds to the end"),
        ("0.1:10, 0.2:10", "'0.2:10' ends at or before step 10"),
        ("0.1:0", "ends at or before step 0"),
    ],
)
def test_faults_of_stepwise_rates_are_named(text: str, problem: str) -> None:
    with pytest.raises(TrainingError, match=problem) as caught:
        parse_stepwise(text)
    assert "0.005:100" in str(caught.value)


# ---- into the optimiser ----


def test_rates_are_base_times_factor_of_the_group_times_factor_of_the_step() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = build_optimizer(
        "adamw",
        [ParameterGroup("words", parameters[:1], 5e-3), ParameterGroup("unet", parameters[1:], 2e-4, lr_factor=0.5)],
    )
    assert set_rates(optimizer, 0.5) == {"words": 2.5e-3, "unet": 5e-5}
    assert set_rates(optimizer, {"words": 0.0, "unet": 1.0}) == {"words": 0.0, "unet": 1e-4}
    assert [group["lr"] for group in optimizer.param_groups] == [0.0, 1e-4]
    with pytest.raises(TrainingError, match="'unet'; given: words"):
        set_rates(optimizer, {"words": 1.0})


def test_one_cycle_of_nothing_but_warm_up_still_ends() -> None:
    """Found by hypothesis: two steps, both warm-up; the rate after the last step is the final one."""
    assert rate_factor("one_cycle", 2, max_steps=2, warmup_steps=2, final_factor=0.0) == pytest.approx(0.0, abs=1e-12)
