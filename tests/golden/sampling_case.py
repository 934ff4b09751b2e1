"""What is sampled in `make_sampling.py` and `test_sampling.py`: a formula in the U-Net's place."""

import torch

SEEDS = [7, 8, 123456789012]
SHAPE = (4, 8, 6)
CASES = {
    "euler": ("sample_euler", False, 7.0, 9),
    "euler_a": ("sample_euler_ancestral", False, 7.0, 9),
    "euler_v": ("sample_euler", True, 3.0, 4),
    "euler_a_v": ("sample_euler_ancestral", True, 3.0, 4),
}
"""Name -> k-diffusion's function, v-prediction, guidance scale, steps."""


def alphas_cumprod() -> torch.Tensor:
    """SD's."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


def contexts() -> tuple[torch.Tensor, torch.Tensor]:
    """A positive and a negative conditioning for each seed."""
    positive = torch.linspace(-1, 1, len(SEEDS) * 6).reshape(len(SEEDS), 3, 2)
    return positive, torch.full_like(positive, 0.2)


def formula(latents: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """Depends on everything that a U-Net depends on."""
    time = (timesteps.float() / 1000).view(-1, 1, 1, 1)
    text = context.mean(dim=(1, 2)).view(-1, 1, 1, 1)
    return torch.tanh(latents * (0.8 + 0.3 * text) + time) * 0.9 + 0.1 * text * latents.roll(1, dims=-1)
