"""DiagOFT from other programs' files: old LyCORIS' rotations, kohya's own blocks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib_pivotal.errors import NetworkError
from lib_pivotal.networks.kinds.oft import CayleyChange, TurnRows
from lib_pivotal.networks.network import Network
from lib_pivotal.ports import Layer

NAME = "lora_unet_layer"
MODULES = {"linear": lambda: nn.Linear(6, 8), "conv": lambda: nn.Conv2d(6, 8, 3)}


def layer_of(kind):
    torch.manual_seed(0)
    return Layer(NAME, "unet", kind, MODULES[kind]().requires_grad_(False))


def rotations(blocks, size):
    """The exponential of skew matrices."""
    skew = torch.randn(blocks, size, size, dtype=torch.float64) * 0.4
    return torch.linalg.matrix_exp(skew - skew.transpose(1, 2))


def merged_by_the_web_ui(turned, weight):
    """network_oft.py, `is_R`: `einsum("k n m, k n ... -> k m ...")` with the rotations as they are."""
    blocks = weight.reshape(turned.shape[0], turned.shape[1], *weight.shape[1:])
    return torch.einsum("knm,kn...->km...", turned, blocks).reshape(weight.shape)


@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_old_lycoris_rotations_are_trained_on(kind, dtype):
    layer = layer_of(kind)
    turned = rotations(2, 4).to(dtype)
    network = Network.from_kohya([layer], {f"{NAME}.oft_diag": turned, f"{NAME}.alpha": torch.tensor(4.0)})
    assert network.unmatched == () and network.spec(NAME).rank == 4
    weight = layer.module.weight
    expected = merged_by_the_web_ui(turned.float(), weight) - weight
    found = network.adapters[NAME].delta(weight)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 if dtype == torch.float32 else 2e-3)
    x = torch.randn(2, 6) if kind == "linear" else torch.randn(2, 6, 4, 4)
    with network.attach():
        layer.module(x).square().sum().backward()
    blocks = network.adapters[NAME].oft_blocks
    assert blocks.grad is not None and blocks.grad.abs().max() > 0
    again = network.kohya_tensors()
    assert set(again) == {f"{NAME}.oft_blocks", f"{NAME}.alpha"} and again[f"{NAME}.alpha"] == 0


def test_what_is_no_rotation_is_refused():
    layer = layer_of("linear")
    for matrices in (torch.randn(2, 4, 4), -torch.eye(4).repeat(2, 1, 1)):
        with pytest.raises(NetworkError, match=r"oft_diag: is no rotation .*to_lora"):
            Network.from_kohya([layer], {f"{NAME}.oft_diag": matrices})


@pytest.mark.parametrize("constraint", [0.01, 1.0])
def test_kohyas_own_blocks(constraint):
    """networks/oft.py of sd-scripts 48d368f, `get_weight` and `forward`, in its words; its bias is turned too."""
    layer = layer_of("linear")
    blocks = torch.randn(2, 4, 4) * 0.3
    tensors = {f"{NAME}.oft_blocks": blocks, f"{NAME}.alpha": torch.tensor(constraint)}
    network = Network.from_kohya([layer], tensors)
    skew = blocks - blocks.transpose(1, 2)
    norm = torch.norm(skew.flatten())
    skew = skew * ((torch.clamp(norm, max=constraint * 8) + 1e-8) / (norm + 1e-8))
    eye = torch.eye(4).unsqueeze(0).repeat(2, 1, 1)
    turned = torch.block_diag(*torch.matmul(eye + skew, (eye - skew).inverse()))
    x, bias = torch.randn(3, 6), layer.module.bias
    with network.attach():
        found = layer.module(x)
    torch.testing.assert_close(found - bias, (layer.module(x) - bias) @ turned, rtol=1e-4, atol=1e-5)


def skew_blocks():
    torch.manual_seed(0)
    blocks = torch.randn(3, 4, 4, dtype=torch.float64)
    return (blocks - blocks.transpose(1, 2)) / 4


def test_the_cayley_change_and_its_gradient():
    skew = skew_blocks().requires_grad_()
    eye = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(CayleyChange.apply(skew), torch.linalg.solve(eye - skew, eye + skew) - eye)
    assert torch.autograd.gradcheck(CayleyChange.apply, (skew,))


@pytest.mark.parametrize("rotates", [True, False])
@pytest.mark.parametrize("has_bias", [True, False])
def test_turning_from_the_result_has_the_gradient_of_turning_from_the_input(has_bias, rotates):
    """What is kept is the result where the blocks rotate, else the layer's output: one gradient."""
    change = CayleyChange.apply(skew_blocks()) * (1.0 if rotates else 0.5)
    bias = torch.randn(12, dtype=torch.float64) if has_bias else None
    weight, x, weights = (torch.randn(size, dtype=torch.float64) for size in ((12, 5), (2, 7, 5), (2, 7, 12)))
    found = []
    for ours in (True, False):
        leaves = x.clone().requires_grad_(), change.clone().requires_grad_()
        y = F.linear(leaves[0], weight, bias)
        if ours:
            result = TurnRows.apply(y, bias, leaves[1], rotates)
        else:
            rows = (y if bias is None else y - bias).view(14, 3, 4)
            result = y + torch.einsum("tkm,kmn->tkn", rows, leaves[1]).reshape(y.shape)
        found.append([result.detach(), *torch.autograd.grad((result * weights).sum(), leaves)])
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other)
