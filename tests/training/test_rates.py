"""lib_pivotal/training/rates.py against torch.optim.lr_scheduler's curves; who trains when."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.optim import SGD, Optimizer, lr_scheduler

from lib_pivotal.errors import TrainingError
from lib_pivotal.parameter_groups import ParameterGroup
from lib_pivotal.training.optimizers import build_optimizer
from lib_pivotal.training.rates import Phase, PhasePlan, ramp_factor, rate_factor, rate_names, set_rates

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
            {"warmup_steps": 12, "final_factor": 0.01},
            lambda o: lr_scheduler.OneCycleLR(
                o, max_lr=1.0, total_steps=STEPS + 1, pct_start=12 / (STEPS + 1), div_factor=25, final_div_factor=4
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
    st.sampled_from(rate_names()),
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


# ---- who trains when ----


def test_joint_trains_all_from_the_first_step():
    assert PhasePlan(10).at(0) == Phase("joint", 1.0, 1.0, 1.0)


def test_network_starts_late_and_text_encoder_stops_early():
    plan = PhasePlan(100, network_start=0.2, te_stop=0.5)
    assert plan.at(19) == Phase("words", 1.0, 0.0, 0.0)
    assert plan.at(20) == Phase("joint", 1.0, 1.0, 1.0)
    assert plan.at(49).te == 1.0
    assert plan.at(50) == Phase("joint", 1.0, 1.0, 0.0)


def test_two_phase_freezes_or_continues_the_embeddings():
    plan = PhasePlan(30, kind="two_phase", embeddings_steps=10)
    assert [plan.at(step).embeddings for step in (0, 9, 10, 29)] == [1.0, 1.0, 0.0, 0.0]
    assert [plan.at(step).unet for step in (0, 9, 10, 29)] == [0.0, 0.0, 1.0, 1.0]
    assert (
        PhasePlan(30, kind="two_phase", embeddings_steps=10, continued_embedding_lr_factor=0.2).at(15).embeddings == 0.2
    )


def test_each_phase_has_its_own_schedule_of_rates():
    plan = PhasePlan(30, kind="two_phase", embeddings_steps=10)
    assert plan.rate_position(9) == (9, 10)
    assert plan.rate_position(10) == (0, 20)
    assert PhasePlan(30).rate_position(10) == (10, 30)


def test_the_ramp_by_its_formulas():
    """eden's base_lr · (unet_lr / base_lr)^p, 5e-5 to 3e-4, and a straight line; the last step has the whole rate."""
    rates = [3e-4 * ramp_factor("exponential", step, steps=11, start=1 / 6) for step in range(11)]
    assert rates == pytest.approx([5e-5 * 6 ** (step / 10) for step in range(11)])
    straight = [ramp_factor("linear", step, steps=5, start=0.2) for step in range(5)]
    assert straight == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert ramp_factor("none", 3, steps=9, start=0.1) == ramp_factor("linear", 0, steps=1, start=1.0) == 1.0
    with pytest.raises(TrainingError, match="ramp 'square'"):
        ramp_factor("square", 0, steps=2, start=0.5)


def test_the_network_alone_ramps_over_its_own_steps():
    plan = PhasePlan(30, kind="two_phase", embeddings_steps=10, network_ramp="linear", network_ramp_start=0.5)
    assert (plan.at(9).unet, plan.at(10).unet, plan.at(29).unet) == (0.0, 0.5, 1.0)
    joint = PhasePlan(11, network_ramp="exponential", network_ramp_start=0.01, te_stop=0.6)
    assert joint.at(0) == Phase("joint", 1.0, pytest.approx(0.01), pytest.approx(0.01))
    assert joint.at(5).te == joint.at(5).unet == pytest.approx(0.1)
    assert joint.at(10) == Phase("joint", 1.0, 1.0, 0.0)


@pytest.mark.parametrize("embeddings_steps", [0, 30, 31])
def test_impossible_two_phase_plan_is_refused(embeddings_steps):
    with pytest.raises(TrainingError, match="words_steps"):
        PhasePlan(30, kind="two_phase", embeddings_steps=embeddings_steps)
