"""Output and gradients of each kind against LyCORIS' dense path, which builds the whole weight (lycoris-lora 4.1.3)."""

from __future__ import annotations

import copy
from operator import attrgetter

import pytest
import torch
from torch import nn

from lib_pivotal.networks.network import build_network
from lib_pivotal.networks.targets import LayerRule
from lib_pivotal.ports import Layer
from tests.networks.battery import ROWS

modules = pytest.importorskip("lycoris.modules")

LAYERS = {
    "linear": lambda: nn.Linear(24, 32),
    "1x1": lambda: nn.Conv2d(8, 16, 1),
    "3x3": lambda: nn.Conv2d(8, 16, 3, padding=1),
    "strided": lambda: nn.Conv2d(8, 16, 3, stride=2, padding=1),
    "norm": lambda: nn.LayerNorm(24),
    "group norm": lambda: nn.GroupNorm(2, 8),
}


def decomposed(row):
    """LyCORIS' DoRA along the axis that the web UI has; its own is the other unless told."""
    return {"weight_decompose": True, "wd_on_out": False} if row.options.get("weight_decompose") else {}


THEIRS = {
    "lora": lambda row: (
        modules.LoConModule,
        {"use_tucker": bool(row.options.get("tucker")), "rs_lora": bool(row.options.get("rank_stabilised"))},
    ),
    "dora": lambda row: (
        modules.LoConModule,
        {"use_tucker": bool(row.options.get("tucker")), "weight_decompose": True, "wd_on_out": False},
    ),
    "loha": lambda row: (modules.LohaModule, {"use_tucker": bool(row.options.get("tucker")), **decomposed(row)}),
    "lokr": lambda row: (
        modules.LokrModule,
        {
            "factor": row.options["factor"],
            "decompose_both": bool(row.options.get("decompose_both")),
            "full_matrix": bool(row.options.get("full_matrix")),
            "use_tucker": bool(row.options.get("tucker")),
            **decomposed(row),
        },
    ),
    "ia3": lambda row: (modules.IA3Module, {"train_on_input": row.options.get("on_input") == "all"}),
    "oft": lambda row: (
        modules.DiagOFTModule,
        {"constraint": row.options.get("constraint", 0), "rescaled": "rescale" in row.options},
    ),
    "boft": lambda row: (
        modules.ButterflyOFTModule,
        {"constraint": row.options.get("constraint", 0), "rescaled": "rescale" in row.options},
    ),
    "full": lambda row: (modules.FullModule, {}),
    "norm": lambda row: (modules.NormModule, {}),
}
OUR_NAMES = {
    "down": "lora_down.weight",
    "mid": "lora_mid.weight",
    "up": "lora_up.weight",
    "magnitude": "dora_scale",
}
"""A parameter's suffix in files, where that is not its name."""
NOT_SO_THERE = {
    ("ia3", "1x1"): "its factor of a convolution's outputs meets the inputs",
    ("ia3", "3x3"): "its factor of a convolution's outputs meets the inputs",
    ("ia3", "strided"): "its factor of a convolution's outputs meets the inputs",
}
"""Where LyCORIS itself gives another change, or none."""


def sort_of(module):
    return {nn.Linear: "linear", nn.Conv2d: "conv"}.get(type(module), "norm")


def input_of(module):
    if isinstance(module, nn.Conv2d | nn.GroupNorm):
        return torch.randn(2, module.in_channels if isinstance(module, nn.Conv2d) else 8, 6, 6)
    return torch.randn(2, 5, 24)


CASES = [
    (name, place)
    for name, row in ROWS.items()
    for place in LAYERS
    if row.algorithm in THEIRS
    and row.options.get("start") is None  # its file is another LoRA than what is trained
    and (row.algorithm == "norm") == (place in ("norm", "group norm"))
    and (name, place) not in NOT_SO_THERE
]


@pytest.mark.parametrize(("name", "place"), CASES)
def test_output_and_gradients(name, place):
    torch.manual_seed(0)
    row, module = ROWS[name], LAYERS[place]().requires_grad_(False)
    layer = Layer("lora_unet_layer", "unet", sort_of(module), module)
    network = build_network(
        [layer],
        [LayerRule("", rank=row.rank, alpha=2.0)],
        algorithm=row.algorithm,
        options=row.options,
        seed=0,
        device="cpu",
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * row.std)
    kind, settings = THEIRS[row.algorithm](row)
    # LyCORIS takes the weight off the layer that it adapts (full): its copy is its own
    theirs = kind("layer", copy.deepcopy(module), lora_dim=row.rank, alpha=2.0, **settings)
    theirs.apply_to()
    own = {key.partition(".")[2]: tensor for key, tensor in network.kohya_tensors().items()}
    parameters = their_parameters(theirs, own, module)
    x = input_of(module).requires_grad_()
    weights = torch.randn_like(module(x))
    expected = torch.autograd.grad((theirs.org_module[0](x) * weights).sum(), [x, *parameters.values()])
    with network.attach():
        ours = module(x)
        found = torch.autograd.grad((ours * weights).sum(), [x, *network.adapters["lora_unet_layer"].parameters()])
    torch.testing.assert_close(ours, theirs.org_module[0](x), rtol=1e-4, atol=1e-4)
    gradients = dict(zip(parameters, expected[1:], strict=True))
    torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-4)
    held = "dora_scale" in own  # LyCORIS' gradient goes through the norm too, which the paper holds constant (eq. 11)
    for (name, _), gradient in zip(network.adapters["lora_unet_layer"].named_parameters(), found[1:], strict=True):
        suffix = OUR_NAMES.get(name.rpartition(".")[2], name.rpartition(".")[2])
        if held and suffix != "dora_scale":
            continue
        torch.testing.assert_close(gradient, gradients[suffix].reshape(gradient.shape), rtol=1e-3, atol=1e-3)


def their_parameters(theirs, own, module):
    """LyCORIS' parameters by our suffixes, holding our numbers."""
    names = {"diff": "weight", "diff_b": "bias"} if "diff" in own else {}
    found = {}
    with torch.no_grad():
        for suffix, tensor in own.items():
            if suffix in ("alpha", "on_input"):
                continue
            parameter = attrgetter(names.get(suffix, suffix))(theirs)
            start = getattr(module, names[suffix]) if suffix in names else 0.0  # it trains the whole weight
            parameter.copy_(tensor.reshape(parameter.shape) + start)
            found[suffix] = parameter
    return found
