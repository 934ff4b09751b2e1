"""The autograd functions against plain autograd and finite differences."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lib_pivotal.networks.ops import DownProjection, LowRankAdd, UpAdd


def leaves(*shapes, dtype=torch.float64):
    torch.manual_seed(0)
    return [torch.randn(*shape, dtype=dtype, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("lead", [(7,), (2, 5), (2, 3, 2)])
def test_linear_gradients_equal_plain_autograd(bias, lead):
    """`F.linear` with a bias returns a view, without one it does not: both must work in place."""
    weight = torch.randn(6, 4, dtype=torch.float64)
    offset = torch.randn(6, dtype=torch.float64) if bias else None
    inputs = leaves((*lead, 4), (2, 4), (3, 4), (6, 2), (6, 3))

    def ours(x, a1, a2, b1, b2):
        h1, h2 = DownProjection.apply(x, x.dtype, (0.5, 1.0), a1, a2)
        first = UpAdd.apply(F.linear(x, weight, offset), h1, b1)
        return torch.sin(first) + UpAdd.apply(F.linear(x, weight, offset), h2, b2)

    def plain(x, a1, a2, b1, b2):
        first = F.linear(x, weight, offset) + 0.5 * (x @ a1.t()) @ b1.t()
        return torch.sin(first) + F.linear(x, weight, offset) + (x @ a2.t()) @ b2.t()

    torch.testing.assert_close(ours(*inputs), plain(*inputs))
    grads = [torch.autograd.grad(f(*inputs).square().sum(), inputs) for f in (ours, plain)]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)
    assert torch.autograd.gradcheck(ours, inputs)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_convolution_gradients(memory_format):
    weight = torch.randn(6, 4, 3, 3, dtype=torch.float64)
    x, down, up = leaves((2, 4, 5, 5), (2, 4, 3, 3), (6, 2, 1, 1))

    def ours(x, down, up):
        x = x.contiguous(memory_format=memory_format)
        return UpAdd.apply(F.conv2d(x, weight, padding=1), F.conv2d(x, down, padding=1), up)

    plain = F.conv2d(x, weight, padding=1) + F.conv2d(F.conv2d(x, down, padding=1), up)
    torch.testing.assert_close(ours(x, down, up), plain)
    assert torch.autograd.gradcheck(ours, (x, down, up))


def test_outputs_that_are_not_contiguous_are_left_alone():
    x, h, up = leaves((3, 8), (8, 2), (3, 2))
    transposed = x.t()  # (8, 3), a view with another stride
    result = UpAdd.apply(transposed * 1.0, h, up)
    torch.testing.assert_close(result, x.t() + h @ up.t())
    assert torch.autograd.gradcheck(lambda a, b, c: UpAdd.apply((a * 1.0).t(), b, c), (x, h, up))


def test_inputs_without_gradient():
    x = torch.randn(5, 4)
    down, up = leaves((2, 4), (6, 2), dtype=torch.float32)
    (h,) = DownProjection.apply(x, x.dtype, (1.0,), down)
    y = UpAdd.apply(torch.zeros(5, 6), h, up)
    y.sum().backward()
    assert x.grad is None
    torch.testing.assert_close(down.grad, up.detach().sum(0)[:, None] * x.sum(0))


def test_the_result_may_be_modified_in_place_later():
    h, up = leaves((5, 2), (6, 2))
    y = UpAdd.apply(torch.zeros(5, 6, dtype=torch.float64), h, up)
    y.mul_(2.0).add_(1.0)
    y.sum().backward()
    torch.testing.assert_close(up.grad, 2.0 * h.detach().sum(0).expand(6, 2))


def test_whoever_kept_the_output_gets_an_error_not_a_wrong_gradient():
    x, h, up = leaves((5, 4), (5, 2), (6, 2))
    y = F.linear(x, torch.randn(6, 4, dtype=torch.float64))
    kept = y * y  # saves y for its gradient
    total = kept.sum() + UpAdd.apply(y, h, up).sum()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


def test_gradients_keep_the_parameters_type():
    x = torch.randn(5, 4, dtype=torch.bfloat16, requires_grad=True)
    down, up = leaves((2, 4), (6, 2), dtype=torch.float32)
    (h,) = DownProjection.apply(x, x.dtype, (0.5,), down)
    UpAdd.apply(torch.zeros(5, 6, dtype=torch.bfloat16), h, up).sum().backward()
    assert (x.grad.dtype, down.grad.dtype, up.grad.dtype) == (torch.bfloat16, torch.float32, torch.float32)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_low_rank_product_in_one_function(scale):
    weight, bias = torch.randn(6, 4, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    x, down, up = leaves((2, 5, 4), (2, 4), (6, 2))

    def ours(x, down, up):
        return LowRankAdd.apply(F.linear(x, weight, bias), x, down, up, scale)

    torch.testing.assert_close(ours(x, down, up), F.linear(x, weight, bias) + scale * (x @ down.t()) @ up.t())
    assert torch.autograd.gradcheck(ours, (x, down, up))
