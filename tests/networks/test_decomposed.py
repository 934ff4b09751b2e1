"""DoRA over other kinds, along either axis: against plain autograd with the norm held constant, and LyCORIS' files."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib_pivotal.networks.adapter import AdapterSpec, layer_weight
from lib_pivotal.networks.decomposed import DecomposedAdapter
from lib_pivotal.networks.kinds import loha, lokr, lora_forms
from lib_pivotal.networks.network import Network
from lib_pivotal.ports import Layer

MODULES = {"linear": lambda: nn.Linear(6, 8), "conv": lambda: nn.Conv2d(6, 8, 3, stride=2, padding=1)}
INNER = {
    "lora": (lora_forms.make_lora, lora_forms.LoraOptions()),
    "tucker": (lora_forms.make_lora, lora_forms.LoraOptions(tucker=True)),
    "loha": (loha.make_loha, loha.LohaOptions()),
    "lokr": (lokr.make_lokr, lokr.LokrOptions(factor=2)),
}
pytestmark = pytest.mark.usefixtures("either_path")


def make(kind, name, *, on_outputs):
    torch.manual_seed(0)
    layer = Layer("lora_unet_layer", "unet", kind, MODULES[kind]().requires_grad_(False))
    build, options = INNER[name]
    inner = build(
        layer,
        AdapterSpec(rank=2, alpha=3.0),
        options=options,
        generator=torch.Generator().manual_seed(0),
        device=torch.device("cpu"),
    )
    adapter = DecomposedAdapter(inner, on_outputs=on_outputs)
    with torch.no_grad():
        for parameter in inner.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
        adapter.magnitude.mul_(torch.rand_like(adapter.magnitude) + 0.5)
    return adapter, torch.randn(3, 6) if kind == "linear" else torch.randn(3, 6, 8, 8)


def through(adapter, x):
    handles = adapter.attach()
    try:
        return adapter.layer.module(x)
    finally:
        for handle in handles:
            handle.remove()


def product(module, x, weight):
    return F.linear(x, weight) if isinstance(module, nn.Linear) else F.conv2d(x, weight, stride=2, padding=1)


def inner_change(adapter):
    """`ΔW` with its gradient: read off the inner adapter's output for every unit input."""
    module = adapter.layer.module
    shape = module.weight.shape
    if isinstance(module, nn.Linear):
        eye = torch.eye(shape[1])
        return adapter.inner.apply_to(torch.zeros(shape[1], shape[0]), eye).t()
    x = torch.zeros(shape[1] * 9, shape[1], 8, 8)
    for i in range(shape[1]):
        for k in range(9):
            x[i * 9 + k, i, 1 + k // 3, 1 + k % 3] = 1.0  # under the kernel whose centre is pixel (2, 2), padded by 1
    y = adapter.inner.apply_to(torch.zeros(len(x), shape[0], 4, 4), x)
    return y[:, :, 1, 1].t().reshape(shape)


@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("name", INNER)
@pytest.mark.parametrize("on_outputs", [False, True])
@pytest.mark.parametrize("multiplier", [1.0, -0.5])
def test_output_and_gradients(kind, name, on_outputs, multiplier):
    adapter, x = make(kind, name, on_outputs=on_outputs)
    module, x = adapter.layer.module, x.requires_grad_()
    change = inner_change(adapter)
    torch.testing.assert_close(change, adapter.inner.delta(module.weight), rtol=1e-4, atol=1e-5)
    whole = module.weight + change
    axes = [axis for axis in range(whole.dim()) if axis != (0 if on_outputs else 1)]
    norm = whole.detach().square().sum(dim=axes, keepdim=True).sqrt()
    blended = module.weight + multiplier * (adapter.magnitude * whole / norm - module.weight)
    bias = module.bias if kind == "linear" else module.bias[:, None, None]
    expected = product(module, x, blended) + bias
    adapter.switch.value = multiplier
    found = through(adapter, x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    leaves = [x, *adapter.parameters()]
    weights = torch.randn_like(found)
    ours = torch.autograd.grad((found * weights).sum(), leaves)
    theirs = torch.autograd.grad((expected * weights).sum(), leaves)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("on_outputs", [False, True])
@pytest.mark.parametrize("name", INNER)
@pytest.mark.parametrize("kind", MODULES)
def test_a_new_one_is_bare(kind, name, on_outputs):
    adapter, x = make(kind, name, on_outputs=on_outputs)
    build, options = INNER[name]
    inner = build(
        adapter.layer,
        AdapterSpec(rank=2, alpha=3.0),
        options=options,
        generator=torch.Generator(),
        device=torch.device("cpu"),
    )
    assert torch.equal(through(DecomposedAdapter(inner, on_outputs=on_outputs), x), adapter.layer.module(x))


@pytest.mark.parametrize("on_outputs", [False, True])
@pytest.mark.parametrize("name", ["LoConModule", "LohaModule", "LokrModule"])
@pytest.mark.parametrize("kind", MODULES)
def test_a_file_of_lycoris_along_its_axis(kind, name, on_outputs):
    """Its own module's output, from the tensors that it would save; and saved again as they were."""
    modules = pytest.importorskip("lycoris.modules")
    torch.manual_seed(1)
    own, theirs_of = MODULES[kind](), MODULES[kind]()
    theirs_of.load_state_dict(own.state_dict())
    theirs = getattr(modules, name)(
        "layer", theirs_of, lora_dim=2, alpha=1.0, weight_decompose=True, wd_on_out=on_outputs
    )
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    state = {f"lora_unet_layer.{suffix}": tensor.detach() for suffix, tensor in theirs.custom_state_dict().items()}
    layer = Layer("lora_unet_layer", "unet", kind, own.requires_grad_(False))
    network = Network.from_kohya([layer], state)
    assert network.unmatched == ()
    x = torch.randn(3, 6) if kind == "linear" else torch.randn(3, 6, 8, 8)
    theirs.apply_to()
    with network.attach():
        torch.testing.assert_close(own(x), theirs_of(x), rtol=1e-4, atol=1e-5)
    with network.merged():
        torch.testing.assert_close(own(x), theirs_of(x), rtol=1e-4, atol=1e-5)
    again = network.kohya_tensors()
    assert again.keys() == state.keys()
    assert all(torch.equal(again[key].reshape(tensor.shape), tensor) for key, tensor in state.items())


def test_magnitudes_near_one_survive_bf16():
    """c = 1 + step / 4 would round back to 1 on an input of that type."""
    linear = nn.Linear(64, 1, bias=False).to(torch.bfloat16).requires_grad_(False)
    nn.init.constant_(linear.weight, 1.0)
    layer = Layer("lora_unet_layer", "unet", "linear", linear)
    build, options = INNER["loha"]
    inner = build(
        layer,
        AdapterSpec(rank=1, alpha=1.0),
        options=options,
        generator=torch.Generator().manual_seed(0),
        device=torch.device("cpu"),
    )
    adapter, step = DecomposedAdapter(inner), torch.finfo(torch.bfloat16).eps / 4
    with torch.no_grad():
        adapter.magnitude[:, 1::2] *= 1.0 + step
    x = torch.ones(1, 64, dtype=torch.bfloat16)
    x[:, ::2] = -1.0
    assert through(adapter, x).item() == pytest.approx(32 * step, rel=0.02)
    assert layer_weight(layer).dtype == torch.bfloat16
