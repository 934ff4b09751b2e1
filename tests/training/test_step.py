"""One micro-batch: the loss is what the formulas say, and does not depend on how a batch is cut."""

import pytest
import torch

from lib_pivotal.ports import TrainingBatch
from lib_pivotal.training.objective import Objective
from lib_pivotal.training.schedule import NoiseSchedule
from lib_pivotal.training.seeds import derived_generator
from lib_pivotal.training.step import MicroStep, NoiseSettings, sample_count, split_batch


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return TrainingBatch(
        torch.randn(5, 4, 8, 8, generator=generator),
        [f"aoi, tag{i}" for i in range(5)],
        torch.rand(5, 1, 8, 8, generator=generator),
        torch.tensor([1.0, 0.5, 2.0, 1.0, 1.0]),
        [f"k{i}" for i in range(5)],
        [("aoi",)] * 5,
    )


@pytest.fixture
def words():
    return {"aoi": (torch.randn(2, 16, generator=torch.Generator().manual_seed(2)).requires_grad_(),)}


def micro_step(host, **noise):
    return MicroStep(
        host.text,
        host.denoiser,
        schedule=NoiseSchedule(host.alphas_cumprod),
        objective=Objective(),
        noise=NoiseSettings(**noise),
        device=torch.device("cpu"),
    )


def test_loss_by_hand(tiny_host, tiny_models, batch, words):
    """Independent of `NoiseSchedule` and `Objective`: diffusers' scheduler and a plain mean."""
    from diffusers import DDPMScheduler

    losses = micro_step(tiny_host).losses(batch, words, seeds=(3, 4), first_sample=10)
    scheduler = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    for index in range(5):
        generator = derived_generator("noise", 3, 4, 10 + index)
        timestep = (torch.rand((), generator=generator, dtype=torch.float64) * 1000).long()[None]
        noise = torch.randn(4, 8, 8, generator=generator)[None]
        noisy = scheduler.add_noise(batch.latents[index : index + 1], noise, timestep)
        context = tiny_host.text.encode([batch.captions[index]], words).context
        prediction = tiny_models["unet"](noisy, timestep, context).sample
        expected = ((prediction - noise) ** 2 * batch.mask[index]).mean() * batch.weights[index]
        torch.testing.assert_close(losses[index], expected, rtol=1e-4, atol=1e-6)


def test_gradient_reaches_the_words_only(tiny_host, tiny_models, batch, words):
    micro_step(tiny_host).losses(batch, words, seeds=(0, 0)).sum().backward()
    assert words["aoi"][0].grad.abs().sum() > 0


def test_pieces_have_the_losses_of_the_whole(tiny_host, batch, words):
    micro = micro_step(tiny_host, offset=0.1, multires_iterations=2, perturbation=0.1)
    whole = micro.losses(batch, words, seeds=(1, 2), first_sample=7)
    pieces, first = [], 7
    for piece in split_batch(batch, 3):
        pieces.append(micro.losses(piece, words, seeds=(1, 2), first_sample=first))
        first += piece.latents.shape[0]
    torch.testing.assert_close(torch.cat(pieces), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 9])
def test_split_keeps_every_sample_once(batch, parts):
    pieces = split_batch(batch, parts)
    assert len(pieces) == min(parts, 5) and sample_count(pieces) == 5
    assert [key for piece in pieces for key in piece.keys] == batch.keys
    assert torch.equal(torch.cat([piece.latents for piece in pieces]), batch.latents)
    assert torch.equal(torch.cat([piece.mask for piece in pieces]), batch.mask)


def test_fixed_timesteps_are_used(tiny_host, batch, words):
    micro = micro_step(tiny_host)
    early = micro.losses(batch, words, seeds=(0, 0), timesteps=torch.full((5,), 10))
    late = micro.losses(batch, words, seeds=(0, 0), timesteps=torch.full((5,), 990))
    assert not torch.allclose(early, late)
    assert torch.equal(early, micro.losses(batch, words, seeds=(0, 0), timesteps=torch.full((5,), 10)))


def test_autocast_keeps_the_loss_in_fp32(tiny_host, batch, words):
    micro = MicroStep(
        tiny_host.text,
        tiny_host.denoiser,
        schedule=NoiseSchedule(tiny_host.alphas_cumprod),
        objective=Objective(),
        noise=NoiseSettings(),
        device=torch.device("cpu"),
        autocast_dtype=torch.bfloat16,
    )
    losses = micro.losses(batch, words, seeds=(0, 0))
    assert losses.dtype == torch.float32 and torch.isfinite(losses).all()
