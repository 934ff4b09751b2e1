"""The four rows: parts really off, sheet laid out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from lib_pivotal.errors import HostError, PivotalError
from lib_pivotal.evaluation.parts_grid import ROWS, draw_grid, embedding_requests, parts_pictures
from lib_pivotal.networks.network import build_network
from lib_pivotal.networks.targets import part_rules
from lib_pivotal.ports import SampleRequest

TEMPLATE = SampleRequest("", width_px=64, height_px=64, steps=2, cfg_scale=2.0)


@pytest.fixture
def perturbed(tiny_host):
    rules = part_rules("unet", "attention", rank=2, alpha=2) + part_rules("te", "attention", rank=2, alpha=2)
    network = build_network(tiny_host.layers(), rules, seed=1, device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return network


def test_rows_are_the_parts(tiny_host, perturbed):
    embeddings = {"aoi": (torch.randn(2, 16, generator=torch.Generator().manual_seed(3)),)}
    asked = embedding_requests(["aoi"], ["{word}, smile"], TEMPLATE)
    rows = parts_pictures(tiny_host, asked, embeddings=embeddings, network=perturbed)
    pictures = {label: made[0].tobytes() for label, made in rows.items()}
    assert list(rows) == [row.label for row in ROWS]
    assert len(set(pictures.values())) == 4, "each part changes the picture"
    assert pictures["words only"] == tiny_host.sample(asked, embeddings)[0].tobytes(), "words only is the bare model"
    with perturbed.merged():
        assert pictures["whole"] == tiny_host.sample(asked, embeddings)[0].tobytes(), "as the web UI applies a file"
    with perturbed.attach(), perturbed.with_multipliers(te=0.0):
        hooked = np.asarray(tiny_host.sample(asked, embeddings)[0]).astype(int)
    assert np.abs(hooked - np.asarray(rows["U-Net only"][0])).max() <= 2, "another order of adding up"
    assert perturbed.multipliers["unet"] == 1.0


def test_weights_are_put_back_whatever_happens(tiny_host, perturbed):
    before = {name: tensor.clone() for model in tiny_host.models() for name, tensor in model.state_dict().items()}
    asked = [*embedding_requests(["aoi"], ["{word}"], TEMPLATE), replace(TEMPLATE, steps=0)]
    with pytest.raises(HostError, match="steps = 0"):
        parts_pictures(tiny_host, asked, embeddings={}, network=perturbed)
    after = {name: tensor for model in tiny_host.models() for name, tensor in model.state_dict().items()}
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert perturbed.multipliers == {"unet": 1.0, "te": 1.0, "te2": 1.0}


def test_without_network_all_rows_are_the_embeddings(tiny_host):
    embeddings = {"aoi": (torch.zeros(1, 16),)}
    rows = parts_pictures(
        tiny_host, embedding_requests(["aoi"], ["{word}"], TEMPLATE), embeddings=embeddings, network=None
    )
    assert len({made[0].tobytes() for made in rows.values()}) == 1


def test_requests_put_the_embedding_where_it_is_wanted():
    asked = embedding_requests(["aoi", "hana"], ["photo of {word}", "smile"], TEMPLATE, first_seed=7)
    assert [(request.prompt, request.seed) for request in asked] == [
        ("photo of aoi", 7),
        ("aoi, smile", 8),
        ("photo of hana", 7),
        ("hana, smile", 8),
    ]


def test_grid_has_room_for_all_and_keeps_colours():
    red, blue = (Image.new("RGB", (64, 64), colour) for colour in ("red", "blue"))
    grid = draw_grid({"whole": [red, blue], "words only": [blue, red]}, ["a", "b" * 80], title="t", cell_px=50)
    colours = {colour for _, colour in grid.getcolors(100000)}
    assert (255, 0, 0) in colours and (0, 0, 255) in colours
    assert grid.width > 2 * 50 and grid.height > 2 * 50


def test_grid_refuses_a_row_of_another_length():
    with pytest.raises(PivotalError, match="1 pictures for 2 columns"):
        draw_grid({"whole": [Image.new("RGB", (8, 8))]}, ["a", "b"])
