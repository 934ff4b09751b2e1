"""The validation loss against the squared error by hand: fixed noise, one timestep a stratum, batches of any size."""

import pytest
import torch

from lib_pivotal.evaluation.validation import _SEEDS, picture_losses, stratum_timestep
from lib_pivotal.ports import TrainingBatch
from lib_pivotal.training.objective import NoiseSettings, Objective
from lib_pivotal.training.schedule import NoiseSchedule
from lib_pivotal.training.seeds import derived_generator
from lib_pivotal.training.step import MicroStep


def picture(number, side=8):
    latents = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(number))
    return TrainingBatch(latents, [f"aoi, tag{number}"], None, torch.ones(1), [f"k{number}"], [("aoi",)])


def step_of(host):
    return MicroStep(
        host.text,
        host.denoiser,
        schedule=NoiseSchedule(host.alphas_cumprod),
        objective=Objective(noise=NoiseSettings()),
        device=torch.device("cpu"),
    )


EMBEDDINGS = {"aoi": (torch.ones(2, 16) * 0.1,)}


def measured(host, pictures, **options):
    options = {"noise_levels": 3, "timesteps": (0, 1000), "at_once": 4, **options}
    return picture_losses(step_of(host), pictures, EMBEDDINGS, **options)


def test_it_is_the_squared_error_at_fixed_noise(tiny_host):
    pictures = [picture(0), picture(1)]
    found = measured(tiny_host, pictures, noise_levels=2)
    alphas = tiny_host.alphas_cumprod
    for index, one in enumerate(pictures):
        errors = []
        for level in range(2):
            t = stratum_timestep(index, level, 2, (0, 1000))
            generator = derived_generator("noise", *_SEEDS, index * 2 + level)
            torch.rand((), generator=generator, dtype=torch.float64)  # the timestep that is not used
            noise = torch.randn(one.latents.shape[1:], generator=generator)[None]
            noisy = alphas[t].sqrt() * one.latents + (1 - alphas[t]).sqrt() * noise
            with torch.no_grad():
                answer = tiny_host.denoiser(noisy, torch.tensor([t]), tiny_host.text.encode(one.captions, EMBEDDINGS))
            errors.append(float((answer - noise).square().mean()))
        assert found[index] == pytest.approx(sum(errors) / 2, rel=1e-5)


def test_strata_cover_the_range_once_each():
    for index in range(50):
        drawn = [stratum_timestep(index, level, 5, (100, 600)) for level in range(5)]
        assert [(t - 100) // 100 for t in drawn] == [0, 1, 2, 3, 4]
    assert len({stratum_timestep(index, 0, 5, (100, 600)) for index in range(50)}) > 25, "each picture its own"
    assert stratum_timestep(3, 0, 1, (7, 8)) == 7


def test_how_many_go_together_changes_nothing(tiny_host):
    pictures = [picture(0), picture(1, side=16), picture(2), picture(3, side=16), picture(4)]
    alone, together = (measured(tiny_host, pictures, at_once=size) for size in (1, 7))
    assert alone == pytest.approx(together, rel=1e-5) and len(set(alone)) == 5
    assert measured(tiny_host, pictures, at_once=7) == together


def test_no_gradient_is_kept(tiny_host):
    vectors = {"aoi": (torch.zeros(2, 16, requires_grad=True),)}
    found = picture_losses(step_of(tiny_host), [picture(0)], vectors, noise_levels=1, timesteps=(0, 1000), at_once=1)
    assert isinstance(found[0], float) and vectors["aoi"][0].grad is None
