"""LoRA against formulas written down anew."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib_pivotal.errors import NetworkError
from lib_pivotal.networks.adapter import AdapterSpec
from lib_pivotal.networks.kinds.lora import LoraAdapter, initial_factors
from lib_pivotal.ports import Layer

pytestmark = pytest.mark.usefixtures("either_path")

CONVOLUTIONS = {
    "3x3": {"kernel_size": 3, "padding": 1},
    "strided": {"kernel_size": 3, "padding": 1, "stride": 2},
    "1x1": {"kernel_size": 1},
    "dilated": {"kernel_size": 3, "padding": 2, "dilation": 2},
    "circular": {"kernel_size": 3, "padding": 1, "padding_mode": "circular"},
}


def adapter_on(module, *, perturb=True, **spec):
    kind = "conv" if isinstance(module, nn.Conv2d) else "linear"
    layer = Layer("lora_unet_layer", "unet", kind, module.requires_grad_(False))
    settings = AdapterSpec(**{"rank": 2, "alpha": 1.0, **spec})
    adapter = LoraAdapter(layer, settings, generator=torch.Generator().manual_seed(0), device=torch.device("cpu"))
    if perturb:
        nn.init.normal_(adapter.up)
    return adapter


def through(adapter, x):
    handles = adapter.attach()
    try:
        return adapter.layer.module(x)
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_convolution_is_locon(options):
    """kohya's LoRAModule: up is a 1×1 convolution of down's output, times alpha / rank."""
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, **options)
    adapter = adapter_on(conv, alpha=3.0)
    down = nn.Conv2d(4, 2, bias=False, **options)
    up = nn.Conv2d(2, 6, 1, bias=False)
    down.weight.data, up.weight.data = adapter.down.data, adapter.up.data
    x = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(through(adapter, x), conv(x) + up(down(x)) * (3.0 / 2), rtol=1e-5, atol=1e-5)


def test_delta_is_what_the_web_ui_rebuilds():
    """extensions-builtin/Lora/network_lora.py, calc_updown of v1.10.1: `up @ down`, reshaped, times alpha / dim."""
    torch.manual_seed(0)
    adapter = adapter_on(nn.Conv2d(4, 6, 3), alpha=3.0)
    up, down = adapter.up.detach().reshape(6, -1), adapter.down.detach().reshape(2, -1)
    expected = torch.einsum("or,rk->ok", up, down).reshape(6, 4, 3, 3) * 3.0 / 2
    torch.testing.assert_close(adapter.delta(adapter.layer.module.weight), expected)


def test_initial_factors_are_kaiming_uniform_with_a_sqrt_5():
    """The bound is 1/√fan_in; the distribution is that of `nn.init.kaiming_uniform_(a=√5)`."""
    down, up = initial_factors(torch.Size((8, 64, 3, 3)), rank=32, generator=torch.Generator().manual_seed(0))
    reference = nn.init.kaiming_uniform_(torch.empty(32, 64, 3, 3), a=math.sqrt(5))
    assert down.abs().max() <= 1 / math.sqrt(64 * 9)
    assert down.std().item() == pytest.approx(reference.std().item(), rel=0.03)
    assert down.abs().max().item() == pytest.approx(reference.abs().max().item(), rel=0.01)
    assert up.shape == (8, 32, 1, 1)
    assert up.abs().max() == 0
    with pytest.raises(NetworkError, match="rank = 0"):
        initial_factors(torch.Size((2, 2)), rank=0, generator=torch.Generator())


@pytest.mark.parametrize("shape", [(4, 6), (4, 5, 6)])
def test_dropout_as_kohya(shape):
    """Dropout on the product, one rank mask a sample, rescaled by 1 / (1 - p): the same draws, the same result."""
    torch.manual_seed(0)
    linear = nn.Linear(6, 3)
    adapter = adapter_on(linear, rank=4, alpha=2.0, dropout=0.3, rank_dropout=0.25)
    x = torch.randn(*shape)
    torch.manual_seed(5)
    ours = through(adapter, x)
    torch.manual_seed(5)
    product = F.linear(x, adapter.down)
    product = F.dropout(product.reshape(-1, 4), p=0.3).reshape(product.shape)
    mask = (torch.rand(shape[0], 4) > 0.25).float()
    product = product * (mask if len(shape) == 2 else mask[:, None, :])
    expected = linear(x) + F.linear(product, adapter.up) * (2.0 / 4) / (1 - 0.25)
    torch.testing.assert_close(ours, expected)


def test_rank_dropout_on_a_convolution_masks_whole_ranks():
    torch.manual_seed(0)
    adapter = adapter_on(nn.Conv2d(3, 4, 3), rank=4, rank_dropout=0.5)
    x = torch.randn(8, 3, 6, 6)
    change = through(adapter, x) - adapter.layer.module(x)
    # with the ranks of one sample either wholly kept or wholly dropped, the change of each sample is low-rank
    kept = [torch.linalg.matrix_rank(sample.flatten(1), atol=1e-4).item() for sample in change]
    assert min(kept) < 4
    assert max(kept) <= 4


def test_half_precision_layer_keeps_fp32_parameters():
    adapter = adapter_on(nn.Linear(6, 3).to(torch.bfloat16))
    output = through(adapter, torch.randn(2, 6, dtype=torch.bfloat16))
    output.sum().backward()
    assert output.dtype == torch.bfloat16
    assert adapter.down.grad.dtype == adapter.up.grad.dtype == torch.float32
