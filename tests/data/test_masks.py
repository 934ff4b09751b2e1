"""Soft masks: scales, grids, means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lib_pivotal.data.buckets import Bucket, Buckets, fit, place
from lib_pivotal.data.dataset import scan
from lib_pivotal.data.masks import (
    cut_out,
    grey_to_weight,
    heat_map,
    inpaint_hole,
    latent_mask,
    mask_place,
    normalised,
    paint,
    read_mask,
    remove_mask,
    save_mask,
    shown_area,
    to_latent_grid,
    with_temperature,
)
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


def test_hcp_exact_by_hand() -> None:
    """What HCP's lines do (`get_att_mask`, `resize_crop_fix`, `cv2.resize` to the latents), in its two steps.

    At the picture's own size the first resize does nothing; OpenCV's bilinear shrinking by 8 takes the four pixels
    around the middle of each 8x8 block.
    """
    grey = Image.fromarray(np.random.default_rng(3).integers(0, 256, (64, 64), dtype=np.uint8))
    mask = latent_mask(grey, None, placement=SQUARE.assign(64, 64), scale="hcp_exact", normalise=True, minimum=0.5)
    values = np.asarray(grey).astype(float)
    weights = np.where(values <= 127, values / 127.0, (values - 127) / 128.0 * 4 + 1)
    blocks = weights.reshape(8, 8, 8, 8)[:, 3:5, :, 3:5].mean((1, 3))
    assert mask is not None and torch.allclose(mask[0].double(), torch.from_numpy(blocks), atol=1e-4)
    large = latent_mask(grey.resize((256, 256)), None, placement=SQUARE.assign(256, 256), scale="hcp_exact")
    assert large is not None and large.shape == (1, 8, 8) and float(large.min()) >= 0.0


def test_cloneofsimos_temperature() -> None:
    """Their loss is the mean square of prediction·m - target·m."""
    values = np.random.default_rng(4).integers(0, 256, (64, 64), dtype=np.uint8)
    prediction, target = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for temperature in (0.5, 1.0, 3.0):
        m = (torch.from_numpy(values[::8, ::8] / 255.0).float() + 0.01).pow(temperature)
        m = m / m.max()
        theirs = torch.nn.functional.mse_loss(prediction * m, target * m)
        mask = latent_mask(
            Image.fromarray(values), None, placement=SQUARE.assign(64, 64), scale="cloneofsimo", temperature=temperature
        )
        assert mask is not None
        assert torch.allclose(((prediction - target).square() * mask).mean(), theirs, rtol=1e-5)
    assert float(with_temperature(torch.tensor([0.0, 1.0]), 1.0).max()) == 1.0


def test_the_shown_area_is_custom_diffusions() -> None:
    """Their slices: [left // 8 + 1, (left + size) // 8 - 1) in both directions, and the mean of the loss over them."""
    for size in (171, 200, 300):
        for at in ((0.1, 0.7), (0.5, 0.5), (0.31, 0.99)):
            placement = place(512, 512, bucket=Bucket(512, 512), zoom=size / 512, at=at)
            left, top = -placement.left_px, -placement.top_px
            expected = torch.zeros(64, 64)
            expected[top // 8 + 1 : (top + size) // 8 - 1, left // 8 + 1 : (left + size) // 8 - 1] = 1.0
            area = shown_area(placement)
            assert area is not None and torch.equal((area[0] > 0).float(), expected)
            errors = torch.rand(64, 64)
            assert torch.allclose((errors * area[0]).mean(), (errors * expected).sum() / expected.sum(), rtol=1e-4)


def test_the_shown_area_of_a_bordered_picture() -> None:
    assert shown_area(SQUARE.assign(64, 64)) is None
    area = shown_area(fit(128, 32, bucket=Bucket(128, 64)))  # rows 16 to 48, from end to end
    assert area is not None and (area[0, :, 0] > 0).tolist() == [False, False, False, True, True, False, False, False]
    assert bool((area[0, 3] > 0).all()) and float(area.mean()) == pytest.approx(1.0)
    tiny = shown_area(place(64, 64, bucket=Bucket(64, 64), zoom=0.2, at=(0.5, 0.5)))  # pixels 25 to 38
    assert tiny is not None and float(tiny.sum()) == pytest.approx(64.0)
    assert (tiny[0, 4] > 0).tolist() == [False, False, False, True, True, False, False, False]


def test_masks_beside_a_bordered_picture() -> None:
    placement = fit(128, 32, bucket=Bucket(128, 64))
    area = shown_area(placement)
    white = latent_mask(Image.new("L", (128, 32), 255), None, placement=placement, normalise=False)
    assert area is not None and white is not None and torch.allclose(white, area)
    half = latent_mask(_half((128, 32)), None, placement=placement)
    assert half is not None and float(half.mean()) == pytest.approx(1.0)
    assert half[0, 3, :8].min() > 0 and half[0, 3, 9:].max() == 0.0 and half[0, 0].max() == 0.0


def test_cutting_out() -> None:
    numbers = torch.arange(64.0).reshape(1, 8, 8)
    inside = place(8, 8, bucket=Bucket(4, 4), zoom=2.0, at=(0.25, 1.0))
    assert torch.equal(cut_out(numbers, inside), numbers[:, 4:8, 1:5])
    beside = place(8, 8, bucket=Bucket(16, 16), zoom=0.5, at=(0.0, 1.0))
    cut = cut_out(numbers, beside, beside=-1.0)
    assert torch.equal(cut[:, 8:, :8], numbers) and float(cut[:, :8].max()) == float(cut[:, :, 8:].max()) == -1.0
    hole = inpaint_hole(Image.new("L", (8, 8), 0), placement=beside)
    assert hole[0, 8:, :8].max() == 0.0 and hole.sum() == 256 - 64


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


@pytest.mark.parametrize("others", [False, True])
def test_the_scan_finds_what_was_painted(tmp_path: Path, add: Callable[..., Path], others: bool) -> None:
    path = add("set/a/Aoi.1.png", (80, 40), caption="x")
    if others:  # masks in every other place, which the painted one comes before
        for name in (
            "set/a/masks/Aoi.1.png",
            "set/mask/a/Aoi.1.png",
            "set/a/Aoi.1-masklabel.png",
            "set/a/mask/Aoi.1.jpg",
        ):
            add(name, (80, 40))
    painted = Image.new("L", (40, 20), 0)
    painted.paste(130, (0, 0, 20, 20))
    place = save_mask(path, painted)
    picture = scan(tmp_path / "set")["a/Aoi.1.png"]
    assert picture.mask_path == place == mask_place(path)
    assert np.array_equal(np.asarray(read_mask(place)), np.asarray(painted))
    save_mask(path, Image.new("RGB", (80, 40), (255, 255, 255)))
    assert np.asarray(read_mask(place)).min() == 255
    assert remove_mask(path) and not remove_mask(path)
    assert (scan(tmp_path / "set")["a/Aoi.1.png"].mask_path is None) != others


def test_transparent_paint_is_black(tmp_path: Path, add: Callable[..., Path]) -> None:
    path = add("a.png")
    painted = Image.new("RGBA", (64, 64), (255, 255, 255, 0))
    painted.paste((255, 255, 255, 255), (0, 0, 32, 64))
    grey = np.asarray(read_mask(save_mask(path, painted)))
    assert grey[:, :32].min() == 255 and grey[:, 32:].max() == 0


def test_a_turned_picture_is_painted_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 40), "red").save(tmp_path / "a.jpg", exif=exif)
    save_mask(tmp_path / "a.jpg", Image.new("L", (40, 80), 255))
    with pytest.raises(DataError, match="80x40 px does not fit a picture of 40x80"):
        save_mask(tmp_path / "a.jpg", Image.new("L", (80, 40), 255))


def test_an_existing_folder_of_any_case_is_used(tmp_path: Path, add: Callable[..., Path]) -> None:
    path = add("a.png")
    (tmp_path / "Mask").mkdir()
    assert save_mask(path, Image.new("L", (64, 64), 255)) == tmp_path / "Mask" / "a.png"
    assert scan(tmp_path)["a.png"].mask_path == tmp_path / "Mask" / "a.png"


def test_a_failed_write_leaves_the_old_mask(tmp_path: Path, add: Callable[..., Path], monkeypatch) -> None:
    path = add("a.png")
    place = save_mask(path, Image.new("L", (64, 64), 77))

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DataError, match="No space left"):
        save_mask(path, Image.new("L", (64, 64), 255))
    monkeypatch.undo()
    assert np.asarray(read_mask(place)).max() == 77
    assert [item.name for item in place.parent.iterdir()] == ["a.png"]


def test_painting() -> None:
    strokes = Image.new("RGB", (20, 10), 0)
    strokes.paste((255, 255, 255), (0, 0, 10, 10))
    fresh = np.asarray(paint(None, strokes, weight=1.0, rest=0.2, size=(40, 20)))
    assert fresh.shape == (20, 40) and fresh[:, :18].min() == 255 and set(fresh[:, 22:].ravel()) == {51}
    now = Image.new("L", (8, 4), 200)
    over = np.asarray(paint(now, strokes, weight=0.5, rest=0.0, size=(40, 20)))
    assert set(over[:, :18].ravel()) == {128} and set(over[:, 22:].ravel()) == {200}
    assert np.asarray(now).max() == 200  # the old mask is not touched
    untouched = paint(now, Image.new("L", (20, 10), 0), weight=1.0, rest=0.0, size=(8, 4))
    assert np.array_equal(np.asarray(untouched), np.asarray(now))


def test_heat_map() -> None:
    shown = np.asarray(heat_map(Image.new("RGB", (8, 8), (90, 90, 90)), Image.linear_gradient("L"))).astype(int)
    assert shown.shape == (8, 8, 3) and shown[0, 0, 0] - shown[0, 0, 2] < 30 < shown[7, 0, 0] - shown[7, 0, 2]
