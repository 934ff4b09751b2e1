"""The share of the words, against losses computed by hand with parts off."""

import math

import pytest
import torch

from lib_pivotal.evaluation.separation import PartLosses, separation
from lib_pivotal.networks.network import build_network
from lib_pivotal.networks.targets import part_rules
from lib_pivotal.ports import TrainingBatch
from lib_pivotal.training.objective import Objective
from lib_pivotal.training.schedule import NoiseSchedule
from lib_pivotal.training.step import MicroStep


def test_share_formula():
    losses = PartLosses(whole=0.1, unet=0.12, te=0.18, words=0.15, base=0.2)
    assert losses.share_of_words == pytest.approx(0.5)
    assert losses.share_of_unet == pytest.approx(0.8)
    assert math.isnan(PartLosses(0.2, 0.2, 0.2, 0.2, 0.2).share_of_words)


def test_parts_are_off_where_they_should_be(tiny_host):
    micro = MicroStep(
        tiny_host.text,
        tiny_host.denoiser,
        schedule=NoiseSchedule(tiny_host.alphas_cumprod),
        objective=Objective(),
        device=torch.device("cpu"),
    )
    network = build_network(tiny_host.layers(), part_rules("unet", "attention", rank=2, alpha=2), seed=1, device="cpu")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(5)
    batch = TrainingBatch(torch.randn(1, 4, 8, 8, generator=generator), ["aoi"], None, torch.ones(1), ["k"])
    words = {"aoi": (torch.randn(2, 16, generator=generator),)}
    initial = {"aoi": (torch.zeros(2, 16),)}
    with network.attach():
        found = separation(micro, {"aoi": [batch]}, words=words, initial_words=initial, network=network)["aoi"]
    assert found.te == found.words, "no text encoder network: its row is the words"
    assert found.whole == found.unet != found.words
    assert found.words != found.base
    alone = separation(micro, {"aoi": [batch]}, words=words, initial_words=initial, network=None)["aoi"]
    assert alone.words == found.words and alone.base == found.base
    again = separation(micro, {"aoi": [batch]}, words=words, initial_words=initial, network=None)["aoi"]
    assert again == alone, "fixed noise and timesteps"
