"""The vector that SDXL's U-Net gets in a run, against sgm's embedders written out in numpy.

generative-models 45c443b: each number becomes 256 by `timestep_embedding` (modules/diffusionmodules/util.py: cosines,
then sines, of t / 10000^(i/128)), numbers side by side (`ConcatTimestepEmbedderND`), in the order of sd_xl_base.yaml:
the pooled text, original_size_as_tuple, crop_coords_top_left, target_size_as_tuple, each height first.
"""

import numpy as np
import pytest
import torch
from diffusers.models.embeddings import Timesteps
from PIL import Image

from lib_pivotal.config import run_from_dict
from lib_pivotal.ports import Conditioning, SampleRequest
from lib_pivotal.standalone.model import StandaloneHost
from tests.standalone.tiny_families import FIRST, SECOND, make, write
from tests.training.runs import train

PICTURES = {"wide": (200, 100), "tall": (80, 120), "exact": (64, 64)}
"""Width and height in px."""

WANTED = {"wide": [100, 200, 0, 32, 64, 64], "tall": [120, 80, 16, 0, 64, 64], "exact": [64, 64, 0, 0, 64, 64]}
"""With cuts from the middle at 64 px: 200x100 becomes 128x64, 80x120 becomes 64x96."""


def embedded(numbers):
    """`(6 · 256,)` of six numbers, in fp64."""
    frequencies = 10000.0 ** (-np.arange(128) / 128)
    return np.concatenate([np.concatenate([np.cos(n * frequencies), np.sin(n * frequencies)]) for n in numbers])


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    return StandaloneHost.load(write(tmp_path_factory.mktemp("sdxl") / "x.safetensors", make("sdxl")))


@pytest.fixture
def vectors(host):
    """What reaches the U-Net's `label_emb` (diffusers: `add_embedding`) while a test runs, a row a picture."""
    found = []
    hook = host.denoiser.unet.add_embedding.register_forward_pre_hook(
        lambda module, given: found.extend(given[0].detach().double().numpy())
    )
    yield found
    hook.remove()


def test_the_formula_is_diffusers_timesteps():
    numbers = torch.tensor([0.0, 1.0, 64.0, 832.0, 1216.0, 4096.0])
    theirs = Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift=0)(numbers)
    np.testing.assert_allclose(theirs.flatten().numpy(), embedded(numbers.tolist()), atol=5e-4)


def test_pooled_text_then_six_numbers_of_256(host, vectors):
    numbers, pooled = [1216.0, 832.0, 3.0, 40.0, 1024.0, 512.0], torch.linspace(-1, 1, SECOND)[None]
    conditioning = Conditioning(torch.zeros(1, 77, FIRST + SECOND), pooled, torch.tensor([numbers]))
    host.denoiser(torch.zeros(1, 4, 8, 8), torch.tensor([10]), conditioning)
    (vector,) = vectors
    assert np.array_equal(vector[:SECOND], pooled[0].double().numpy())
    np.testing.assert_allclose(vector[SECOND:], embedded(numbers), atol=2e-4)


def test_each_picture_of_a_run_has_its_own_sizes(host, vectors, tmp_path):
    for name, size in PICTURES.items():
        Image.new("RGB", size, (200, 90, 30)).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(f"aoi, {name}")
    run = run_from_dict(
        {
            "name": "x",
            "words": [{"name": "aoi"}],
            "network": {"algorithm": "none"},
            "data": {"folder": str(tmp_path), "resolution_px": 64, "bucketing": False, "crop": "centre"},
            "schedule": {"max_steps": 8, "batch_size": 3},
            "saving": {"state_every_steps": 0},
        }
    )
    ended = train(run, host, output_folder=tmp_path / "out", listener=lambda event: None)
    assert ended.reason == "finished", ended.message
    drawn = {name: embedded(numbers) for name, numbers in WANTED.items()}
    seen = set()
    for vector in vectors:
        distances = {name: float(np.abs(vector[SECOND:] - wanted).max()) for name, wanted in drawn.items()}
        nearest = min(distances, key=distances.__getitem__)
        assert distances[nearest] < 2e-4, distances
        seen.add(nearest)
    assert len(vectors) == 24 and seen == set(PICTURES)


def test_a_picture_that_is_drawn_is_uncut(host, vectors):
    host.sample([SampleRequest("a cat", "", 64, 128, 1, 4.0, 7)], {})
    assert len(vectors) == 2, "with and against the prompt"
    for vector in vectors:
        np.testing.assert_allclose(vector[SECOND:], embedded([128, 64, 0, 0, 128, 64]), atol=2e-4)
    assert not vectors[1][:SECOND].any() or not vectors[0][:SECOND].any(), "an empty negative prompt is all zeros"
