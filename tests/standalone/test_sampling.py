"""Sampling against k-diffusion and the web UI's own code (tests/golden/make_sampling.py)."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lib_pivotal.errors import HostError
from lib_pivotal.ports import Conditioning
from lib_pivotal.standalone.sampling import Guidance, SeededNoise, SigmaSchedule, sample_latents
from lib_pivotal.training.schedule import rescale_zero_terminal_snr
from tests.golden.sampling_case import CASES, SEEDS, SHAPE, alphas_cumprod, contexts, formula

GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "sampling.safetensors")


def predict(latents, timesteps, conditioning):
    return formula(latents, timesteps, conditioning.context)


def run(name, *, seeds=SEEDS, rows=..., scale=None, negative=None):
    sampler, v_prediction, golden_scale, steps = CASES[name]
    positive, plain_negative = contexts()
    negative = plain_negative if negative is None else negative
    scales = torch.full((len(seeds),), golden_scale if scale is None else scale)
    return sample_latents(
        predict,
        Guidance(Conditioning(positive[rows]), Conditioning(negative[rows]), scales),
        seeds=seeds,
        shape=SHAPE,
        steps=steps,
        alphas_cumprod=alphas_cumprod(),
        v_prediction=v_prediction,
        sampler={"sample_euler": "euler", "sample_euler_ancestral": "euler_a"}[sampler],
    )


@pytest.mark.parametrize("name", CASES)
def test_same_as_the_web_ui(name):
    torch.testing.assert_close(run(name), GOLDEN[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("steps", [4, 9])
def test_sigmas(steps):
    ours = SigmaSchedule(alphas_cumprod()).steps(steps)
    torch.testing.assert_close(ours, GOLDEN[f"sigmas.{steps}"], rtol=1e-5, atol=0)


def test_time_and_sigma_are_inverse():
    schedule = SigmaSchedule(alphas_cumprod())
    timesteps = torch.tensor([0.0, 0.25, 10.5, 500.0, 998.75, 999.0])
    torch.testing.assert_close(schedule.timestep(schedule.sigma(timesteps)), timesteps, rtol=1e-4, atol=2e-2)


@pytest.mark.parametrize("name", ["euler_a", "euler_v"])
def test_a_picture_depends_on_its_own_seed_only(name):
    together = run(name)
    alone = run(name, seeds=SEEDS[1:2], rows=slice(1, 2))
    torch.testing.assert_close(together[1:2], alone, rtol=1e-5, atol=1e-5)


def test_conditionings_of_different_lengths():
    _, negative = contexts()
    longer = torch.cat([negative, negative], dim=1)  # the same mean: the formula cannot tell
    torch.testing.assert_close(run("euler", negative=longer), run("euler"), rtol=1e-5, atol=1e-5)


def test_scale_one_is_the_positive_alone():
    torch.testing.assert_close(run("euler", scale=1.0, negative=contexts()[1] * 100), run("euler", scale=1.0))


def test_noise_is_drawn_picture_by_picture():
    noise = SeededNoise([5, 6], (4, 2, 2), device=torch.device("cpu"))
    generator = torch.Generator().manual_seed(6)
    first, second = noise(), noise()
    assert torch.equal(first[1], torch.randn(4, 2, 2, generator=generator))
    assert torch.equal(second[1], torch.randn(4, 2, 2, generator=generator))


def test_zero_terminal_snr_begins_at_the_web_uis_largest_sigma():
    alphas = rescale_zero_terminal_snr(alphas_cumprod())
    schedule = SigmaSchedule(alphas)
    assert alphas[-1] == 0 and float(schedule.sigmas[-1]) == pytest.approx(4518.7, rel=1e-3)
    assert torch.isfinite(schedule.steps(5)).all()


def test_refusals():
    positive, negative = contexts()
    options = {"seeds": SEEDS, "shape": SHAPE, "alphas_cumprod": alphas_cumprod(), "v_prediction": False}
    guidance = Guidance(Conditioning(positive), Conditioning(negative), torch.ones(3))
    with pytest.raises(HostError, match="sampler = 'plms'"):
        sample_latents(predict, guidance, steps=2, sampler="plms", **options)
    with pytest.raises(HostError, match="steps = 0"):
        sample_latents(predict, guidance, steps=0, **options)
