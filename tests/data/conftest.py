"""A tiny real codec, and folders of pictures made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from PIL import Image
from torch import Tensor, nn

from lib_pivotal.ports import LatentDistribution

# the machine may be busy training: time says nothing about correctness
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


class ConvCodec(nn.Module):
    """Eight pixels to one latent through one strided convolution; the last four channels give the spread."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(3, 8, kernel_size=8, stride=8)
        self.seed = seed
        self.calls: list[tuple[int, ...]] = []

    @property
    def fingerprint(self) -> str:
        return f"conv-{self.seed}"

    def encode(self, pixels: Tensor) -> LatentDistribution:
        self.calls.append(tuple(pixels.shape))
        mean, spread = self.conv(pixels).chunk(2, dim=1)
        return LatentDistribution(mean=mean, std=spread.abs() * 0.1)

    def decode(self, latents: Tensor) -> Tensor:
        return nn.functional.interpolate(latents[:, :3], scale_factor=8).clamp(-1, 1)


@pytest.fixture
def codec() -> ConvCodec:
    return ConvCodec()


@pytest.fixture
def make_codec() -> type[ConvCodec]:
    return ConvCodec


@pytest.fixture
def add(tmp_path: Path) -> Callable[..., Path]:
    """`add("hanako/1.png", (64, 48), caption="a, b")` writes a picture (each of its own colours) below tmp_path."""

    def write(
        name: str, size: tuple[int, int] = (64, 64), *, caption: str | None = None, seed: int | None = None
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        generator = torch.Generator().manual_seed(seed if seed is not None else sum(name.encode()))
        pixels = torch.randint(0, 256, (size[1], size[0], 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(path)
        if caption is not None:
            path.with_suffix(".txt").write_text(caption, encoding="utf-8")
        return path

    return write
