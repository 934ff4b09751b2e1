"""LoKr: the change is a Kronecker product, run as its two factors on a reshaped input."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.hooks import RemovableHandle

from lib_pivotal.config_schema import setting
from lib_pivotal.errors import NetworkError
from lib_pivotal.networks.adapter import (
    Adapter,
    AdapterSpec,
    Cost,
    Switch,
    layer_sizes,
    layer_weight,
    load_parameters,
    output_mask,
    own_convolution,
    scale_parameters,
)
from lib_pivotal.networks.algorithm import Algorithm
from lib_pivotal.networks.decomposed import DORA_ARGUMENTS, DecomposedAdapter, decomposed_like, weight_decompose
from lib_pivotal.networks.ops import add_rows, as_type, without_autocast
from lib_pivotal.ports import Layer

from .loha import merged_tucker
from .lora import loaded_spec, rank_stabilised

FIRST = (frozenset({"lokr_w1"}), frozenset({"lokr_w1_a", "lokr_w1_b"}))
SECOND = (
    frozenset({"lokr_w2"}),
    frozenset({"lokr_w2_a", "lokr_w2_b"}),
    frozenset({"lokr_w2_a", "lokr_w2_b", "lokr_t2"}),
)
NAMES = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")


@dataclass(frozen=True)
class LokrOptions:
    """LoKr's own settings."""

    factor: int = setting(
        -1,
        "Size of the first factor of the Kronecker product: a layer has about 1 / factor² of its parameters; "
        "-1 = as square as it gets.",
        minimum=-1,
        maximum=256,
        good_range="4-16",
    )
    full_matrix: bool = setting(
        False, "The second factor is a whole matrix and not a product of rank r; alpha and rank then mean nothing."
    )
    decompose_both: bool = setting(False, "The first factor is of rank r too, where that is smaller.")
    tucker: bool = setting(
        False, "On convolutions larger than 1×1, Tucker's form: a small core convolution between two 1×1 ones."
    )
    rank_stabilised: bool = rank_stabilised()
    weight_decompose: bool = weight_decompose()


class LokrAdapter(nn.Module):
    """LoKr, Yeh et al. 2023 (arXiv 2309.14859), eq. 4: `ΔW = α/r · W₁ ⊗ W₂`.

    `W₁` `(a, c)`, `W₂` `(b, d[, k, k])` with `a·b` outputs and `c·d` inputs; either may be a product of rank r
    (`lokr_w2_a` `(b, r)`, `lokr_w2_b` `(r, d·k·k)`), and a convolution's second Tucker's (`lokr_t2` `(r, r, k, k)`,
    `lokr_w2_a` `(r, b)`, `lokr_w2_b` `(r, d)`). Where neither is, the scale is 1.

    `(W₁ ⊗ W₂) x = W₁ X W₂ᵀ` for `x` as a `(c, d)` matrix: `ΔW` is never built.
    """

    lokr_w1: nn.Parameter | None
    lokr_w2: nn.Parameter | None
    lokr_t2: nn.Parameter | None
    lokr_w1_a: nn.Parameter  # these four are None where the factor is whole
    lokr_w1_b: nn.Parameter
    lokr_w2_a: nn.Parameter
    lokr_w2_b: nn.Parameter

    def __init__(self, layer: Layer, spec: AdapterSpec, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.layer = layer
        self.switch = Switch()
        self.spec = spec
        for name in NAMES:
            self.register_parameter(name, nn.Parameter(tensors[name]) if name in tensors else None)
        first, second = self._first(), self._second()
        self.shape = (*first.shape, *second.shape[:2])
        rows, columns = first.shape[0] * second.shape[0], first.shape[1] * second.shape[1]
        if (rows, columns) != layer_weight(layer).shape[:2]:
            raise NetworkError(
                f"{layer.name}: the factors make a change of {rows}×{columns}, the layer has "
                f"{'×'.join(map(str, layer_weight(layer).shape[:2]))}. The file is for another model."
            )

    @property
    def scale(self) -> float:
        """`alpha / rank`, or 1 where both factors are whole (LyCORIS and the web UI's `calc_scale` agree)."""
        whole = self.lokr_w1 is not None and self.lokr_w2 is not None
        return 1.0 if whole else self.spec.alpha / self.spec.rank

    def attach(self) -> list[RemovableHandle]:
        return [self.layer.module.register_forward_hook(self._hook)]

    def _hook(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return self.apply_to(output, args[0])

    def apply_to(self, y: Tensor, x: Tensor) -> Tensor:
        """`y + multiplier · ΔW x`: `x` is the layer's input, `y` its output, in whose memory a linear layer's is."""
        scale = self.switch.value * self.scale
        mask = output_mask(self, layer_sizes(self.layer)[0], y.device)
        with without_autocast(x.device.type):
            if self.layer.kind == "conv":
                change = self._convolved(x.to(y.dtype)) * scale
                return y + (change if mask is None else change * mask.to(y.dtype)[:, None, None])
            if mask is not None:
                return y + self._plainly(x.to(y.dtype)) * (mask * scale).to(y.dtype)
            if self.lokr_w2 is not None:
                return KroneckerAdd.apply(y, x, self._first(), self.lokr_w2, scale)
            return LowRankKroneckerAdd.apply(y, x, self._first(), self.lokr_w2_b, self.lokr_w2_a, scale)

    # ---- the product by its factors ----

    def _plainly(self, x: Tensor) -> Tensor:
        """A linear layer's change by torch's own operations, `(..., out)`, unscaled."""
        _, c, _, d = self.shape
        h = F.linear(x.reshape(*x.shape[:-1], c, d), self._second().to(x.dtype))
        return torch.matmul(self._first().to(x.dtype), h).flatten(-2)

    def _convolved(self, x: Tensor) -> Tensor:
        """A convolution's change, unscaled: the blocks of the input are a batch for `W₂`."""
        a, c, b, d = self.shape
        blocks = x.reshape(-1, d, *x.shape[2:])
        convolve = own_convolution(self.layer)
        assert convolve is not None
        if self.lokr_w2 is not None:
            h, up = convolve(blocks, self._second().to(x.dtype)), None
        elif self.lokr_t2 is not None:
            h = F.conv2d(blocks, self.lokr_w2_b.to(x.dtype)[:, :, None, None])
            h, up = convolve(h, self.lokr_t2.to(x.dtype)), self.lokr_w2_a.t()
        else:
            down = self.lokr_w2_b.view(-1, d, *layer_weight(self.layer).shape[2:])
            h, up = convolve(blocks, down.to(x.dtype)), self.lokr_w2_a
        size = h.shape[2:]
        mixed = torch.matmul(self._first().to(x.dtype), h.reshape(x.shape[0], c, -1))
        if up is not None:
            mixed = torch.matmul(up.to(x.dtype), mixed.view(x.shape[0], a, up.shape[1], -1))
        return mixed.reshape(x.shape[0], a * b, *size)

    def _first(self) -> Tensor:
        """`W₁` `(a, c)`."""
        return self.lokr_w1_a @ self.lokr_w1_b if self.lokr_w1 is None else self.lokr_w1

    def _second(self) -> Tensor:
        """`W₂` `(b, d[, k, k])`."""
        if self.lokr_w2 is not None:
            return self.lokr_w2
        if self.lokr_t2 is not None:
            return merged_tucker(self.lokr_t2, self.lokr_w2_a, self.lokr_w2_b)
        product = self.lokr_w2_a @ self.lokr_w2_b
        kernel = layer_weight(self.layer).shape[2:]
        return product.view(product.shape[0], -1, *kernel)

    # ---- files and norms ----

    @torch.no_grad()
    def delta(self, weight: Tensor) -> Tensor:
        first, second = self._first(), self._second()
        ones = [1] * (second.dim() - 2)
        return torch.kron(first.view(*first.shape, *ones), second.contiguous()) * self.scale

    def bias_delta(self) -> None:
        return None

    def cost(self, tokens: int) -> Cost:
        a, c, b, d = self.shape
        kernel = layer_weight(self.layer)[0, 0].numel()
        count, rank = sum(parameter.numel() for parameter in self.parameters()), self.spec.rank
        if self.lokr_w2 is not None:
            if self.layer.kind == "linear":
                narrows = c * d > a * b
                mixing, kept = (3 * a * c * b, c * d + c * b) if narrows else (4 * a * c * d, c * d)
            else:
                mixing, kept = 4 * a * c * b, c * d * kernel + c * b
            return Cost(count, tokens * (mixing + 3 * c * d * b * kernel), tokens * kept)
        inner = c * d * rank * (1 if self.lokr_t2 is not None else kernel)
        core = c * rank * rank * kernel if self.lokr_t2 is not None else 0
        products = inner + core + a * c * rank + a * rank * b
        return Cost(count, 3 * tokens * products, tokens * (c * d + (a + c) * rank))

    def kohya_tensors(self) -> dict[str, Tensor]:
        return {**dict(self.named_parameters()), "alpha": torch.tensor(self.spec.alpha)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        self.spec = loaded_spec(self.spec, tensors)
        load_parameters(self, self.layer, tensors)

    def limit_norm(self, limit: float) -> bool:
        norm = abs(self.scale) * float(self._first().norm()) * float(self._second().norm())
        return scale_parameters(self.parameters(), norm=norm, limit=limit)


class KroneckerAdd(torch.autograd.Function):
    """`y + scale · (W₁ ⊗ W₂) x` of a linear layer, written into `y`'s memory.

    `x` `(..., c·d)`, `y` `(..., a·b)`, `W₁` `(a, c)`, `W₂` `(b, d)`. `W₁` meets the narrower side of the layer. On an
    input of at most the output's width it goes first, and its product, which only `W₂`'s gradient needs, is made again
    in the backward pass: kept is `x`. On a wider input `W₂` goes first, and its product is kept, as narrow as `y`.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, first: Tensor, second: Tensor, scale: float) -> Tensor:
        dtype, (a, c), (b, d) = y.dtype, first.shape, second.shape
        with without_autocast(y.device.type):
            matrices = as_type(x, dtype).reshape(-1, c, d)
            small, whole, out = as_type(first, dtype), as_type(second, dtype), y.detach()
            small = small.expand(matrices.shape[0], a, c)
            narrows, inner = c * d > a * b, None
            if narrows:
                inner = torch.mm(matrices.view(-1, d), whole.t()).view(-1, c, b)
            ctx.save_for_backward(matrices, inner, first, second)
            ctx.scale, ctx.input_dtype, ctx.input_shape = scale, x.dtype, x.shape
            if inner is None:
                mixed = torch.bmm(small, matrices).view(-1, d)
                return add_rows(out.view(*out.shape[:-1], a, b), mixed, whole, scale).view(out.shape)
            if out.is_contiguous():
                out.view(-1, a, b).baddbmm_(small, inner, alpha=scale)
                return out
            return out + torch.bmm(small, inner).view(out.shape) * scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (grad,) = grads
        matrices, inner, first, second = ctx.saved_tensors
        dtype, scale, (a, c), (b, d) = grad.dtype, ctx.scale, first.shape, second.shape
        small, whole = as_type(first if scale == 1.0 else first * scale, dtype), as_type(second, dtype)
        tokens = matrices.shape[0]
        with without_autocast(grad.device.type):
            rows = grad.reshape(-1, b)
            if inner is None:
                grad_mixed = torch.mm(rows, whole).view(tokens, a, d)
                grad_x = torch.bmm(small.t().expand(tokens, c, a), grad_mixed)
                grad_second = torch.mm(rows.t(), torch.bmm(small.expand(tokens, a, c), matrices).view(-1, d))
                grad_first = torch.bmm(grad_mixed, matrices.transpose(1, 2))
            else:
                grad_inner = torch.bmm(small.t().expand(tokens, c, a), rows.view(tokens, a, b)).view(-1, b)
                grad_x = torch.mm(grad_inner, whole)
                grad_second = torch.mm(grad_inner.t(), matrices.view(-1, d))
                grad_first = torch.bmm(rows.view(tokens, a, b), inner.transpose(1, 2))
            grad_first = as_type(grad_first.sum(0), first.dtype)
            grad_first = grad_first if scale == 1.0 else grad_first.mul_(scale)
        found = as_type(grad_x.view(ctx.input_shape), ctx.input_dtype) if ctx.needs_input_grad[1] else None
        return grad, found, grad_first, as_type(grad_second, second.dtype), None


class LowRankKroneckerAdd(torch.autograd.Function):
    """The same with `W₂ = B A` of rank r: `W₁` meets products of rank r only. Kept are `x` and the first of them.

    `A` `(r, d)`, `B` `(b, r)`.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, first: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
        dtype, (a, c), (rank, d) = y.dtype, first.shape, down.shape
        with without_autocast(y.device.type):
            rows = as_type(x, dtype).reshape(-1, d)
            h = torch.mm(rows, as_type(down, dtype).t()).view(-1, c, rank)
            mixed = torch.bmm(as_type(first, dtype).expand(h.shape[0], a, c), h).view(-1, rank)
            ctx.save_for_backward(rows, h, first, down, up)
            ctx.scale, ctx.input_dtype, ctx.input_shape = scale, x.dtype, x.shape
            out = y.detach()
            return add_rows(out.view(*out.shape[:-1], a, -1), mixed, as_type(up, dtype), scale).view(out.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (grad,) = grads
        rows, h, first, down, up = ctx.saved_tensors
        dtype, scale, (a, c), (tokens, _, rank) = grad.dtype, ctx.scale, first.shape, h.shape
        with without_autocast(grad.device.type):
            grad_rows, small = grad.reshape(-1, up.shape[0]), as_type(first, dtype)
            mixed = torch.bmm(small.expand(tokens, a, c), h).view(-1, rank)
            grad_up = torch.mm(grad_rows.t(), mixed)
            grad_mixed = torch.mm(grad_rows, as_type(up, dtype)).view(tokens, a, rank)
            if scale != 1.0:
                grad_up, grad_mixed = grad_up.mul_(scale), grad_mixed.mul_(scale)
            grad_first = torch.bmm(grad_mixed, h.transpose(1, 2)).sum(0)
            grad_h = torch.bmm(small.t().expand(tokens, c, a), grad_mixed).view(-1, rank)
            grad_down, grad_x = torch.mm(grad_h.t(), rows), None
            if ctx.needs_input_grad[1]:
                grad_x = as_type(torch.mm(grad_h, as_type(down, dtype)).view(ctx.input_shape), ctx.input_dtype)
        trained = as_type(grad_first, first.dtype), as_type(grad_down, down.dtype), as_type(grad_up, up.dtype)
        return grad, grad_x, *trained, None


def factorization(dimension: int, factor: int) -> tuple[int, int]:
    """Two factors of `dimension`, the smaller first: `factor` itself where it divides, else those nearest to it.

    https://github.com/KohakuBlueleaf/LyCORIS/blob/f49d30d/lycoris/functional/general.py, `factorization`

    >>> factorization(320, 8), factorization(320, -1), factorization(250, 8), factorization(127, 4)
    ((8, 40), (16, 20), (5, 50), (1, 127))
    """
    if factor > 0 and dimension % factor == 0:
        return min(factor, dimension // factor), max(factor, dimension // factor)
    limit = math.isqrt(dimension) if factor < 0 else min(factor, math.isqrt(dimension))
    smaller = next(divisor for divisor in range(max(limit, 1), 0, -1) if dimension % divisor == 0)
    return smaller, dimension // smaller


def make_lokr(
    layer: Layer, spec: AdapterSpec, *, options: LokrOptions, generator: torch.Generator, device: torch.device
) -> Adapter:
    """A new LoKr on `layer`, begun as LyCORIS begins: the second factor zero, so that the change is.

    Which factor is whole is LyCORIS' rule too:
    https://github.com/KohakuBlueleaf/LyCORIS/blob/f49d30d/lycoris/modules/lokr.py#L95-L190
    """
    weight, rank = layer_weight(layer), spec.rank
    (a, b), (c, d) = factorization(weight.shape[0], options.factor), factorization(weight.shape[1], options.factor)
    kernel = weight.shape[2:]
    sizes: dict[str, tuple[int, ...]] = {}
    if options.decompose_both and rank < max(a, c) / 2 and not options.full_matrix:
        sizes |= {"lokr_w1_a": (a, rank), "lokr_w1_b": (rank, c)}
    else:
        sizes["lokr_w1"] = (a, c)
    if options.full_matrix or rank >= max(b, d) / 2:
        sizes["lokr_w2"] = (b, d, *kernel)
    elif options.tucker and kernel.numel() > 1:
        sizes |= {"lokr_w2_a": (rank, b), "lokr_w2_b": (rank, d), "lokr_t2": (rank, rank, *kernel)}
    else:
        sizes |= {"lokr_w2_a": (b, rank), "lokr_w2_b": (rank, d * math.prod(kernel))}
    zero = "lokr_w2" if "lokr_w2" in sizes else "lokr_w2_b"
    tensors = {
        name: torch.zeros(size, device=device) if name == zero else _drawn(size, generator).to(device)
        for name, size in sizes.items()
    }
    adapter = LokrAdapter(layer, spec, tensors)
    return DecomposedAdapter(adapter) if options.weight_decompose else adapter


def _drawn(size: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Kaiming uniform with a = √5: U(-b, b), b = 1 / √fan_in (`lora.initial_factors`)."""
    bound = 1.0 / math.sqrt(math.prod(size[1:]))
    return torch.empty(size).uniform_(-bound, bound, generator=generator)


def lokr_like(layer: Layer, tensors: Mapping[str, Tensor], device: torch.device) -> Adapter:
    """A LoKr of the factors that a file's tensors have. Where both are whole, the rank is only what alpha says."""
    low_rank = next((tensors[name].shape[0] for name in ("lokr_w2_b", "lokr_w1_b") if name in tensors), None)
    rank = low_rank or max(1, round(float(tensors["alpha"])) if "alpha" in tensors else 1)
    empty = {name: torch.zeros(tensors[name].shape, device=device) for name in NAMES if name in tensors}
    adapter = LokrAdapter(layer, loaded_spec(AdapterSpec(rank=rank, alpha=float(rank)), tensors), empty)
    return decomposed_like(adapter, tensors)


def lokr_arguments(options: LokrOptions) -> dict[str, str]:
    """kohya's `--network_args` for LyCORIS."""
    told = {
        "full_matrix": options.full_matrix,
        "decompose_both": options.decompose_both,
        "use_tucker": options.tucker,
        "rs_lora": options.rank_stabilised,
    }
    given = {name: "True" for name, wanted in told.items() if wanted}
    dora = DORA_ARGUMENTS if options.weight_decompose else {}
    return {"algo": "lokr", "factor": str(options.factor), **given, **dora}


ALGORITHM = Algorithm(
    name="lokr",
    title="LoKr",
    summary="A Kronecker product of a small and a larger factor: the smallest files, and of any rank.",
    make=make_lokr,
    like=lokr_like,
    keys=tuple(first | second for first in FIRST for second in SECOND),
    optional=frozenset({"alpha", "dora_scale"}),
    options=LokrOptions,
    common=frozenset({"rank", "alpha", "rank_dropout"}),
    arguments=lokr_arguments,
)
