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
    losses = PartLosses(whole=0.1, unet=0.12, te=0.18, embeddings=0.15, base=0.2)
    assert losses.share_of_embeddings == pytest.approx(0.5)
    assert math.isnan(PartLosses(0.2, 0.2, 0.2, 0.2, 0.2).share_of_embeddings)


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
    embeddings = {"aoi": (torch.randn(2, 16, generator=generator),)}
    initial = {"aoi": (torch.zeros(2, 16),)}
    with network.attach():
        found = separation(micro, {"aoi": [batch]}, embeddings=embeddings, initial_embeddings=initial, network=network)[
            "aoi"
        ]
    assert found.te == found.embeddings, "no text encoder network: its row is the words"
    assert found.whole == found.unet != found.embeddings
    assert found.embeddings != found.base
    alone = separation(micro, {"aoi": [batch]}, embeddings=embeddings, initial_embeddings=initial, network=None)["aoi"]
    assert alone.embeddings == found.embeddings and alone.base == found.base
    known = {"aoi": found.base}
    with network.attach():
        short = separation(
            micro,
            {"aoi": [batch]},
            embeddings=embeddings,
            initial_embeddings={"aoi": (torch.ones(2, 16),)},
            network=network,
            base=known,
        )["aoi"]
    assert short == found, "base losses that are known are not measured"
    again = separation(micro, {"aoi": [batch]}, embeddings=embeddings, initial_embeddings=initial, network=None)["aoi"]
    assert again == alone, "fixed noise and timesteps"
