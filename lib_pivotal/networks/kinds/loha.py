"""LoHa: the change is the elementwise product of two low-rank matrices, run as the one LoRA that it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.hooks import RemovableHandle

from lib_pivotal.config_schema import setting
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
    token_count,
)
from lib_pivotal.networks.algorithm import Algorithm
from lib_pivotal.networks.decomposed import DORA_ARGUMENTS, DecomposedAdapter, decomposed_like, weight_decompose
from lib_pivotal.networks.ops import RebuiltAdd, UpAdd, add_rows, as_type, without_autocast
from lib_pivotal.ports import Layer

from .lora import add_low_rank, loaded_spec, project, rank_stabilised

MATRICES = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
CORES = ("hada_t1", "hada_t2")


@dataclass(frozen=True)
class LohaOptions:
    """LoHa's own settings."""

    tucker: bool = setting(
        False, "On convolutions larger than 1×1, Tucker's form: a small core convolution between two 1×1 ones."
    )
    rank_stabilised: bool = rank_stabilised()
    weight_decompose: bool = weight_decompose()


class LohaAdapter(nn.Module):
    """LoHa, Hyeon-Woo et al. 2022 (FedPara, arXiv 2108.06098), prop. 1: `ΔW = α/r · (B₁A₁) ∘ (B₂A₂)`.

    `hada_w1_b` is `A₁` `(rank, in)`, `hada_w1_a` is `B₁` `(out, rank)`; a convolution's `A₁` is `(rank, in·k·k)`. With
    Tucker's core `hada_t1` `(rank, rank, k, k)`, `hada_w1_a` is `(rank, out)` and `hada_w1_b` `(rank, in)`.

    `(B₁A₁) ∘ (B₂A₂) = [B₁ * B₂] [A₁ * A₂]`, where `*` multiplies all pairs of ranks: exactly a LoRA of rank r². Where
    that costs more multiplications than building `ΔW` and multiplying with it, `ΔW` is built, and kept by nobody.
    """

    hada_w1_a: nn.Parameter
    hada_w1_b: nn.Parameter
    hada_w2_a: nn.Parameter
    hada_w2_b: nn.Parameter

    def __init__(self, layer: Layer, spec: AdapterSpec, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.layer = layer
        self.switch = Switch()
        self.spec = spec
        self.tucker = CORES[0] in tensors
        for name in (*MATRICES, *(CORES if self.tucker else ())):
            self.register_parameter(name, nn.Parameter(tensors[name]))

    def attach(self) -> list[RemovableHandle]:
        return [self.layer.module.register_forward_hook(self._hook)]

    def _hook(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return self.apply_to(output, args[0])

    def apply_to(self, y: Tensor, x: Tensor) -> Tensor:
        """`y + multiplier · ΔW x`, in `y`'s memory: `x` is the layer's input, `y` its output."""
        scale = self.switch.value * self.spec.alpha / self.spec.rank
        mask = output_mask(self, layer_sizes(self.layer)[0], y.device)
        if not self.runs_as_lora(token_count(self.layer, y)):
            build = self._build if mask is None else self._masked(mask)
            return RebuiltAdd.apply(y, x, own_convolution(self.layer), build, scale, *self.parameters())
        if mask is None and not self.tucker and self.layer.kind == "linear":
            return HadamardAdd.apply(y, x, self.hada_w1_a, self.hada_w1_b, self.hada_w2_a, self.hada_w2_b, scale)
        with without_autocast(x.device.type):
            down, up = self._lora_factors()
            up = up if mask is None else up * mask.view(-1, *[1] * (up.dim() - 1))
            if not self.tucker:
                return add_low_rank(self.layer, y, x, down, up, scale=scale)
            inner = F.conv2d(x.to(y.dtype), down.to(y.dtype))
            return UpAdd.apply(y, project(self.layer, inner, self._core(), scale=scale, dtype=y.dtype), up)

    # ---- two ways to the same product ----

    def runs_as_lora(self, tokens: int) -> bool:
        """Whether the LoRA of rank r² costs fewer multiplications than building `ΔW` at so many tokens."""
        as_lora, built = self._multiplications(tokens)
        return as_lora <= built

    def _multiplications(self, tokens: int) -> tuple[int, int]:
        """Of a forward and a backward pass: as a LoRA of rank r², and with `ΔW` built in each of them.

        Building takes two products, twice; their gradients two each. A convolution's backward runs it once more.
        """
        outputs, inputs = layer_sizes(self.layer)
        rank, squared = self.spec.rank, self.spec.rank**2
        kernel = layer_weight(self.layer)[0, 0].numel()
        inner = inputs // kernel if self.tucker else inputs
        core = squared * kernel if self.tucker else 0
        passes = 3 if self.layer.kind == "linear" else 4
        built = passes * tokens * inputs * outputs + 8 * rank * inputs * outputs
        return 3 * tokens * squared * (inner + core + outputs), built

    def _build(self, w1_a: Tensor, w1_b: Tensor, w2_a: Tensor, w2_b: Tensor, *cores: Tensor) -> Tensor:
        """`(B₁A₁) ∘ (B₂A₂)` in the shape of the layer's weight."""
        if cores:
            return tucker_weight(cores[0], w1_a, w1_b) * tucker_weight(cores[1], w2_a, w2_b)
        return ((w1_a @ w1_b) * (w2_a @ w2_b)).view(layer_weight(self.layer).shape)

    def _masked(self, mask: Tensor) -> Callable[..., Tensor]:
        return lambda *factors: self._build(*factors) * mask.view(-1, *[1] * (layer_weight(self.layer).dim() - 1))

    def _lora_factors(self) -> tuple[Tensor, Tensor]:
        """`A` `(r², in[, k, k])` and `B` `(out, r²[, 1, 1])`; with a core, the 1×1 convolutions round it."""
        ones = [1] * (layer_weight(self.layer).dim() - 2)
        down = (self.hada_w1_b[:, None] * self.hada_w2_b[None]).flatten(0, 1)
        if self.tucker:
            up = (self.hada_w1_a[:, None] * self.hada_w2_a[None]).flatten(0, 1).t()
            return down.view(*down.shape, *ones), up.reshape(*up.shape, *ones)
        up = (self.hada_w1_a[:, :, None] * self.hada_w2_a[:, None]).flatten(1)
        return down.view(down.shape[0], *layer_weight(self.layer).shape[1:]), up.view(*up.shape, *ones)

    def _core(self) -> Tensor:
        """The core convolution of all pairs of ranks, `(r², r², k, k)`."""
        first, second = self.get_parameter(CORES[0]), self.get_parameter(CORES[1])
        pairs = torch.einsum("pqhw,sthw->psqthw", first, second)
        return pairs.flatten(2, 3).flatten(0, 1)

    # ---- files and norms ----

    @torch.no_grad()
    def delta(self, weight: Tensor) -> Tensor:
        w1_a, w1_b, w2_a, w2_b, *cores = self.parameters()
        if cores:
            product = merged_tucker(cores[0], w1_a, w1_b) * merged_tucker(cores[1], w2_a, w2_b)
        else:
            product = self._build(w1_a, w1_b, w2_a, w2_b)
        return product * (self.spec.alpha / self.spec.rank)

    def bias_delta(self) -> None:
        return None

    def cost(self, tokens: int) -> Cost:
        inputs = layer_sizes(self.layer)[1]
        as_lora = self.runs_as_lora(tokens)
        kept = inputs + (self.spec.rank**2 if as_lora else 0)
        count = sum(parameter.numel() for parameter in self.parameters())
        return Cost(count, min(self._multiplications(tokens)), tokens * kept, rebuilt=not as_lora)

    def kohya_tensors(self) -> dict[str, Tensor]:
        return {**dict(self.named_parameters()), "alpha": torch.tensor(self.spec.alpha)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        self.spec = loaded_spec(self.spec, tensors)
        load_parameters(self, self.layer, tensors)

    def limit_norm(self, limit: float) -> bool:
        norm = float(self.delta(layer_weight(self.layer)).norm())
        return scale_parameters(self.parameters(), norm=norm, limit=limit)


class HadamardAdd(torch.autograd.Function):
    """`y + scale · (B₁A₁ ∘ B₂A₂) x` of a linear layer as the LoRA of rank r² that it is, written into `y`'s memory.

    The factors of all pairs of ranks are made again in the backward pass: kept are the input and the product of rank
    r². `B`'s stand on their sides, `(r², out)`, so that what is made and summed lies in rows of a layer's width.
    """

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, x: Tensor, w1_a: Tensor, w1_b: Tensor, w2_a: Tensor, w2_b: Tensor, scale: float
    ) -> Tensor:
        with without_autocast(y.device.type):
            rows = as_type(x.reshape(-1, x.shape[-1]), y.dtype)
            h = torch.mm(rows, as_type(_pairs(w1_b, w2_b), y.dtype).t())
            ctx.save_for_backward(rows, h, w1_a, w1_b, w2_a, w2_b)
            ctx.scale, ctx.input_dtype = scale, x.dtype
            return add_rows(y.detach(), h, as_type(_pairs(w1_a.t(), w2_a.t()), y.dtype).t(), scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        rows, h, w1_a, w1_b, w2_a, w2_b = ctx.saved_tensors
        dtype, scale = grad.dtype, ctx.scale
        with without_autocast(grad.device.type):
            grad_rows = grad.reshape(-1, grad.shape[-1])
            grad_h = torch.mm(grad_rows, as_type(_pairs(w1_a.t(), w2_a.t()), dtype).t())
            grad_h = grad_h if scale == 1.0 else grad_h.mul_(scale)
            grad_up = as_type(torch.mm(h.t(), grad_rows), w1_a.dtype)
            grad_up = grad_up if scale == 1.0 else grad_up.mul_(scale)
            grad_w1_a, grad_w2_a = _of_pairs(grad_up, w1_a.t(), w2_a.t())
            grad_w1_b, grad_w2_b = _of_pairs(as_type(torch.mm(grad_h.t(), rows), w1_b.dtype), w1_b, w2_b)
            grad_x = None
            if ctx.needs_input_grad[1]:
                grad_x = torch.mm(grad_h, as_type(_pairs(w1_b, w2_b), dtype)).view(*grad.shape[:-1], -1)
                grad_x = as_type(grad_x, ctx.input_dtype)
        return grad, grad_x, grad_w1_a.t(), grad_w1_b, grad_w2_a.t(), grad_w2_b, None


def _pairs(first: Tensor, second: Tensor) -> Tensor:
    """Products of all pairs of rows, `(r, width)` twice -> `(r², width)`."""
    return (first.contiguous().unsqueeze(1) * second.contiguous()).view(-1, first.shape[1])


def _of_pairs(grad: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of both factors of `_pairs`."""
    rank = first.shape[0]
    grad = grad.view(rank, rank, -1)
    return (grad * second).sum(1), (grad * first.unsqueeze(1)).sum(0)


def tucker_weight(core: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """`Σ core[p, q] · up[p, out] · down[q, in]`, `(out, in, k, k)`; `make_weight_cp` of the web UI's lyco_helpers."""
    return torch.einsum("pqhw,po,qi->oihw", core, up, down)


def merged_tucker(core: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """The same in the web UI's order of multiplications, so that a merged layer is its own to the last bit."""
    return torch.einsum("ijkl,ir->rjkl", torch.einsum("ijkl,jr->irkl", core, down), up)


def make_loha(
    layer: Layer, spec: AdapterSpec, *, options: LohaOptions, generator: torch.Generator, device: torch.device
) -> Adapter:
    """A new LoHa on `layer`, begun as LyCORIS begins: one factor zero, so that the change is.

    https://github.com/KohakuBlueleaf/LyCORIS/blob/f49d30d/lycoris/modules/loha.py#L176-L186
    """
    weight = layer_weight(layer)
    outputs, inputs = layer_sizes(layer)
    tucker = options.tucker and weight[0, 0].numel() > 1
    ups, downs = (spec.rank, outputs) if tucker else (outputs, spec.rank), (spec.rank, inputs)
    if tucker:
        downs = (spec.rank, weight.shape[1])
    tensors = {
        "hada_w1_a": torch.empty(ups).normal_(std=0.1, generator=generator),
        "hada_w1_b": torch.empty(downs).normal_(std=1.0, generator=generator),
        "hada_w2_a": torch.zeros(ups),
        "hada_w2_b": torch.empty(downs).normal_(std=1.0, generator=generator),
    }
    if tucker:
        shape = (spec.rank, spec.rank, *weight.shape[2:])
        tensors |= {name: torch.empty(shape).normal_(std=0.1, generator=generator) for name in CORES}
    adapter = LohaAdapter(layer, spec, {name: tensor.to(device) for name, tensor in tensors.items()})
    return DecomposedAdapter(adapter) if options.weight_decompose else adapter


def loha_like(layer: Layer, tensors: Mapping[str, Tensor], device: torch.device) -> Adapter:
    """A LoHa of the rank that a file's tensors have; its matrices may be stored as convolutions."""
    rank = tensors["hada_w1_b"].shape[0]
    empty = {
        name: torch.zeros(tensors[name].shape if name in CORES else tensors[name].flatten(1).shape, device=device)
        for name in (*MATRICES, *CORES)
        if name in tensors
    }
    adapter = LohaAdapter(layer, loaded_spec(AdapterSpec(rank=rank, alpha=float(rank)), tensors), empty)
    return decomposed_like(adapter, tensors)


def loha_arguments(options: LohaOptions) -> dict[str, str]:
    """kohya's `--network_args` for LyCORIS."""
    told = {"use_tucker": options.tucker, "rs_lora": options.rank_stabilised}
    dora = DORA_ARGUMENTS if options.weight_decompose else {}
    return {"algo": "loha", **{name: "True" for name, given in told.items() if given}, **dora}


ALGORITHM = Algorithm(
    name="loha",
    title="LoHa",
    summary="The product of two LoRAs, entry by entry: of a rank up to r² at the size of two LoRAs.",
    make=make_loha,
    like=loha_like,
    keys=(frozenset(MATRICES), frozenset((*MATRICES, *CORES))),
    optional=frozenset({"alpha", "dora_scale"}),
    options=LohaOptions,
    common=frozenset({"rank", "alpha", "rank_dropout"}),
    arguments=loha_arguments,
)
