"""Soft masks: scales, grids, means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lib_pivotal.data.buckets import Buckets
from lib_pivotal.data.masks import grey_to_weight, latent_mask, normalised, read_mask, to_latent_grid
from lib_pivotal.errors import DataError

SQUARE = Buckets(64, bucketing=False)


def _half(size: tuple[int, int] = (64, 64)) -> Image.Image:
    """Left half white, right half black."""
    image = Image.new("L", size, 0)
    image.paste(255, (0, 0, size[0] // 2, size[1]))
    return image


def test_hcps_figures() -> None:
    """0/25/50/75/100 % grey weigh 0/.504/1.031/3.0/5.0, as measured on HCP's own code."""
    weights = grey_to_weight(np.array([0, 64, 127, 128, 191, 255], dtype=np.uint8), scale="hcp")
    assert weights.tolist() == pytest.approx([0.0, 0.504, 1.0, 1.031, 3.0, 5.0], abs=1e-3)
    assert grey_to_weight(np.array([0, 51, 255], dtype=np.uint8), scale="linear").tolist() == pytest.approx([0, 0.2, 1])


def test_the_grid_is_the_mean_over_area() -> None:
    weights = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    grid = to_latent_grid(weights, SQUARE.assign(64, 64))
    expected = torch.nn.functional.avg_pool2d(torch.from_numpy(weights)[None], 8)
    assert grid.shape == (1, 8, 8)
    assert torch.allclose(grid, expected, atol=1e-5)


def test_the_grid_follows_the_crop() -> None:
    placement = SQUARE.assign(128, 64)  # the middle 64 of 128 columns are trained
    weights = np.zeros((64, 128), dtype=np.float32)
    weights[:, 32:64] = 1.0
    grid = to_latent_grid(weights, placement)
    assert grid[0, :, :4].min() == 1.0 and grid[0, :, 4:].max() == 0.0
    smaller = to_latent_grid(weights[::2, ::2], placement)  # a mask of half its picture's size
    assert torch.equal(grid, smaller)


def test_mask_times_alpha() -> None:
    alpha = Image.new("L", (64, 64), 255)
    alpha.paste(0, (0, 0, 64, 32))  # the upper half is transparent
    mask = latent_mask(_half(), alpha, placement=SQUARE.assign(64, 64), normalise=False)
    assert mask is not None
    assert mask[0, 4:, :4].min() == 1.0 and mask.sum() == 16.0
    assert latent_mask(None, None, placement=SQUARE.assign(64, 64)) is None


def test_normalised_minimum_and_flip() -> None:
    placement = SQUARE.assign(64, 64)
    mask = latent_mask(_half(), None, placement=placement)
    assert mask is not None and float(mask.mean()) == pytest.approx(1.0) and float(mask.max()) == pytest.approx(2.0)
    soft = latent_mask(_half(), None, placement=placement, minimum=0.1, normalise=False)
    assert soft is not None and float(soft.min()) == pytest.approx(0.1)
    turned = latent_mask(_half(), None, placement=placement, flip=True)
    assert turned is not None and torch.equal(turned, mask.flip(-1))
    hcp = latent_mask(_half(), None, placement=placement, scale="hcp", normalise=False)
    assert hcp is not None and float(hcp.max()) == pytest.approx(5.0)


@given(st.binary(min_size=64, max_size=64).filter(lambda values: sum(values) > 50))
def test_any_mask_has_mean_one(values: bytes) -> None:
    image = Image.fromarray(np.frombuffer(values, dtype=np.uint8).reshape(8, 8))
    mask = latent_mask(image, None, placement=SQUARE.assign(8, 8))
    assert mask is not None and float(mask.mean()) == pytest.approx(1.0, abs=1e-4) and float(mask.min()) >= 0.0


def test_refusals() -> None:
    with pytest.raises(DataError, match="black"):
        normalised(torch.zeros(1, 8, 8))
    with pytest.raises(DataError, match=r"minimum = 1\.5"):
        latent_mask(None, None, placement=SQUARE.assign(8, 8), minimum=1.5)


def test_read_mask_turns_and_blackens(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    _half().save(tmp_path / "turned.png", exif=exif.tobytes())
    assert read_mask(tmp_path / "turned.png").getpixel((60, 5)) == 255
    Image.new("RGBA", (8, 8), (255, 255, 255, 0)).save(tmp_path / "clear.png")
    assert read_mask(tmp_path / "clear.png").getpixel((4, 4)) == 0
