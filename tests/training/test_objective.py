"""lib_pivotal/training/objective.py: formulas written again by hand, finite differences, limits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lib_pivotal.errors import TrainingError
from lib_pivotal.training.objective import (
    LOSSES,
    WEIGHTINGS,
    Debiased,
    Huber,
    MinSNR,
    Objective,
    SmoothL1,
    SoftMinSNR,
    build_objective,
    dco,
    threshold_at,
)
from lib_pivotal.training.schedule import NoiseSchedule

T = torch.tensor([0, 137, 500, 999])
SCHEDULES = ("constant", "exponential", "snr")


def alphas_cumprod() -> Tensor:
    return (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0)


def schedule(v_prediction: bool = False, zero_terminal_snr: bool = False) -> NoiseSchedule:
    return NoiseSchedule(alphas_cumprod(), v_prediction=v_prediction, zero_terminal_snr=zero_terminal_snr)


def tensors(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(4, 4, 3, 2, generator=generator, dtype=torch.float64).to(dtype),
        torch.randn(4, 4, 3, 2, generator=generator, dtype=torch.float64).to(dtype),
    )


# ---- losses ----


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("huber_schedule", SCHEDULES)
def test_losses_are_the_formulas_in_plain_python(loss: str, huber_schedule: str) -> None:
    """Element by element with `math`, thresholds as kohya's get_huber_threshold_if_needed (48d368f)."""
    prediction, target = tensors(torch.float64)
    found = build_objective(loss, huber_schedule=huber_schedule, huber_threshold=0.2)(prediction, target, T, schedule())
    for index, t in enumerate(T.tolist()):
        a = float(alphas_cumprod()[t])
        sigma = math.sqrt((1 - a) / a)
        c = {
            "constant": 0.2,
            "exponential": math.exp(math.log(0.2) / 1000 * t),
            "snr": (1 - 0.2) / (1 + sigma) ** 2 + 0.2,
        }[huber_schedule]
        total = 0.0
        for p, q in zip(prediction[index].flatten().tolist(), target[index].flatten().tolist(), strict=True):
            d = p - q
            total += {
                "mse": d * d,
                "l1": abs(d),
                "huber": 2 * c * (math.sqrt(d * d + c * c) - c),
                "smooth_l1": 2 * (math.sqrt(d * d + c * c) - c),
            }[loss]
        assert float(found[index]) == pytest.approx(total / prediction[index].numel(), rel=1e-6)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("v_prediction", [False, True])
def test_gradients_are_finite_differences(loss: str, weighting: str, v_prediction: bool) -> None:
    prediction, target = (tensor[:, :2, :2].contiguous() for tensor in tensors(torch.float64))
    mask = torch.linspace(0, 2, 4 * 4, dtype=torch.float64).view(4, 1, 2, 2)
    objective = build_objective(loss, weighting, scale_v_like_noise=True)
    weights = torch.tensor([1.0, 0.5, 2.0, 0.0])
    noise_schedule = schedule(v_prediction)
    prediction.requires_grad_(True)
    assert torch.autograd.gradcheck(
        lambda p: objective(p, target, T, noise_schedule, mask, weights), (prediction,), eps=1e-6, atol=1e-7
    )


def test_huber_tends_to_mse_and_smooth_l1_to_twice_l1() -> None:
    prediction, target = tensors(torch.float64)
    wide = Objective(Huber(threshold=1e3, schedule="constant"))(prediction, target, T, schedule())
    torch.testing.assert_close(wide, build_objective("mse")(prediction, target, T, schedule()), rtol=1e-4, atol=0)
    narrow = Objective(SmoothL1(threshold=1e-7, schedule="constant"))(prediction, target, T, schedule())
    torch.testing.assert_close(narrow, 2 * build_objective("l1")(prediction, target, T, schedule()), rtol=1e-5, atol=0)


def test_thresholds_at_the_ends() -> None:
    ends = torch.tensor([0, 999])
    exponential = threshold_at(ends, schedule(), threshold=0.1, schedule="exponential")
    assert exponential.tolist() == pytest.approx([1.0, 0.1**0.999], rel=1e-6)
    snr = threshold_at(ends, schedule(zero_terminal_snr=True), threshold=0.1, schedule="snr")
    assert float(snr[0]) == pytest.approx(0.9 / 1.0292**2 + 0.1, rel=1e-3)
    assert float(snr[1]) == pytest.approx(0.1, rel=1e-6)


# ---- weightings ----


@pytest.mark.parametrize("v_prediction", [False, True])
def test_weights_are_the_formulas_in_plain_python(v_prediction: bool) -> None:
    for index, t in enumerate(T.tolist()):
        a = float(alphas_cumprod()[t])
        snr = a / (1 - a)
        on_v = snr / (snr + 1) if v_prediction else 1.0
        expected = {
            "none": 1.0,
            "min_snr": min(snr, 5.0) / (snr + 1 if v_prediction else snr),
            "soft_min_snr": 5 / (snr + 5) * on_v,
            "soft_min_snr_cubed": 8 / (snr**2 + 8) * on_v,
            "debiased": 1 / (min(snr, 1000) + 1) if v_prediction else 1 / math.sqrt(min(snr, 1000)),
            "p2": 1 / (1 + snr) * on_v,
        }
        for name in WEIGHTINGS:
            weight = build_objective(weighting=name).weight(T, schedule(v_prediction))
            assert float(weight[index]) == pytest.approx(expected[name], rel=2e-5), (name, t)


@pytest.mark.parametrize("weighting", ["min_snr", "soft_min_snr", "soft_min_snr_cubed", "p2"])
def test_weights_of_eps_and_v_mean_the_same(weighting: str) -> None:
    """The same error in x₀, told as an error of ε or of v, has the same weighted loss."""
    latents, noise = tensors(torch.float64)
    timesteps = torch.tensor([5, 137, 500, 990])
    on_eps, on_v = schedule(), schedule(v_prediction=True)
    noisy = on_eps.add_noise(latents, noise, timesteps)
    wrong = noise + 0.1 * latents
    a = alphas_cumprod()[timesteps][:, None, None, None]
    clean = (noisy - (1 - a).sqrt() * wrong) / a.sqrt()
    wrong_v = (a.sqrt() * noisy - clean) / (1 - a).sqrt()
    objective = build_objective(weighting=weighting)
    torch.testing.assert_close(
        objective(wrong, noise, timesteps, on_eps),
        objective(wrong_v, on_v.target(latents, noise, timesteps), timesteps, on_v),
        rtol=2e-4,
        atol=1e-9,
    )


def test_scaling_a_v_loss_like_noise() -> None:
    plain = build_objective()
    scaled = build_objective(scale_v_like_noise=True)
    ratio = scaled.weight(T, schedule(True)) / plain.weight(T, schedule(True))
    snr = schedule().snr(T).clamp(max=1000)
    torch.testing.assert_close(ratio, snr / (snr + 1))
    assert torch.equal(scaled.weight(T, schedule()), plain.weight(T, schedule()))


@pytest.mark.parametrize("v_prediction", [False, True])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_zero_terminal_snr_gives_finite_weights(weighting: str, v_prediction: bool) -> None:
    weights = build_objective(weighting=weighting).weight(torch.arange(1000), schedule(v_prediction, True))
    assert bool(torch.isfinite(weights).all())
    assert float(weights.max()) < 32


def test_gamma_none_means_the_default() -> None:
    snr = torch.tensor([0.1, 20.0])
    assert torch.equal(MinSNR()(snr, False), MinSNR(5.0)(snr, False))
    assert torch.equal(
        build_objective(weighting="min_snr", gamma=1.0).weight(T, schedule())[:2], schedule().snr(T)[:2] ** -1
    )
    assert float(SoftMinSNR(1.0)(torch.tensor([1.0]), False)) == 0.5
    assert float(Debiased()(torch.tensor([1e9]), False)) == pytest.approx(1000**-0.5)


# ---- masks and weights ----


def test_mask_of_ones_changes_nothing_and_zeros_give_zero() -> None:
    prediction, target = tensors()
    objective = build_objective()
    plain = objective(prediction, target, T, schedule())
    ones, zeros = torch.ones(4, 1, 3, 2), torch.zeros(4, 1, 3, 2)
    torch.testing.assert_close(objective(prediction, target, T, schedule(), ones), plain)
    assert objective(prediction, target, T, schedule(), zeros).tolist() == [0.0] * 4


def test_masked_means_by_hand() -> None:
    prediction = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 2, 2).repeat(1, 2, 1, 1)
    target = torch.zeros_like(prediction)
    mask = torch.tensor([0.0, 0.5, 1.0, 0.5]).view(1, 1, 2, 2)
    t = torch.tensor([10])
    summed = 0.5 * 4 + 9 + 0.5 * 16
    assert float(build_objective()(prediction, target, t, schedule(), mask)) == pytest.approx(summed / 4)
    each = mask.repeat(1, 2, 1, 1)
    assert float(build_objective()(prediction, target, t, schedule(), each)) == pytest.approx(summed / 4)


def test_weights_multiply_a_sample() -> None:
    prediction, target = tensors()
    plain = build_objective()(prediction, target, T, schedule())
    weights = torch.tensor([0.0, 1.0, 0.5, 3.0])
    assert torch.equal(build_objective()(prediction, target, T, schedule(), weights=weights), plain * weights)


@pytest.mark.parametrize("beta", [3.0, 1000.0])
def test_dco_by_hand(beta: float) -> None:
    """Value and gradient: -ln(1 / (1 + e^(beta·(L_on - L_off)))) and beta · σ(beta·(L_on - L_off)), in doubles."""
    with_network = torch.tensor([0.10, 0.11, 0.30], dtype=torch.float64, requires_grad=True)
    without = torch.tensor([0.12, 0.11, 0.295], dtype=torch.float64, requires_grad=True)
    losses = dco(with_network, without, beta=beta)
    losses.sum().backward()
    assert with_network.grad is not None and without.grad is None
    for index, (on, off) in enumerate(zip(with_network.tolist(), without.tolist(), strict=True)):
        sigmoid = 1 / (1 + math.exp(beta * (on - off)))
        assert losses[index].item() == pytest.approx(-math.log(sigmoid), rel=1e-9)
        assert with_network.grad[index].item() == pytest.approx(beta * (1 - sigmoid), rel=1e-6)
    assert dco(torch.tensor([1e3]), torch.tensor([0.0]), beta=1000.0).isfinite().all()


def test_the_whole_loss_with_a_reference() -> None:
    """As DCO's own code at a batch of one picture (customize.py): F.mse_loss of both, LogSigmoid of the difference."""
    latents, noise_levels = torch.randn(3, 4, 3, 2), schedule()
    bare = torch.zeros(3, 4, 3, 2)
    moved = torch.full_like(bare, 0.1).requires_grad_()
    options = {
        "schedule": noise_levels,
        "prior": lambda noisy, timesteps: bare,
        "weights": torch.tensor([1.0, 2.0, 0.5]),
    }
    objective = build_objective(dco_beta=50.0)

    def generators() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in range(3)]

    found = objective.losses(
        lambda noisy, timesteps: moved, latents, generators=generators(), reference=lambda noisy, t: bare, **options
    )
    found.sum().backward()
    drawn = objective.draw(latents, schedule=noise_levels, generators=generators())
    again = moved.detach().clone().requires_grad_()
    for index, weight in enumerate((1.0, 2.0, 0.5)):
        target = drawn.noise[index]
        difference = torch.nn.functional.mse_loss(again[index], target) - torch.nn.functional.mse_loss(
            bare[index], target
        )
        expected = -torch.nn.LogSigmoid()(-50.0 * difference) * weight
        expected.backward()
        torch.testing.assert_close(found[index], expected)
    torch.testing.assert_close(moved.grad, again.grad)
    plain = build_objective().losses(lambda noisy, t: moved, latents, generators=generators(), **options)
    without = objective.losses(lambda noisy, t: moved, latents, generators=generators(), **options)
    assert torch.equal(plain, without)  # scores, class pictures, embeddings-only: the plain loss


def test_half_precision_is_summed_in_float32() -> None:
    prediction, target = tensors(torch.bfloat16)
    found = build_objective()(prediction, target, T, schedule())
    assert found.dtype == torch.float32 and found.shape == (4,)
    assert torch.equal(found, build_objective()(prediction.float(), target.float(), T, schedule()))


def test_faults_are_named() -> None:
    prediction, target = tensors()
    objective = build_objective()
    with pytest.raises(TrainingError, match="differ in shape"):
        objective(prediction, target[:2], T, schedule())
    with pytest.raises(TrainingError, match=r"must be \(4, 1, 3, 2\)"):
        objective(prediction, target, T, schedule(), torch.ones(4, 1, 24, 16))
    with pytest.raises(TrainingError, match="one a sample"):
        objective(prediction, target, T, schedule(), weights=torch.ones(3))
    with pytest.raises(TrainingError, match="loss 'mae' is unknown"):
        build_objective("mae")
    with pytest.raises(TrainingError, match="weighting 'snr' is unknown"):
        build_objective(weighting="snr")
    with pytest.raises(TrainingError, match="gamma 0"):
        build_objective(weighting="min_snr", gamma=0.0)
    with pytest.raises(TrainingError, match="Huber threshold -1"):
        build_objective("huber", huber_threshold=-1)
    with pytest.raises(TrainingError, match="'linear' is unknown"):
        threshold_at(T, schedule(), schedule="linear")
