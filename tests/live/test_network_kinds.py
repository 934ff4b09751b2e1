"""A file of every kind of network in the stock web UI: all its keys are taken, and its picture is that of our change.

The change is given a second time as `.diff` of what our own adapters say (`Adapter.delta`), the plainest form there is.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn

from lib_pivotal.bundle.layer_names import UnetShape, diffusers_path, name_for_webui
from lib_pivotal.bundle.writer import write_bundle
from lib_pivotal.networks.adapter import layer_weight
from lib_pivotal.networks.network import Network, build_network
from lib_pivotal.networks.targets import LayerRule
from lib_pivotal.ports import Layer
from tests.live.conftest import Family
from tests.live.material import UNET, Material, metadata_of
from tests.networks.battery import ROWS
from tests.networks.conftest import perturb_weights

pytestmark = [pytest.mark.webui, pytest.mark.slow]

STRENGTH = 0.2
"""Norm of the change as a part of the weights'."""
SIZES = {"oft": 8, "boft": 8}
"""Rank where the battery's is too small for a change on layers of this size."""


def unet_layers(material: Material) -> list[Layer]:
    """The U-Net's layers as modules without biases, and its norms, under the names that the web UI finds."""
    found = []
    for name, weight in material.unet_layers.items():
        if weight.dim() == 2:
            module: nn.Module = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        else:
            module = nn.Conv2d(weight.shape[1], weight.shape[0], tuple(weight.shape[2:]), bias=False)
        module.weight.data = weight.float()
        found.append(Layer(name, "unet", "linear" if weight.dim() == 2 else "conv", module.requires_grad_(False)))
    paths = {key.removeprefix(UNET): w for key, w in material.weights.items() if key.startswith(UNET)}
    shape = UnetShape.from_compvis_paths(paths)
    for path, weight in paths.items():
        inside = path.startswith(("input_blocks.", "middle_block.", "output_blocks."))
        if inside and path.endswith(".weight") and weight.dim() == 1:
            norm = nn.LayerNorm(weight.shape[0])
            norm.weight.data = weight.float()
            name = name_for_webui(diffusers_path(path.removesuffix(".weight"), shape), shape)
            found.append(Layer(name, "unet", "norm", norm.requires_grad_(False)))
    return found


def made(name: str, layers: list[Layer]) -> Network:
    row = ROWS[name]
    rule = LayerRule("", rank=SIZES.get(row.algorithm, max(row.rank, 4)), alpha=4.0)
    network = build_network(layers, [rule], algorithm=row.algorithm, options=row.options, seed=0, device="cpu")
    return perturb_weights(network.eval(), std=row.std)


def plainly(network: Network) -> tuple[dict[str, torch.Tensor], float]:
    """The same change as `.diff` (of a norm `w_norm`, `b_norm`), and its norm as a part of the weights'."""
    tensors, change, whole = {}, 0.0, 0.0
    for name, adapter in network.adapters.items():
        weight = layer_weight(adapter.layer)
        delta, bias = adapter.delta(weight), adapter.bias_delta()
        change, whole = change + float(delta.square().sum()), whole + float(weight.square().sum())
        norm = adapter.layer.kind == "norm"
        tensors[f"{name}.{'w_norm' if norm else 'diff'}"] = delta
        if bias is not None:
            tensors[f"{name}.{'b_norm' if norm else 'diff_b'}"] = bias
    return tensors, (change / whole) ** 0.5


@pytest.fixture(scope="module")
def layers(material: Material) -> list[Layer]:
    return unet_layers(material)


@pytest.mark.parametrize("name", ROWS)
def test_the_file_is_the_change(stock_webui, family: Family, layers, name):
    stock_webui.use(family.checkpoint.stem)
    network = made(name, layers)
    plain, size = plainly(network)
    pictures, written = {}, len(stock_webui.log_text())
    for title, tensors in (("kind", network.kohya_tensors()), ("plain", plain)):
        stem = f"{title}-{name}-{family.name}"
        path = stock_webui.lora_folder / f"{stem}.safetensors"
        write_bundle(path, network=tensors, embeddings={}, metadata=metadata_of(stem), dtype=torch.float32)
        stock_webui.reload_files()
        prompt = f"<lora:{stem}:0:{STRENGTH / size:.3f}> a face"
        pictures[title] = np.asarray(stock_webui.txt2img(prompt).image, dtype=int)
    said = stock_webui.log_text()[written:]
    assert not re.search(r"didn't match keys|couldn't find supported operation|loading network|Traceback", said), said
    bare = np.asarray(stock_webui.txt2img("a face").image, dtype=int)
    assert abs(pictures["plain"] - bare).max() > 8
    assert (pictures["kind"] == pictures["plain"]).all()
