"""ldm's `LatentDiffusion`: the parts of an SD1 or SD2 checkpoint under their names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from ldm.models.autoencoder import AutoencoderKL, DiagonalGaussianDistribution
from torch import Tensor, nn


def alphas_cumprod() -> Tensor:
    """SD's schedule: linear in the root of beta."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0).float()


class DiffusionWrapper(nn.Module):
    """`cond` is `{"c_crossattn": [...], "c_concat": [...]}`."""

    def __init__(self, unet: nn.Module, conditioning_key: str) -> None:
        super().__init__()
        self.diffusion_model = unet
        self.conditioning_key = conditioning_key

    def forward(self, x: Tensor, t: Tensor, c_crossattn: list[Tensor], c_concat: list[Tensor] | None = None) -> Tensor:
        if self.conditioning_key == "hybrid":
            x = torch.cat([x, *(c_concat or [])], dim=1)
        return self.diffusion_model(x, t, context=torch.cat(c_crossattn, dim=1))


class LatentDiffusion(nn.Module):
    def __init__(
        self, unet: nn.Module, text: nn.Module, *, v: bool = False, conditioning_key: str = "crossattn"
    ) -> None:
        super().__init__()
        self.model = DiffusionWrapper(unet, conditioning_key)
        self.first_stage_model = AutoencoderKL()
        self.cond_stage_model = text
        self.cond_stage_key = "txt"
        self.parameterization = "v" if v else "eps"
        self.scale_factor = 0.18215
        self.register_buffer("alphas_cumprod", alphas_cumprod(), persistent=False)
        self.requires_grad_(False)
        self.eval()

    @contextmanager
    def ema_scope(self) -> Iterator[None]:
        yield

    def apply_model(self, x: Tensor, t: Tensor, cond: dict[str, Any]) -> Tensor:
        return self.model(x, t, **cond)

    def get_learned_conditioning(self, texts: list[str]) -> Tensor:
        return self.cond_stage_model(texts)

    def encode_first_stage(self, x: Tensor) -> DiagonalGaussianDistribution:
        return self.first_stage_model.encode(x)

    def get_first_stage_encoding(self, posterior: DiagonalGaussianDistribution) -> Tensor:
        return self.scale_factor * posterior.sample()

    def decode_first_stage(self, z: Tensor) -> Tensor:
        return self.first_stage_model.decode(z / self.scale_factor)
