"""The arithmetic of adapters: autograd functions that keep only what the gradient needs.

`y + up(down(x)) · scale` written plainly costs a full-size temporary and an addition in the forward pass and keeps
more than it needs. Here the rank-sized product is added into the layer's output in place (one matrix product), and
the graph holds the layer's input and that product only. Several layers that read one input share one `down` product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_OFF = nullcontext()


def without_autocast(device_type: str) -> AbstractContextManager[Any]:
    """Products run in the type that their operands have; free of charge where autocast is off."""
    if not _autocast_is_on(device_type):
        return _OFF
    return torch.autocast(device_type=device_type, enabled=False)


def _autocast_is_on(device_type: str) -> bool:
    """torch 2.4 and later ask with one function; 2.1 has one a device, which later warns at every call."""
    if _one_function_for_all_devices():
        return torch.is_autocast_enabled(device_type)
    return torch.is_autocast_cpu_enabled() if device_type == "cpu" else torch.is_autocast_enabled()


@cache
def _one_function_for_all_devices() -> bool:
    try:
        torch.is_autocast_enabled("cpu")
    except TypeError:
        return False
    return True


def as_type(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """`tensor.to(dtype)`, which takes 0.6 µs of Python even where there is nothing to do."""
    return tensor if tensor.dtype is dtype else tensor.to(dtype)


class DownProjection(torch.autograd.Function):
    """`h_i = scale_i · x A_iᵀ` for several `A_i` that read the same `x`, with one matrix product.

    `x` `(..., in)`, `A_i` `(rank_i, in)` -> `h_i` `(tokens, rank_i)` in `dtype`, tokens = product of the leading
    axes. LoRA, Hu et al. 2021 (arXiv 2106.09685), eq. 3, with `alpha/rank` folded into the small factor.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype, scales: Sequence[float], *downs: Tensor) -> tuple[Tensor, ...]:
        with without_autocast(x.device.type):
            rows = x.reshape(-1, x.shape[-1]).to(dtype)
            stacked = _stack(downs, scales, dtype)
            products = rows @ stacked.t()
        ctx.save_for_backward(rows, *downs)
        ctx.set_materialize_grads(False)  # a layer that rests has no gradient, not one of 0
        ctx.scales = tuple(scales)
        ctx.input_shape, ctx.input_dtype = x.shape, x.dtype
        if len(downs) == 1:
            return (products,)
        return products.split([down.shape[0] for down in downs], dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *given: Tensor | None) -> tuple[Any, ...]:
        rows, *downs = ctx.saved_tensors
        used = [gradient is not None for gradient in given]
        needs_x = ctx.needs_input_grad[0]
        needs_downs = [needs and is_used for needs, is_used in zip(ctx.needs_input_grad[3:], used, strict=True)]
        grads = [
            rows.new_zeros(rows.shape[0], down.shape[0]) if gradient is None else gradient
            for gradient, down in zip(given, downs, strict=True)
        ]
        with without_autocast(rows.device.type):
            grad = grads[0] if len(grads) == 1 else torch.cat(grads, dim=1)
            grad_x = None
            if needs_x:
                grad_rows = grad @ _stack(downs, ctx.scales, rows.dtype)
                grad_x = grad_rows.to(ctx.input_dtype).view(ctx.input_shape)
            grad_downs: list[Tensor | None] = [None] * len(downs)
            if any(needs_downs):
                whole = grad.t() @ rows
                pieces = (whole,) if len(downs) == 1 else whole.split([down.shape[0] for down in downs])
                for i, (piece, down, scale) in enumerate(zip(pieces, downs, ctx.scales, strict=True)):
                    if needs_downs[i]:
                        piece = piece.to(down.dtype)
                        grad_downs[i] = piece if scale == 1.0 else piece.mul_(scale)
        return grad_x, None, None, *grad_downs


def _stack(downs: Sequence[Tensor], scales: Sequence[float], dtype: torch.dtype) -> Tensor:
    """The scaled factors one below the other, `(sum of ranks, in)`; scaled in their own type, then cast."""
    scaled = [down if scale == 1.0 else down * scale for down, scale in zip(downs, scales, strict=True)]
    return (scaled[0] if len(scaled) == 1 else torch.cat(scaled)).to(dtype)


class UpAdd(torch.autograd.Function):
    """`y + h Bᵀ`, written into `y`'s own memory.

    `y` `(..., out)` and `h` `(tokens, rank)`, `B` `(out, rank)`; or, for a convolution, `y` `(batch, out, H, W)` and
    `h` `(batch, rank, H, W)`, `B` `(out, rank, 1, 1)`.

    Writing into `y` is legal because a linear layer or a convolution does not need its output for its gradient, and
    nobody else holds it yet: a hook's result replaces it. `y.detach()` is used rather than `mark_dirty` because the
    output of `F.linear` with bias is a view, for which autograd would copy the whole gradient twice (CopySlices);
    the detached tensor shares the version counter, so whoever did keep `y` gets torch's error instead of wrong values.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, h: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(h, up)
        out = y.detach()
        with without_autocast(y.device.type):
            weight = up.to(y.dtype)
            if up.dim() == 2:
                return add_rows(out, h, weight)
            return _add_pixels(out, h, weight.flatten(1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        (grad,) = grads
        h, up = ctx.saved_tensors
        _, needs_h, needs_up = ctx.needs_input_grad
        grad_h = grad_up = None
        with without_autocast(grad.device.type):
            weight = up.to(grad.dtype)
            if up.dim() == 2:
                rows = grad.reshape(-1, grad.shape[-1])
                grad_h = rows @ weight if needs_h else None
                # (rank, out) first: a quarter faster on a CPU than the long, narrow product where it is large
                # (docs/performance.md)
                grad_up = (h.t() @ rows).t() if needs_up else None
            else:
                planes, products = grad.flatten(2), h.flatten(2)
                grad_h = torch.matmul(weight.flatten(1).t(), planes).view(h.shape) if needs_h else None
                if needs_up:
                    grad_up = torch.bmm(planes, products.transpose(1, 2)).sum(0).view(up.shape)
        return grad, grad_h, grad_up if grad_up is None else grad_up.to(up.dtype)


class LowRankAdd(torch.autograd.Function):
    """`y + scale · x Aᵀ Bᵀ` of a linear layer, written into `y`'s memory: `DownProjection` and `UpAdd` in one.

    `x` `(..., in)`, `y` `(..., out)`, `A` `(rank, in)`, `B` `(out, rank)`. One function costs half the Python of two,
    which is what a small layer, or any layer on a GPU that waits for Python, pays (docs/performance.md).
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
        dtype = y.dtype
        with without_autocast(y.device.type):
            rows = as_type(x.reshape(-1, x.shape[-1]), dtype)
            h = torch.mm(rows, as_type(down, dtype).t())
            ctx.save_for_backward(rows, h, down, up)
            ctx.scale, ctx.input_dtype = scale, x.dtype
            return add_rows(y.detach(), h, as_type(up, dtype), scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        rows, h, down, up = ctx.saved_tensors
        _, needs_x, needs_down, needs_up, _ = ctx.needs_input_grad
        dtype, scale = grad.dtype, ctx.scale
        with without_autocast(grad.device.type):
            grad_rows = grad.reshape(-1, grad.shape[-1])
            grad_h = torch.mm(grad_rows, as_type(up, dtype))
            # (rank, out) first: docs/performance.md
            grad_up = as_type(torch.mm(h.t(), grad_rows).t(), up.dtype) if needs_up else None
            if scale != 1.0:
                grad_h.mul_(scale)
                grad_up = None if grad_up is None else grad_up.mul_(scale)
            grad_down = as_type(torch.mm(grad_h.t(), rows), down.dtype) if needs_down else None
            grad_x = None
            if needs_x:
                grad_x = torch.mm(grad_h, as_type(down, dtype)).view(*grad.shape[:-1], -1)
                grad_x = as_type(grad_x, ctx.input_dtype)
        return grad, grad_x, grad_down, grad_up, None


class RebuiltAdd(torch.autograd.Function):
    """`y + scale · x ΔWᵀ` with `ΔW = build(*factors)`, written into `y`'s memory; nothing of `ΔW`'s size is kept.

    `x` `(..., in)`, `y` `(..., out)`, `ΔW` `(out, in)`; or a convolution's, where `convolve(x, ΔW)` is the layer's own
    product without bias. The backward pass builds `ΔW` again: cheap next to the product with it, while keeping it and
    what it is made of would be a second and third copy of all adapted weights.
    """

    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor,
        x: Tensor,
        convolve: Callable[[Tensor, Tensor], Tensor] | None,
        build: Callable[..., Tensor],
        scale: float,
        *factors: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(x, *factors)
        ctx.convolve, ctx.build, ctx.scale, ctx.dtype = convolve, build, scale, y.dtype
        out = y.detach()
        with without_autocast(y.device.type):
            delta = (build(*factors) * scale).to(y.dtype)
            if convolve is not None:
                return out.add_(convolve(x.to(y.dtype), delta))
            return add_rows(out, x.reshape(-1, x.shape[-1]).to(y.dtype), delta)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (grad,) = grads
        x, *factors = ctx.saved_tensors
        needs_x, needed = ctx.needs_input_grad[1], ctx.needs_input_grad[5:]
        with without_autocast(grad.device.type), torch.enable_grad():
            leaves = [factor.detach().requires_grad_(need) for factor, need in zip(factors, needed, strict=True)]
            delta = ctx.build(*leaves)
            weight = (delta.detach() * ctx.scale).to(ctx.dtype).requires_grad_(any(needed))
            grad_x, grad_weight = _product_gradients(grad, x.to(ctx.dtype), weight, ctx.convolve, needs_x=needs_x)
            if grad_weight is None:
                return grad, grad_x, None, None, None, *[None] * len(factors)
            trained = [leaf for leaf, need in zip(leaves, needed, strict=True) if need]
            found = iter(torch.autograd.grad(delta, trained, grad_weight.to(delta) * ctx.scale))
        grad_x = None if grad_x is None else grad_x.to(x.dtype)
        return grad, grad_x, None, None, None, *(next(found) if need else None for need in needed)


def _product_gradients(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    convolve: Callable[[Tensor, Tensor], Tensor] | None,
    *,
    needs_x: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Of the product of `x` and `weight`: to `x` where it is needed, to `weight` where it requires one."""
    if convolve is None:
        rows = grad.reshape(-1, grad.shape[-1])
        weight_only = weight.detach()
        grad_x = (rows @ weight_only).view(x.shape) if needs_x else None
        return grad_x, rows.t() @ x.reshape(-1, x.shape[-1]) if weight.requires_grad else None
    leaf = x.detach().requires_grad_(needs_x)
    wanted = [tensor for tensor in (leaf, weight) if tensor.requires_grad]
    found = iter(torch.autograd.grad(convolve(leaf, weight), wanted, grad) if wanted else ())
    return next(found) if needs_x else None, next(found) if weight.requires_grad else None


def add_rows(out: Tensor, h: Tensor, weight: Tensor, scale: float = 1.0) -> Tensor:
    """`out` `(..., features)` += scale · `h` `(tokens, rank)` · `weight` `(features, rank)`ᵀ."""
    if out.is_contiguous():
        out.view(-1, out.shape[-1]).addmm_(h, weight.t(), alpha=scale)
        return out
    return out + (h @ weight.t()).view(out.shape) * scale


def _add_pixels(out: Tensor, h: Tensor, weight: Tensor) -> Tensor:
    """`out` `(batch, features, H, W)` += `weight` `(features, rank)` applied to every pixel of `h`."""
    batch, features = out.shape[:2]
    if out.is_contiguous():
        out.view(batch, features, -1).baddbmm_(weight.expand(batch, -1, -1), h.flatten(2))
        return out
    if out.is_contiguous(memory_format=torch.channels_last):
        rows = h.permute(0, 2, 3, 1).reshape(-1, h.shape[1])
        out.permute(0, 2, 3, 1).view(-1, features).addmm_(rows, weight.t())
        return out
    return out + torch.matmul(weight, h.flatten(2)).view(out.shape)
