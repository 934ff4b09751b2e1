"""DiagOFT and COFT: blocks of a layer's outputs are rotated. The rotation acts on the output; no weight is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.hooks import RemovableHandle

from lib_pivotal.config_schema import setting
from lib_pivotal.errors import NetworkError
from lib_pivotal.networks.adapter import (
    AdapterSpec,
    Cost,
    Switch,
    layer_weight,
    load_parameters,
    scale_parameters,
)
from lib_pivotal.networks.algorithm import Algorithm
from lib_pivotal.networks.ops import as_type, without_autocast
from lib_pivotal.ports import Layer

from .lokr import factorization

TRAINED = ("oft_blocks", "rescale")


@dataclass(frozen=True)
class OftOptions:
    """Settings of rotations, of DiagOFT and BOFT alike."""

    constraint: float = setting(
        0.0,
        "COFT: a layer's rotation stays this close to none, times the number of its outputs; 0 = free.",
        minimum=0.0,
        maximum=10.0,
        good_range="1e-5 to 1e-3",
    )
    rescale: bool = setting(False, "Each output is also scaled by a trained factor.")


class OftAdapter(nn.Module):
    """OFT, Qiu et al. 2023 (arXiv 2306.07280), eq. 6, as LyCORIS' DiagOFT writes it: `W' = diag(R₁ᵀ, …, Rₙᵀ) W`.

    `R = (I + Q)(I - Q)⁻¹` with `Q = B - Bᵀ` of `oft_blocks` `(blocks, size, size)`; where the norm of all `Q` exceeds
    `constraint · out` they are scaled down to it (COFT, eq. 7). `rescale` `(out, 1[, 1, 1])` multiplies the rows after.

    `W' x = Rᵀ (W x)`: the frozen layer's product without its bias is rotated. The change is linear in the multiplier,
    as the web UI and LyCORIS merge it.
    """

    oft_blocks: nn.Parameter
    rescale: nn.Parameter | None

    def __init__(self, layer: Layer, spec: AdapterSpec, tensors: Mapping[str, Tensor], *, constraint: float) -> None:
        super().__init__()
        self.layer = layer
        self.switch = Switch()
        self.spec = spec
        self.constraint = constraint
        self.oft_blocks = nn.Parameter(tensors["oft_blocks"])
        self.rescale = nn.Parameter(tensors["rescale"]) if "rescale" in tensors else None
        blocks, size = self.oft_blocks.shape[:2]
        if blocks * size != layer_weight(layer).shape[0]:
            raise NetworkError(
                f"{layer.name}: {blocks} blocks of {size} are not the layer's {layer_weight(layer).shape[0]} outputs. "
                "The file is for another model."
            )

    def attach(self) -> list[RemovableHandle]:
        return [self.layer.module.register_forward_hook(self._hook)]

    def _hook(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        multiplier = self.switch.value
        with without_autocast(output.device.type):
            change = self._change()
            change = as_type(change if multiplier == 1.0 else change * multiplier, output.dtype)
            if self.layer.kind == "linear" and output.is_contiguous():
                return TurnRows.apply(output, module.bias, change, multiplier == 1.0 and self.rescale is None)
            return output + turned(without_bias(output, module), change, self.layer)

    def _change(self) -> Tensor:
        """`R · diag(rescale) - I` of each block, `(blocks, size, size)`."""
        change = cayley_change(self.oft_blocks, limit=self.constraint * layer_weight(self.layer).shape[0])
        if self.rescale is None:
            return change
        factor = self.rescale.view(change.shape[0], 1, -1)
        return change * factor + torch.diag_embed(factor[:, 0] - 1.0)

    # ---- files and norms ----

    @torch.no_grad()
    def delta(self, weight: Tensor) -> Tensor:
        rotations = merged_rotations(self.oft_blocks, limit=self.constraint * weight.shape[0])
        own = weight.to(rotations)
        groups = own.reshape(*rotations.shape[:2], *weight.shape[1:])
        merged = torch.einsum("knm,kn...->km...", rotations, groups).reshape(weight.shape)
        return (merged if self.rescale is None else self.rescale * merged) - own

    def bias_delta(self) -> None:
        return None

    def cost(self, tokens: int) -> Cost:
        blocks, size = self.oft_blocks.shape[:2]
        outputs, count = blocks * size, sum(parameter.numel() for parameter in self.parameters())
        return Cost(count, 3 * tokens * outputs * size + 6 * outputs * size**2, tokens * outputs)

    def kohya_tensors(self) -> dict[str, Tensor]:
        return {**dict(self.named_parameters()), "alpha": torch.tensor(self.constraint)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        self.constraint = constraint_of(tensors)
        if "oft_diag" in tensors:
            tensors = {**tensors, "oft_blocks": blocks_of(tensors["oft_diag"], self.layer)}
        load_parameters(self, self.layer, tensors)

    def limit_norm(self, limit: float) -> bool:
        """As LyCORIS: of the blocks, since a rotation's change is not proportional to them."""
        return scale_parameters([self.oft_blocks], norm=float(self.oft_blocks.norm()), limit=limit)


def cayley(blocks: Tensor, *, limit: float) -> Tensor:
    """`(I + Q)(I - Q)⁻¹` with `Q = B - Bᵀ`, all of norm `limit` at most where that is not 0."""
    change = cayley_change(blocks, limit=limit)
    return change + torch.eye(change.shape[-1], dtype=change.dtype, device=change.device)


def cayley_change(blocks: Tensor, *, limit: float) -> Tensor:
    """The same less `I`.

    The 1e-8 are the web UI's (network_oft.py, `calc_updown`), so that the change is the same.
    """
    skew = blocks - blocks.transpose(-1, -2)
    if limit > 0:
        norm = torch.linalg.vector_norm(skew)
        skew = skew * ((norm.clamp(max=limit) + 1e-8) / (norm + 1e-8))
    return CayleyChange.apply(skew)


class CayleyChange(torch.autograd.Function):
    """`C = (I + Q)(I - Q)⁻¹ - I = 2 Q (I - Q)⁻¹` for skew `Q`, `(..., size, size)`.

    With `M = (I - Q)⁻¹ = I + C/2` the differential is `dC = 2 M dQ M`: the backward pass takes two products of blocks,
    where that of `torch.linalg.solve` factorises them once more and solves twice.
    """

    @staticmethod
    def forward(ctx: Any, skew: Tensor) -> Tensor:
        eye = torch.eye(skew.shape[-1], dtype=skew.dtype, device=skew.device)
        change = torch.linalg.solve(eye - skew, skew + skew)  # the two commute
        ctx.save_for_backward(change)
        return change

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (grad,) = grads
        (change,) = ctx.saved_tensors
        inverse = change.transpose(-1, -2) / 2
        inverse.diagonal(dim1=-2, dim2=-1).add_(1.0)
        return torch.matmul(torch.matmul(inverse, grad), inverse) * 2


class TurnRows(torch.autograd.Function):
    """`y + (y - b) C` by blocks of a linear layer's output: `y` `(..., blocks·size)`, `C` `(blocks, size, size)`.

    Where `I + C` is a rotation its inverse is its transpose: then `y - b = (y' - b)(I + C)ᵀ`, and `C`'s gradient is
    had from the result `y'`, which attention and feed-forward keep anyway, and not from a copy of `y` kept beside it.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, bias: Tensor | None, change: Tensor, rotates: bool) -> Tensor:
        blocks, size = change.shape[:2]
        rows = _by_block(y, blocks, size)
        if bias is None:
            out = y.clone()
        else:  # what the bias would get is taken off again
            out = y - torch.bmm(as_type(bias, y.dtype).view(blocks, 1, size), change).view(-1)
        _by_block(out, blocks, size).baddbmm_(rows, change)
        ctx.rotates = rotates
        ctx.save_for_backward(out if rotates else y.detach(), bias, change)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        kept, bias, change = ctx.saved_tensors
        blocks, size = change.shape[:2]
        with without_autocast(grad.device.type):
            grad_rows = _by_block(grad, blocks, size)
            grad_change = None
            if ctx.needs_input_grad[2]:
                grad_change = torch.bmm(_by_block(kept, blocks, size).transpose(1, 2), grad_rows)
                if bias is not None:
                    grad_change.sub_(as_type(bias, grad.dtype).view(blocks, size, 1) * grad_rows.sum(1, keepdim=True))
                if ctx.rotates:
                    grad_change = torch.baddbmm(grad_change, change, grad_change)
            grad_y = grad.clone(memory_format=torch.contiguous_format)
            _by_block(grad_y, blocks, size).baddbmm_(grad_rows, change.transpose(1, 2))
        return grad_y, None, grad_change, None


def _by_block(rows: Tensor, blocks: int, size: int) -> Tensor:
    """`(..., blocks·size)` as `(blocks, tokens, size)`; a view where the tensor is contiguous."""
    return rows.reshape(-1, blocks, size).transpose(0, 1)


def merged_rotations(blocks: Tensor, *, limit: float) -> Tensor:
    """`cayley` by the operations of the web UI, so that a merged layer is its own to the last bit."""
    skew = blocks - blocks.transpose(-1, -2)
    if limit > 0:
        norm = torch.norm(skew.flatten())
        skew = skew * ((torch.clamp(norm, max=limit) + 1e-8) / (norm + 1e-8))
    eye = torch.eye(blocks.shape[-1], dtype=blocks.dtype, device=blocks.device)
    return torch.matmul(eye + skew, (eye - skew).inverse())


def blocks_of(rotations: Tensor, layer: Layer) -> Tensor:
    """`oft_blocks` that give the rotations which old LyCORIS files hold (`oft_diag`): Cayley's transform turned round,
    `Q = (R - I)(R + I)⁻¹` and `B = Q / 2`.

    Raises:
        NetworkError: they are no rotations, or turn something right round, which Cayley's transform cannot.
    """
    wide = rotations.double()
    eye = torch.eye(wide.shape[-1], dtype=wide.dtype, device=wide.device)
    off = float((wide @ wide.transpose(-1, -2) - eye).abs().max())
    if off > 8 * torch.finfo(rotations.dtype).eps * wide.shape[-1] or float(torch.linalg.det(wide + eye).min()) < 1e-6:
        raise NetworkError(
            f"{layer.name}.oft_diag: is no rotation of less than half a turn (off by {off:.2g}), so that it cannot be "
            "trained on. Make the file a LoRA (bundle to_lora)."
        )
    skew = torch.linalg.solve(wide + eye, wide - eye)
    return ((skew - skew.transpose(-1, -2)) / 4).float()


def constraint_of(tensors: Mapping[str, Tensor]) -> float:
    """A file's `alpha`; of rotations it bounds nothing (the web UI: "alpha is unused")."""
    return float(tensors["alpha"]) if "alpha" in tensors and "oft_diag" not in tensors else 0.0


def without_bias(output: Tensor, module: nn.Module) -> Tensor:
    """A layer's output less its bias: what its matrix gives."""
    bias = getattr(module, "bias", None)
    if bias is None:
        return output
    bias = bias.to(output.dtype)
    return output - (bias[:, None, None] if isinstance(module, nn.Conv2d) else bias)


def turned(product: Tensor, matrices: Tensor, layer: Layer) -> Tensor:
    """Each block of channels, as a row, times its matrix: `matrices` `(blocks, size, size)`."""
    blocks, size = matrices.shape[:2]
    if layer.kind == "conv":
        planes = product.reshape(product.shape[0], blocks, size, -1)
        return torch.matmul(matrices.transpose(1, 2), planes).view(product.shape)
    rows = product.reshape(-1, blocks, size).transpose(0, 1)
    return torch.bmm(rows, matrices).transpose(0, 1).reshape(product.shape)


def make_oft(
    layer: Layer, spec: AdapterSpec, *, options: OftOptions, generator: torch.Generator, device: torch.device
) -> OftAdapter:
    """A new DiagOFT on `layer`: no rotation. The rank is the wanted block size, by LyCORIS' rule no larger than the
    number of blocks (`DiagOFTModule.__init__`), without which it could not read the file."""
    size, blocks = factorization(layer_weight(layer).shape[0], spec.rank)
    tensors = no_rotation(layer, (blocks, size, size), outputs=blocks * size, options=options, device=device)
    return OftAdapter(layer, spec, tensors, constraint=options.constraint)


def no_rotation(
    layer: Layer, shape: tuple[int, ...], *, outputs: int, options: OftOptions, device: torch.device
) -> dict[str, Tensor]:
    """The tensors of blocks of `shape` that turn nothing, and a rescaling by 1 where it is wanted."""
    tensors = {"oft_blocks": torch.zeros(shape, device=device)}
    if options.rescale:
        tensors["rescale"] = torch.ones(outputs, *[1] * (layer_weight(layer).dim() - 1), device=device)
    return tensors


def oft_like(layer: Layer, tensors: Mapping[str, Tensor], device: torch.device) -> OftAdapter:
    """A DiagOFT of the blocks that a file's tensors have."""
    spec, empty, constraint = read_from(tensors, device)
    return OftAdapter(layer, spec, empty, constraint=constraint)


def read_from(tensors: Mapping[str, Tensor], device: torch.device) -> tuple[AdapterSpec, dict[str, Tensor], float]:
    """Spec, tensors to be filled, and constraint of a file's blocks."""
    shapes = {name: tensors[name].shape for name in TRAINED if name in tensors}
    if "oft_diag" in tensors:
        shapes["oft_blocks"] = tensors["oft_diag"].shape
    empty = {name: torch.zeros(shape, device=device) for name, shape in shapes.items()}
    return AdapterSpec(rank=shapes["oft_blocks"][-1], alpha=1.0), empty, constraint_of(tensors)


def oft_arguments(options: OftOptions) -> dict[str, str]:
    """kohya's `--network_args` for LyCORIS."""
    return arguments_of("diag-oft", options)


def arguments_of(algorithm: str, options: OftOptions) -> dict[str, str]:
    """The same of either algorithm, under LyCORIS' name for it."""
    told = {"constraint": str(options.constraint)} if options.constraint else {}
    return {"algo": algorithm, **told, **({"rescaled": "True"} if options.rescale else {})}


ALGORITHM = Algorithm(
    name="oft",
    title="DiagOFT",
    summary="Rotates blocks of a layer's outputs: keeps the angles between what a layer tells apart. The rank is the "
    "block size.",
    make=make_oft,
    like=oft_like,
    keys=(frozenset({"oft_blocks"}), frozenset({"oft_diag"})),
    optional=frozenset({"alpha", "rescale"}),
    stored_so=lambda tensors: "oft_diag" in tensors or tensors["oft_blocks"].dim() == 3,
    options=OftOptions,
    common=frozenset({"rank"}),
    arguments=oft_arguments,
)
