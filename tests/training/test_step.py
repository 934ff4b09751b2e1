"""One micro-batch: the loss is what the formulas say, and does not depend on how a batch is cut."""

from dataclasses import replace

import pytest
import torch

from lib_pivotal.networks.network import build_network
from lib_pivotal.networks.targets import LayerRule
from lib_pivotal.ports import TrainingBatch
from lib_pivotal.training.objective import NoiseSettings, Objective
from lib_pivotal.training.schedule import NoiseSchedule
from lib_pivotal.training.seeds import derived_generator
from lib_pivotal.training.step import MicroStep, sample_count, split_batch


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
def embeddings():
    return {"aoi": (torch.randn(2, 16, generator=torch.Generator().manual_seed(2)).requires_grad_(),)}


def micro_step(host, **noise):
    return MicroStep(
        host.text,
        host.denoiser,
        schedule=NoiseSchedule(host.alphas_cumprod),
        objective=Objective(noise=NoiseSettings(**noise)),
        device=torch.device("cpu"),
    )


def test_loss_by_hand(tiny_host, tiny_models, batch, embeddings):
    """Independent of `NoiseSchedule` and `Objective`: diffusers' scheduler and a plain mean."""
    from diffusers import DDPMScheduler

    losses = micro_step(tiny_host).losses(batch, embeddings, seeds=(3, 4), first_sample=10)
    scheduler = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    for index in range(5):
        generator = derived_generator("noise", 3, 4, 10 + index)
        timestep = (torch.rand((), generator=generator, dtype=torch.float64) * 1000).long()[None]
        noise = torch.randn(4, 8, 8, generator=generator)[None]
        noisy = scheduler.add_noise(batch.latents[index : index + 1], noise, timestep)
        context = tiny_host.text.encode([batch.captions[index]], embeddings).context
        prediction = tiny_models["unet"](noisy, timestep, context).sample
        expected = ((prediction - noise) ** 2 * batch.mask[index]).mean() * batch.weights[index]
        torch.testing.assert_close(losses[index], expected, rtol=1e-4, atol=1e-6)


def test_gradient_reaches_the_embeddings_only(tiny_host, tiny_models, batch, embeddings):
    micro_step(tiny_host).losses(batch, embeddings, seeds=(0, 0)).sum().backward()
    assert embeddings["aoi"][0].grad.abs().sum() > 0


def test_pieces_have_the_losses_of_the_whole(tiny_host, batch, embeddings):
    micro = micro_step(tiny_host, offset=0.1, multires_iterations=2, perturbation=0.1)
    whole = micro.losses(batch, embeddings, seeds=(1, 2), first_sample=7)
    pieces, first = [], 7
    for piece in split_batch(batch, 3):
        pieces.append(micro.losses(piece, embeddings, seeds=(1, 2), first_sample=first))
        first += piece.latents.shape[0]
    torch.testing.assert_close(torch.cat(pieces), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 9])
def test_split_keeps_every_sample_once(batch, parts):
    pieces = split_batch(batch, parts)
    assert len(pieces) == min(parts, 5) and sample_count(pieces) == 5
    assert [key for piece in pieces for key in piece.keys] == batch.keys
    assert torch.equal(torch.cat([piece.latents for piece in pieces]), batch.latents)
    assert torch.equal(torch.cat([piece.mask for piece in pieces]), batch.mask)


def test_fixed_timesteps_are_used(tiny_host, batch, embeddings):
    micro = micro_step(tiny_host)
    early = micro.losses(batch, embeddings, seeds=(0, 0), timesteps=torch.full((5,), 10))
    late = micro.losses(batch, embeddings, seeds=(0, 0), timesteps=torch.full((5,), 990))
    assert not torch.allclose(early, late)
    assert torch.equal(early, micro.losses(batch, embeddings, seeds=(0, 0), timesteps=torch.full((5,), 10)))


def test_autocast_keeps_the_loss_in_fp32(tiny_host, batch, embeddings):
    micro = MicroStep(
        tiny_host.text,
        tiny_host.denoiser,
        schedule=NoiseSchedule(tiny_host.alphas_cumprod),
        objective=Objective(),
        device=torch.device("cpu"),
        autocast_dtype=torch.bfloat16,
    )
    losses = micro.losses(batch, embeddings, seeds=(0, 0))
    assert losses.dtype == torch.float32 and torch.isfinite(losses).all()


@pytest.fixture
def network(tiny_host):
    """With random changes in U-Net and text encoder: nothing in it is near 0."""
    rules = [LayerRule(pattern="to_[qkv]|_proj", rank=2, alpha=2.0)]
    made = build_network(tiny_host.layers(), rules, seed=0, device="cpu")
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for group in made.parameter_groups():
            for parameter in group.parameters:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return made


def prior_step(host, network, mask_prior=0.0):
    return MicroStep(
        host.text,
        host.denoiser,
        schedule=NoiseSchedule(host.alphas_cumprod),
        objective=Objective(mask_prior=mask_prior),
        device=torch.device("cpu"),
        network_off=lambda: network.with_multipliers(unet=0.0, te=0.0),
    )


def drawn(step, latents):
    generators = [derived_generator("noise", 3, 4, index) for index in range(len(latents))]
    return step.objective.draw(latents, schedule=step.schedule, generators=generators)


def test_a_prior_target_is_the_checkpoints_own_prediction(tiny_host, tiny_models, batch, embeddings, network):
    """Against the bare U-Net and text encoder, with no network near them: the loss says how far the network moves."""
    batch = replace(
        batch, captions=["1girl, hat"] * 5, embeddings=[()] * 5, mask=None, weights=torch.ones(5), prior=True
    )
    noisy = drawn(prior_step(tiny_host, network), batch.latents)

    def predicted():
        context = tiny_host.text.encode(batch.captions, {}).context
        return tiny_models["unet"](noisy.noisy, noisy.timesteps, context).sample

    with torch.no_grad():
        bare = predicted()
        with network.attach():
            moved = predicted()
            losses = prior_step(tiny_host, network).losses(batch, embeddings, seeds=(3, 4))
            before = network.multipliers
        assert torch.equal(predicted(), bare)
    assert before == {"unet": 1.0, "te": 1.0, "te2": 1.0}
    assert not torch.allclose(moved, bare, atol=1e-2)
    torch.testing.assert_close(losses, (moved - bare).square().flatten(1).mean(1), rtol=1e-4, atol=1e-6)


def test_a_network_that_changes_nothing_has_no_prior_loss(tiny_host, batch, embeddings, network):
    with torch.no_grad():
        for group in network.parameter_groups():
            for parameter in group.parameters:
                parameter.zero_()
    batch = replace(batch, captions=["1girl, hat"] * 5, prior=True)
    with network.attach():
        losses = prior_step(tiny_host, network).losses(batch, embeddings, seeds=(3, 4))
    assert torch.equal(losses, torch.zeros(5))


def test_gradient_of_a_prior_loss_by_finite_differences(tiny_host, batch, embeddings, network):
    """The target is a constant: the slope along a direction is that of the prediction alone."""
    batch = replace(batch, captions=["1girl, hat"] * 5, prior=True)
    parameters = [parameter for group in network.parameter_groups() for parameter in group.parameters]
    generator = torch.Generator().manual_seed(5)
    direction = [torch.randn(parameter.shape, generator=generator) for parameter in parameters]

    def total():
        return prior_step(tiny_host, network).losses(batch, embeddings, seeds=(3, 4)).sum()

    with network.attach():
        gradients = torch.autograd.grad(total(), parameters)
        slope = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                for parameter, way in zip(parameters, direction, strict=True):
                    parameter.add_(way, alpha=sign * 3e-4)
                sides.append(float(total()))
                for parameter, way in zip(parameters, direction, strict=True):
                    parameter.sub_(way, alpha=sign * 3e-4)
    assert slope == pytest.approx((sides[0] - sides[1]) / 6e-4, rel=2e-2)
    assert embeddings["aoi"][0].grad is None


@pytest.mark.parametrize("scale", [1.0, 2.5], ids=["as painted", "scaled"])
def test_a_masked_prior_by_hand(tiny_host, tiny_models, batch, embeddings, network, scale):
    """OneTrainer's formula: mask · (p - ε)² + w · (1 - mask) · (p - prior)²; black stays as it was, white is learnt."""
    mask = torch.rand(5, 1, *batch.latents.shape[2:], generator=torch.Generator().manual_seed(1))
    mask[:, :, 0, 0], mask[:, :, 1, 1] = 0.0, 1.0
    mask[4] = 1.0  # a picture without a mask
    batch = replace(
        batch,
        captions=["1girl, hat"] * 5,
        embeddings=[()] * 5,
        mask=mask * scale,
        weights=torch.tensor([1, 1, 2, 1, 1.0]),
    )
    step = prior_step(tiny_host, network, mask_prior=0.3)
    noisy = drawn(step, batch.latents)

    def predicted():
        context = tiny_host.text.encode(batch.captions, {}).context
        return tiny_models["unet"](noisy.noisy, noisy.timesteps, context).sample

    with torch.no_grad():
        bare = predicted()
        with network.attach():
            moved = predicted()
            losses = step.losses(batch, embeddings, seeds=(3, 4))
    errors = mask * scale * (moved - noisy.noise).square() + 0.3 * (1 - mask) * (moved - bare).square()
    torch.testing.assert_close(losses, errors.flatten(1).mean(1) * batch.weights, rtol=1e-4, atol=1e-6)


def test_a_masked_prior_costs_nothing_without_masks(tiny_host, batch, embeddings, network):
    """No prior is computed where nothing is masked: the network is never switched off."""
    calls = []
    step = prior_step(tiny_host, network, mask_prior=0.5)
    step._network_off = lambda: calls.append(1) or network.with_multipliers(unet=0.0, te=0.0)
    plain = prior_step(tiny_host, network)
    for mask in (None, torch.full((5, 1, *batch.latents.shape[2:]), 0.7)):
        unmasked = replace(batch, mask=mask)
        with torch.no_grad():
            losses = step.losses(unmasked, embeddings, seeds=(0, 0))
            assert torch.equal(losses, plain.losses(unmasked, embeddings, seeds=(0, 0)))
    assert not calls


def test_pieces_keep_name_and_target(batch):
    pieces = split_batch(replace(batch, name="preservation", prior=True), 2)
    assert [(piece.name, piece.prior) for piece in pieces] == [("preservation", True)] * 2
