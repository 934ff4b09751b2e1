"""lib_pivotal/training/objective.py, its noise: statistics against closed forms, and independence of the batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lib_pivotal.errors import TrainingError
from lib_pivotal.training.objective import make_noise, perturb_noise

EVERYTHING = {
    "offset": 0.1,
    "adaptive_offset": 0.05,
    "random_offset": True,
    "multires_iterations": 4,
    "multires_discount": 0.3,
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_plain_noise_is_the_generators_own() -> None:
    latents = torch.zeros(3, 4, 8, 8)
    generator = seeded(1)
    expected = torch.stack([torch.randn(4, 8, 8, generator=generator) for _ in range(3)])
    assert torch.equal(make_noise(latents, generator=seeded(1)), expected)


def test_offset_adds_its_variance_to_the_mean_of_a_channel() -> None:
    """var(mean of a channel) = 1/(h·w) + offset²."""
    latents = torch.zeros(600, 4, 8, 8)
    noise = make_noise(latents, generator=seeded(), offset=0.3)
    assert float(noise.mean(dim=(2, 3)).var()) == pytest.approx(1 / 64 + 0.09, rel=0.12)
    assert float((noise - noise.mean(dim=(2, 3), keepdim=True)).var()) == pytest.approx(63 / 64, rel=0.02)


def test_random_offset_has_a_third_of_the_variance() -> None:
    """E u² = 1/3 for u ~ U(0, 1)."""
    noise = make_noise(torch.zeros(800, 4, 8, 8), generator=seeded(), offset=0.6, random_offset=True)
    assert float(noise.mean(dim=(2, 3)).var()) == pytest.approx(1 / 64 + 0.12, rel=0.2)


def test_adaptive_offset_follows_the_latents_and_never_turns_negative() -> None:
    latents = torch.zeros(600, 2, 8, 8)
    latents[:, 1] = -3.0
    noise = make_noise(latents, generator=seeded(), offset=0.1, adaptive_offset=0.1)
    means = noise.mean(dim=(2, 3))
    assert float(means[:, 0].var()) == pytest.approx(1 / 64 + 0.01, rel=0.2)
    assert float(means[:, 1].var()) == pytest.approx(1 / 64 + 0.16, rel=0.2)
    clamped = make_noise(latents, generator=seeded(), offset=0.1, adaptive_offset=-0.1)
    assert float(clamped.mean(dim=(2, 3))[:, 1].var()) == pytest.approx(1 / 64, rel=0.2)


def test_multires_noise_has_unit_deviation_and_low_frequencies() -> None:
    latents = torch.zeros(64, 4, 32, 32)
    plain = make_noise(latents, generator=seeded())
    noise = make_noise(latents, generator=seeded(), multires_iterations=6, multires_discount=0.5)
    assert torch.allclose(noise.flatten(1).std(1), torch.ones(64), atol=1e-5)

    def neighbours(values: Tensor) -> float:
        return float((values[..., 1:] * values[..., :-1]).mean())

    assert abs(neighbours(plain)) < 0.01
    assert neighbours(noise) > 0.05


def test_multires_with_discount_zero_is_white() -> None:
    """Only the level of full size counts: the sum of two white noises, scaled back to 1."""
    noise = make_noise(torch.zeros(64, 4, 16, 16), generator=seeded(), multires_iterations=4, multires_discount=0.0)
    assert abs(float((noise[..., 1:] * noise[..., :-1]).mean())) < 0.01


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 1), (5, 9)])
def test_any_size_will_do(shape: tuple[int, int]) -> None:
    noise = make_noise(torch.zeros(2, 4, *shape), generator=seeded(), multires_iterations=8, offset=0.1)
    assert noise.shape == (2, 4, *shape) and bool(torch.isfinite(noise).all())


def test_one_generator_a_sample_makes_noise_independent_of_the_batch() -> None:
    latents = torch.randn(4, 4, 8, 6, generator=seeded(9))
    whole = make_noise(latents, generator=[seeded(s) for s in range(4)], **EVERYTHING)
    half = make_noise(latents[2:], generator=[seeded(s) for s in (2, 3)], **EVERYTHING)
    assert torch.equal(whole[2:], half)
    perturbed = perturb_noise(whole, generator=[seeded(s) for s in range(4)], gamma=0.1)
    assert torch.equal(perturbed[2:], perturb_noise(half, generator=[seeded(2), seeded(3)], gamma=0.1))


def test_one_generator_gives_split_batches_the_same_noise() -> None:
    latents = torch.randn(4, 4, 3, 3, generator=seeded(9))
    whole = make_noise(latents, generator=seeded(1), **EVERYTHING)
    one = seeded(1)
    assert torch.equal(whole, torch.cat([make_noise(part, generator=one, **EVERYTHING) for part in latents.split(1)]))


def test_noise_has_the_latents_dtype() -> None:
    latents = torch.zeros(2, 4, 8, 8, dtype=torch.bfloat16)
    noise = make_noise(latents, generator=seeded(), **EVERYTHING)
    assert noise.dtype == torch.bfloat16
    assert perturb_noise(noise, generator=seeded(), gamma=0.1).dtype == torch.bfloat16
    assert make_noise(latents[:0], generator=seeded()).shape == (0, 4, 8, 8)


def test_perturbation_adds_gamma_squared_and_leaves_the_noise() -> None:
    noise = make_noise(torch.zeros(500, 4, 8, 8), generator=seeded())
    kept = noise.clone()
    perturbed = perturb_noise(noise, generator=seeded(1), gamma=0.3)
    assert torch.equal(noise, kept)
    assert float((perturbed - noise).var()) == pytest.approx(0.09, rel=0.02)
    random = perturb_noise(noise, generator=seeded(1), gamma=0.3, random_strength=True)
    assert float((random - noise).var()) == pytest.approx(0.03, rel=0.15)
    state = (generator := seeded(2)).get_state()
    assert perturb_noise(noise, generator=generator, gamma=0.0) is noise
    assert torch.equal(generator.get_state(), state)


def test_faults_are_named() -> None:
    latents = torch.zeros(1, 4, 8, 8)
    for settings, message in [
        ({"offset": -0.1}, "noise offset -0.1"),
        ({"multires_iterations": -1}, "-1 levels"),
        ({"multires_discount": 1.5}, "discount 1.5"),
    ]:
        with pytest.raises(TrainingError, match=message):
            make_noise(latents, generator=seeded(), **settings)
    with pytest.raises(TrainingError, match=r"\(4, 8, 8\)"):
        make_noise(latents[0], generator=seeded())
    with pytest.raises(TrainingError, match="perturbation -1"):
        perturb_noise(latents, generator=seeded(), gamma=-1)
