"""DoRA against the web UI's formula and against plain autograd with the norm held constant."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib_pivotal.errors import NetworkError
from lib_pivotal.networks.adapter import AdapterSpec
from lib_pivotal.networks.kinds.dora import DoraAdapter
from lib_pivotal.ports import Layer

MODULES = {"linear": lambda: nn.Linear(5, 7), "conv": lambda: nn.Conv2d(5, 7, 3, stride=2, padding=1)}


def make(kind):
    torch.manual_seed(0)
    module = MODULES[kind]().requires_grad_(False)
    layer = Layer("lora_unet_layer", "unet", kind, module)
    adapter = DoraAdapter(
        layer, AdapterSpec(rank=2, alpha=3.0), generator=torch.Generator().manual_seed(0), device=torch.device("cpu")
    )
    nn.init.normal_(adapter.up)
    with torch.no_grad():
        adapter.magnitude.mul_(torch.rand_like(adapter.magnitude) + 0.5)
    x = torch.randn(3, 5) if kind == "linear" else torch.randn(3, 5, 8, 8)
    return adapter, x.requires_grad_()


def through(adapter, x):
    handles = adapter.attach()
    try:
        return adapter.layer.module(x)
    finally:
        for handle in handles:
            handle.remove()


def web_ui_updown(tensors, weight, *, multiplier):
    """`calc_updown`, `finalize_updown` and `apply_weight_decompose` of v1.10.1 (extensions-builtin/Lora), in numpy's
    manner: one loop over input channels instead of transpositions."""
    up, down = tensors["lora_up.weight"].flatten(1), tensors["lora_down.weight"].flatten(1)
    change = (up @ down).reshape(weight.shape) * (tensors["alpha"] / down.shape[0])
    result = torch.empty_like(weight)
    for channel in range(weight.shape[1]):
        merged = (weight + change)[:, channel]
        result[:, channel] = merged / merged.square().sum().sqrt() * tensors["dora_scale"][0, channel]
    return (result - weight) * multiplier


@pytest.mark.parametrize("kind", MODULES)
def test_the_web_ui_gives_the_same_weights(kind):
    adapter, _ = make(kind)
    weight = adapter.layer.module.weight
    tensors = {key: value.detach() for key, value in adapter.kohya_tensors().items()}
    torch.testing.assert_close(adapter.delta(weight), web_ui_updown(tensors, weight, multiplier=1.0))


@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("multiplier", [1.0, 0.4, -0.5])
def test_gradients_equal_plain_autograd_with_a_constant_norm(kind, multiplier):
    adapter, x = make(kind)
    adapter.switch.value = multiplier
    module, parameters = adapter.layer.module, [adapter.down, adapter.up, adapter.magnitude]
    weight = module.weight
    direction = weight + 1.5 * (adapter.up.flatten(1) @ adapter.down.flatten(1)).view(weight.shape)
    axes = [axis for axis in range(weight.dim()) if axis != 1]
    norm = direction.detach().square().sum(dim=axes, keepdim=True).sqrt()
    whole = weight + multiplier * (adapter.magnitude * direction / norm - weight)
    if kind == "linear":
        plain = F.linear(x, whole, module.bias)
    else:
        plain = F.conv2d(x, whole, module.bias, stride=2, padding=1)
    ours = through(adapter, x)
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)
    expected = torch.autograd.grad(plain.square().sum(), [x, *parameters])
    got = torch.autograd.grad(ours.square().sum(), [x, *parameters])
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_one_magnitude_an_output_is_refused():
    """peft's and newer LyCORIS's layout, which v1.10.1 would broadcast into nonsense."""
    adapter, _ = make("linear")
    tensors = {**adapter.kohya_tensors(), "dora_scale": torch.ones(7, 1)}
    with pytest.raises(NetworkError, match=r"dora_scale has shape \(7, 1\), expected \(1, 5\)"):
        adapter.load(tensors)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_magnitudes_near_one_survive_half_types(dtype):
    """c = 1 + step / 4 would round back to 1 on inputs of that type; the change must still arrive."""
    linear = nn.Linear(64, 1, bias=False).to(dtype).requires_grad_(False)
    nn.init.constant_(linear.weight, 1.0)
    layer = Layer("lora_unet_layer", "unet", "linear", linear)
    spec = AdapterSpec(rank=1, alpha=1.0)
    adapter = DoraAdapter(layer, spec, generator=torch.Generator(), device=torch.device("cpu"))
    step = torch.finfo(dtype).eps / 4
    with torch.no_grad():
        adapter.magnitude.mul_(1.0 + step)
    # half of the sum cancels, so that the change is not below the output's own step
    x = torch.ones(1, 64, dtype=dtype)
    x[:, ::2] = -1.0
    with torch.no_grad():
        adapter.magnitude[:, ::2] = 1.0 * adapter.magnitude[:, ::2] / (1.0 + step)
    assert through(adapter, x).item() == pytest.approx(32 * step, rel=0.02)
