"""Drift, obedience and diversity, by hand on a tiny real model."""

import pytest
import torch
from PIL import Image

from lib_pivotal.evaluation.separation import TIMESTEPS
from lib_pivotal.evaluation.step_measures import diversity, drift, obedience, other_tags, swapped_captions
from lib_pivotal.networks.network import build_network
from lib_pivotal.networks.targets import part_rules
from lib_pivotal.ports import TrainingBatch
from lib_pivotal.training.objective import Objective
from lib_pivotal.training.schedule import NoiseSchedule
from lib_pivotal.training.step import MicroStep

CAPTIONS = ("aoi, park, smile", "aoi, sea")


@pytest.fixture
def micro(tiny_host):
    schedule = NoiseSchedule(tiny_host.alphas_cumprod)
    device = torch.device("cpu")
    return MicroStep(tiny_host.text, tiny_host.denoiser, schedule=schedule, objective=Objective(), device=device)


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(5)
    return [
        TrainingBatch(torch.randn(1, 4, 8, 8, generator=generator), [text], None, torch.ones(1), [text], [("aoi",)])
        for text in CAPTIONS
    ]


@pytest.fixture
def vectors():
    return {"aoi": (torch.randn(2, 16, generator=torch.Generator().manual_seed(1)),)}


def network_of(host, *, scale):
    network = build_network(host.layers(), part_rules("unet", "attention", rank=2, alpha=2), seed=1, device="cpu")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(0)).mul_(scale)
    return network


def test_swapped_captions():
    assert swapped_captions(CAPTIONS, ["aoi"]) == ["aoi, sea", "aoi, park, smile"]
    assert swapped_captions(["aoi, park", "hana, park", "hana, sea"], ["aoi", "hana"]) == [
        "aoi, sea", "hana, sea", "hana, park",
    ]  # fmt: skip
    assert swapped_captions(["aoi", "aoi"], ["aoi"]) == ["aoi", "aoi"]
    assert other_tags("Aoi,  park , (smile:1.2)", ["aoi"]) == ["park", "(smile:1.2)"]


def test_obedience_is_the_rise_of_the_loss(micro, batches, vectors):
    def loss(captions):
        total = 0.0
        for batch, caption in zip(batches, captions, strict=True):
            asked = TrainingBatch(batch.latents, [caption], None, torch.ones(1), batch.keys)
            for timestep in TIMESTEPS:
                seeds, when = (9_115_020, 0), torch.tensor([timestep])
                total += micro.losses(asked, vectors, seeds=seeds, timesteps=when).item()
        return total

    own, swapped = loss(CAPTIONS), loss(("aoi, sea", "aoi, park, smile"))
    assert own != swapped
    assert obedience(micro, batches, vectors) == pytest.approx((swapped - own) / own, abs=1e-9)
    assert obedience(micro, batches[:1], vectors) is None, "nothing to swap with"


def test_drift_grows_with_the_network_and_is_none_without(micro, batches, tiny_host):
    assert drift(micro, batches, None) == 0.0
    found = []
    for scale in (0.0, 0.3, 1.0):
        network = network_of(tiny_host, scale=scale)
        with network.attach():
            found.append(drift(micro, batches, network))
            assert network.multipliers == {"unet": 1.0, "te": 1.0, "te2": 1.0} or network.multipliers
    assert found[0] == 0.0 < found[1] < found[2]


def test_drift_looks_at_captions_without_the_embedding(micro, batches, tiny_host):
    """An embedding's vectors do not enter: by hand for one batch and timestep-wise sums."""
    network = network_of(tiny_host, scale=1.0)
    from lib_pivotal.training.seeds import derived_generator

    noise = torch.randn(1, 4, 8, 8, generator=derived_generator("noise", 9_115_020, 0, 0))
    with network.attach(), torch.no_grad():
        found = drift(micro, batches[:1], network)
        text = tiny_host.text.encode(["park, smile"], {})
        changed = whole = 0.0
        for timestep in TIMESTEPS:
            when = torch.tensor([timestep])
            on = tiny_host.denoiser(noise, when, text)
            with network.with_multipliers(unet=0.0, te=0.0):
                off = tiny_host.denoiser(noise, when, text)
            changed, whole = changed + (on - off).square().sum().item(), whole + off.square().sum().item()
    assert found == pytest.approx(changed / whole, rel=1e-5)


def test_diversity():
    black, white = Image.new("RGB", (4, 4)), Image.new("RGB", (4, 4), "white")
    assert diversity([black, white]) == 1.0 and diversity([white, white]) == 0.0
    assert diversity([black, white, white]) == pytest.approx(2 / 3)
    assert diversity([black]) is None
