"""BOFT: rotations of small blocks, mixed like the wings of a butterfly, so that every output meets every other."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.hooks import RemovableHandle

from lib_pivotal.errors import NetworkError
from lib_pivotal.networks.adapter import AdapterSpec, Cost, Switch, layer_weight, load_parameters, scale_parameters
from lib_pivotal.networks.algorithm import Algorithm
from lib_pivotal.networks.ops import without_autocast
from lib_pivotal.ports import Layer

from .oft import OftOptions, arguments_of, cayley, merged_rotations, no_rotation, read_from, without_bias


class BoftAdapter(nn.Module):
    """BOFT, Liu et al. 2023 (arXiv 2311.06243), section 4, as LyCORIS writes it: `W' = R_m … R₁ W`.

    `oft_blocks` `(stages, blocks, size, size)`; stage i rotates blocks of outputs that lie `2^i · size / 2` apart.
    Constraint and `rescale` are as DiagOFT's. The frozen layer's product without its bias is turned.

    The change is linear in the multiplier: so the web UI merges it ("TODO: determine correct value for scale"), while
    LyCORIS at a multiplier other than 1 blends each stage with none.
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
        _, blocks, size, _ = self.oft_blocks.shape
        if blocks * size != layer_weight(layer).shape[0]:
            raise NetworkError(
                f"{layer.name}: {blocks} blocks of {size} are not the layer's {layer_weight(layer).shape[0]} outputs. "
                "The file is for another model."
            )

    def attach(self) -> list[RemovableHandle]:
        return [self.layer.module.register_forward_hook(self._hook)]

    def _hook(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        with without_autocast(output.device.type):
            product = without_bias(output, module)
            channels = product if self.layer.kind == "linear" else product.movedim(1, -1)
            # made again in the backward pass: the stages between would be kept as large as the output, each of them
            turned = checkpoint(self._turned, channels, use_reentrant=False, preserve_rng_state=False)
            changed = turned - channels
            changed = changed if self.layer.kind == "linear" else changed.movedim(-1, 1)
            return output + changed * self.switch.value

    def _turned(self, rows: Tensor) -> Tensor:
        """`(..., out)` through all stages."""
        rotations = cayley(self.oft_blocks, limit=self.constraint * layer_weight(self.layer).shape[0]).to(rows.dtype)
        for stage, rotation in enumerate(rotations):
            rows = _stage(rows, rotation, stage)
        return rows if self.rescale is None else rows * self.rescale.view(-1).to(rows.dtype)

    # ---- files and norms ----

    @torch.no_grad()
    def delta(self, weight: Tensor) -> Tensor:
        rotations = merged_rotations(self.oft_blocks, limit=self.constraint * weight.shape[0])
        merged = own = weight.to(rotations)
        for stage, rotation in enumerate(rotations):
            merged = _merged_stage(merged, rotation, stage)
        return (merged if self.rescale is None else self.rescale * merged) - own

    def bias_delta(self) -> None:
        return None

    def cost(self, tokens: int) -> Cost:
        stages, blocks, size, _ = self.oft_blocks.shape
        outputs, count = blocks * size, sum(parameter.numel() for parameter in self.parameters())
        products = stages * outputs * size
        return Cost(count, 4 * tokens * products + 8 * products * size, tokens * outputs)

    def kohya_tensors(self) -> dict[str, Tensor]:
        return {**dict(self.named_parameters()), "alpha": torch.tensor(self.constraint)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        self.constraint = float(tensors["alpha"]) if "alpha" in tensors else 0.0
        load_parameters(self, self.layer, tensors)

    def limit_norm(self, limit: float) -> bool:
        """As LyCORIS: of the blocks, since a rotation's change is not proportional to them."""
        return scale_parameters([self.oft_blocks], norm=float(self.oft_blocks.norm()), limit=limit)


def _stage(rows: Tensor, rotation: Tensor, stage: int) -> Tensor:
    """One stage: outputs `2^stage · size / 2` apart are brought together, turned by block, and put back.

    `rearrange("(c g k) -> (c k g)", g=2)`, `b i j, b j -> b i`, and back, of the web UI's network_oft.py.
    """
    blocks, size = rotation.shape[:2]
    apart = 2**stage * size // 2
    together = rows.unflatten(-1, (-1, 2, apart)).transpose(-1, -2).flatten(-3).unflatten(-1, (blocks, size))
    turned = torch.einsum("bij,...bj->...bi", rotation, together)
    return turned.flatten(-2).unflatten(-1, (-1, apart, 2)).transpose(-1, -2).flatten(-3)


def _merged_stage(weight: Tensor, rotation: Tensor, stage: int) -> Tensor:
    """`_stage` of a weight's outputs, by the operations of the web UI's network_oft.py, so that no bit differs."""
    blocks, size = rotation.shape[:2]
    apart, rest = 2**stage * size // 2, weight.shape[1:]
    together = weight.reshape(-1, 2, apart, *rest).transpose(1, 2).reshape(blocks, size, *rest)
    turned = torch.einsum("bij,bj...->bi...", rotation, together)
    return turned.reshape(-1, apart, 2, *rest).transpose(1, 2).reshape(weight.shape)


def butterfly(outputs: int, largest: int) -> tuple[int, int, int]:
    """Stages, blocks and block size for so many outputs: the largest even size up to `largest` of which the number of
    blocks is a power of 2, and as many stages as join them all. LyCORIS' `power2factorization`.

    >>> butterfly(320, 32), butterfly(1280, 16)
    ((5, 16, 20), (8, 128, 10))
    """
    sizes = range(largest - largest % 2, 0, -2)
    size = next((one for one in sizes if outputs % one == 0 and (outputs // one).bit_count() == 1), None)
    if size is None:
        raise NetworkError(
            f"rank = {largest}: {outputs} outputs are no power of 2 of blocks of an even size up to it. Take a larger "
            "rank, or leave such layers out."
        )
    blocks = outputs // size
    return blocks.bit_length(), blocks, size


def make_boft(
    layer: Layer, spec: AdapterSpec, *, options: OftOptions, generator: torch.Generator, device: torch.device
) -> BoftAdapter:
    """A new BOFT on `layer`: no rotation. The rank is the largest block size."""
    stages, blocks, size = butterfly(layer_weight(layer).shape[0], spec.rank)
    tensors = no_rotation(layer, (stages, blocks, size, size), outputs=blocks * size, options=options, device=device)
    return BoftAdapter(layer, spec, tensors, constraint=options.constraint)


def boft_like(layer: Layer, tensors: Mapping[str, Tensor], device: torch.device) -> BoftAdapter:
    """A BOFT of the blocks that a file's tensors have."""
    spec, empty, constraint = read_from(tensors, device)
    return BoftAdapter(layer, spec, empty, constraint=constraint)


def boft_arguments(options: OftOptions) -> dict[str, str]:
    """kohya's `--network_args` for LyCORIS."""
    return arguments_of("boft", options)


ALGORITHM = Algorithm(
    name="boft",
    title="BOFT",
    summary="DiagOFT whose blocks are mixed in several stages: more angles for each parameter, at a higher cost.",
    make=make_boft,
    like=boft_like,
    keys=(frozenset({"oft_blocks"}),),
    optional=frozenset({"alpha", "rescale"}),
    stored_so=lambda tensors: tensors["oft_blocks"].dim() == 4,
    options=OftOptions,
    common=frozenset({"rank"}),
    arguments=boft_arguments,
)
