"""lib_pivotal/training/schedule.py against diffusers 0.31's DDPMScheduler and algebra."""

from __future__ import annotations

import importlib
import itertools
import operator
from types import ModuleType

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.schedulers.scheduling_ddpm import rescale_zero_terminal_snr as diffusers_rescale
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lib_pivotal.errors import TrainingError
from lib_pivotal.training.objective import build_objective
from lib_pivotal.training.schedule import (
    DISTRIBUTIONS,
    SMALLEST_ALPHA_CUMPROD,
    NoiseSchedule,
    append_dims,
    generator_of,
    rescale_zero_terminal_snr,
)

T = torch.tensor([0, 1, 137, 500, 998, 999])


def reference(prediction_type: str = "epsilon", zero_terminal: bool = False) -> DDPMScheduler:
    return DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,
        rescale_betas_zero_snr=zero_terminal,
    )


def pair(seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(len(T), 4, 5, 3, generator=generator)
    return latents.to(dtype), torch.randn(latents.shape, generator=generator).to(dtype)


def test_add_noise_and_velocity_are_those_of_diffusers() -> None:
    theirs = reference()
    latents, noise = pair()
    for v_prediction in (False, True):
        ours = NoiseSchedule(theirs.alphas_cumprod, v_prediction=v_prediction)
        torch.testing.assert_close(
            ours.add_noise(latents, noise, T), theirs.add_noise(latents, noise, T), rtol=1e-6, atol=1e-6
        )
        target = theirs.get_velocity(latents, noise, T) if v_prediction else noise
        torch.testing.assert_close(ours.target(latents, noise, T), target, rtol=1e-6, atol=1e-6)


@pytest.fixture
def training_utils(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """diffusers.training_utils, which asks transformers 4.30 for a module at the place where later ones have it."""
    integrations = importlib.import_module("transformers.integrations")
    if not hasattr(integrations, "deepspeed"):
        monkeypatch.setattr(integrations, "deepspeed", importlib.import_module("transformers.deepspeed"), raising=False)
    return importlib.import_module("diffusers.training_utils")


def test_snr_is_that_of_diffusers(training_utils: ModuleType) -> None:
    theirs = reference()
    every = torch.arange(1000)
    ours = NoiseSchedule(theirs.alphas_cumprod).snr(every)
    torch.testing.assert_close(ours, training_utils.compute_snr(theirs, every), rtol=5e-5, atol=0)
    assert float(ours[-1]) == pytest.approx(0.0047, abs=1e-4)


def test_zero_terminal_snr_is_the_papers() -> None:
    plain = reference()
    ours = rescale_zero_terminal_snr(plain.alphas_cumprod)
    theirs = (1 - diffusers_rescale(plain.betas)).cumprod(0)
    torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=1e-7)
    assert float(ours[-1]) == 0.0
    assert float(ours[0]) == pytest.approx(float(plain.alphas_cumprod[0]), rel=1e-7)
    torch.testing.assert_close(rescale_zero_terminal_snr(ours), ours, rtol=0, atol=1e-7)
    schedule = NoiseSchedule(plain.alphas_cumprod, zero_terminal_snr=True)
    torch.testing.assert_close(schedule.alphas_cumprod, ours, rtol=1e-6, atol=1e-9)
    assert float(schedule.snr(torch.tensor([999]))) == 0.0
    latents, noise = pair()
    assert torch.equal(schedule.add_noise(latents, noise, T)[-1], noise[-1])


def test_zero_terminal_snr_is_algorithm_1_in_plain_python() -> None:
    """Lin et al. 2023, arXiv 2305.08891, algorithm 1, over betas and back, as it is printed there."""
    betas = [(0.00085**0.5 + (0.012**0.5 - 0.00085**0.5) * i / 999) ** 2 for i in range(1000)]
    bars = list(itertools.accumulate((1 - beta for beta in betas), operator.mul))
    roots = [bar**0.5 for bar in bars]
    first, last = roots[0], roots[-1]
    rescaled = [((root - last) * first / (first - last)) ** 2 for root in roots]
    new_alphas = [rescaled[0], *(after / before for before, after in itertools.pairwise(rescaled))]
    new_betas = [1 - alpha for alpha in new_alphas]
    expected = torch.tensor(list(itertools.accumulate((1 - beta for beta in new_betas), operator.mul)))
    ours = rescale_zero_terminal_snr(torch.tensor(bars, dtype=torch.float64))
    torch.testing.assert_close(ours, expected.double(), rtol=1e-6, atol=1e-9)
    assert new_betas[-1] == 1.0 and new_betas[0] == pytest.approx(betas[0], rel=1e-9)


@pytest.mark.parametrize("v_prediction", [False, True])
def test_min_snr_is_that_of_diffusers_training_scripts(training_utils: ModuleType, v_prediction: bool) -> None:
    """diffusers 0.31, examples/text_to_image/train_text_to_image_lora.py, `mse_loss_weights`."""
    theirs = reference("v_prediction" if v_prediction else "epsilon")
    every = torch.arange(1000)
    snr = training_utils.compute_snr(theirs, every)
    weights = torch.stack([snr, 5.0 * torch.ones_like(every)], dim=1).min(dim=1)[0] / (snr + 1 if v_prediction else snr)
    ours = build_objective(weighting="min_snr", gamma=5.0).weight(
        every, NoiseSchedule(theirs.alphas_cumprod, v_prediction=v_prediction)
    )
    torch.testing.assert_close(ours, weights, rtol=5e-5, atol=0)


def test_velocity_at_zero_snr_is_minus_the_latents() -> None:
    schedule = NoiseSchedule(reference().alphas_cumprod, v_prediction=True, zero_terminal_snr=True)
    latents, noise = pair()
    assert torch.equal(schedule.target(latents, noise, T)[-1], -latents[-1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_results_have_the_latents_dtype_and_float32_coefficients(dtype: torch.dtype) -> None:
    schedule = NoiseSchedule(reference().alphas_cumprod, v_prediction=True)
    latents, noise = pair(dtype=dtype)
    exact = schedule.add_noise(latents.float(), noise.float(), T)
    assert schedule.add_noise(latents, noise, T).dtype == dtype
    assert schedule.target(latents, noise, T).dtype == dtype
    eps = 1e-6 if dtype == torch.float64 else torch.finfo(dtype).eps
    torch.testing.assert_close(schedule.add_noise(latents, noise, T).float(), exact, rtol=eps, atol=eps)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 998),
    st.integers(1, 999),
    st.sampled_from(sorted(DISTRIBUTIONS)),
    st.integers(0, 2**32),
)
def test_timesteps_stay_in_their_range(minimum: int, width: int, distribution: str, seed: int) -> None:
    schedule = NoiseSchedule(reference().alphas_cumprod)
    maximum = min(1000, minimum + width)
    generator = torch.Generator().manual_seed(seed)
    drawn = schedule.sample_timesteps(
        16, generator=generator, minimum=minimum, maximum=maximum, distribution=distribution
    )
    assert drawn.dtype == torch.int64
    assert minimum <= int(drawn.min()) and int(drawn.max()) < maximum


def test_distributions_of_timesteps() -> None:
    schedule = NoiseSchedule(reference().alphas_cumprod)
    count = 4_000
    # share below 250: P(u < .25), P(sigmoid(n) < .25) = Φ(-ln 3), P(1-u³ < .25) = 1 - .75^(1/3), P(u³ < .25)
    expected = {"uniform": 0.25, "logit_normal": 0.1360, "late": 1 - 0.75 ** (1 / 3), "early": 0.25 ** (1 / 3)}
    for distribution, share in expected.items():
        drawn = schedule.sample_timesteps(count, generator=torch.Generator().manual_seed(1), distribution=distribution)
        assert float((drawn < 250).float().mean()) == pytest.approx(share, abs=0.03), distribution
    uniform = schedule.sample_timesteps(count, generator=torch.Generator().manual_seed(2))
    assert int(uniform.min()) < 3 and int(uniform.max()) > 996
    assert schedule.sample_timesteps(8, generator=torch.Generator(), minimum=7, maximum=8).tolist() == [7] * 8


def test_one_generator_a_sample_makes_the_draw_independent_of_the_batch() -> None:
    schedule = NoiseSchedule(reference().alphas_cumprod)

    def generators(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    whole = schedule.sample_timesteps(4, generator=generators(5, 6, 7, 8))
    half = schedule.sample_timesteps(2, generator=generators(7, 8))
    assert torch.equal(whole[2:], half)
    one = torch.Generator().manual_seed(3)
    together = schedule.sample_timesteps(4, generator=torch.Generator().manual_seed(3))
    apart = [schedule.sample_timesteps(2, generator=one) for _ in range(2)]
    assert torch.equal(together, torch.cat(apart))


def test_tables_follow_the_latents_to_their_device() -> None:
    """Torch's meta device stands for any other: shapes and devices without numbers."""
    schedule = NoiseSchedule(reference().alphas_cumprod, v_prediction=True)
    latents, noise = (tensor.to("meta") for tensor in pair())
    assert schedule.add_noise(latents, noise, T.to("meta")).device.type == "meta"
    assert schedule.target(latents, noise, T.to("meta")).shape == latents.shape
    assert schedule.snr(T.to("meta")).device.type == "meta"


def test_no_timesteps_for_an_empty_batch() -> None:
    schedule = NoiseSchedule(reference().alphas_cumprod)
    assert schedule.sample_timesteps(0, generator=torch.Generator()).shape == (0,)


def test_faults_are_named() -> None:
    table = reference().alphas_cumprod
    schedule = NoiseSchedule(table)
    with pytest.raises(TrainingError, match=r"shape \(2, 2\)"):
        NoiseSchedule(torch.ones(2, 2))
    with pytest.raises(TrainingError, match="must fall within 1 and 0"):
        NoiseSchedule(table.flip(0))
    with pytest.raises(TrainingError, match="0 ≤ minimum < maximum ≤ 1000"):
        schedule.sample_timesteps(1, generator=torch.Generator(), minimum=10, maximum=10)
    with pytest.raises(TrainingError, match="'gaussian' is unknown"):
        schedule.sample_timesteps(1, generator=torch.Generator(), distribution="gaussian")
    with pytest.raises(TrainingError, match="2 random generators for a batch of 3"):
        generator_of([torch.Generator(), torch.Generator()], 0, 3)
    with pytest.raises(TrainingError, match="cannot broadcast"):
        append_dims(torch.zeros(2, 2), 1)
    assert len(schedule) == 1000
    assert rescale_zero_terminal_snr(table)[-2] > SMALLEST_ALPHA_CUMPROD
