"""What a layer of a network file adds to its weight, for every kind of network that the web UI 1.10.1 reads.

`layer_delta` is the one place that knows these formulas outside of training. They are the web UI's
(extensions-builtin/Lora/network_*.py), at multiplier 1; where a file can mean more than one thing, the kind's function
says which. `W` is the layer's own weight, which some kinds need:

    LoRA, LoCon    s · up down, with a Tucker core s · mid x up x down           s = alpha / rank
    LoHa           s · (w1a w1b) o (w2a w2b), Tucker cores t1, t2
    LoKr           s · w1 (x) w2, either of them factored
    full, norm     diff and diff_b; w_norm and b_norm
    (IA)^3         W scaled an input or an output channel                        needs W
    GLoRA          b2 b1 + W a2 a1                                               needs W
    OFT, BOFT      (R - 1) W                                                     needs W
    DoRA           m (W + delta) / |W + delta| - W over any of the above         needs W
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lib_pivotal.errors import NetworkError

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class LayerDelta:
    """What is added to a layer's weight (in its shape, where that is known) and to its bias; None: nothing."""

    weight: Tensor
    bias: Tensor | None = None


@dataclass(frozen=True)
class _LayerKind:
    """A kind by the suffixes of its keys; `make` gets tensors in the dtype of the arithmetic."""

    name: str
    required: tuple[frozenset[str], ...]
    optional: frozenset[str]
    make: Callable[[Tensors, Tensor | None], Tensor]
    needs_weight: bool = False

    def accepts(self, suffixes: frozenset[str]) -> bool:
        return any(required <= suffixes for required in self.required)


def kind_of(layer: Tensors) -> str:
    """The name of the kind that a layer's tensors (by suffix) are of, as the web UI decides it.

    Raises:
        NetworkError: they are of none, or some of them have no place in it.
    """
    return _kind(layer).name


def needs_weight(layer: Tensors) -> bool:
    """Whether the layer's delta depends on the weight of the checkpoint that it is applied to."""
    return _kind(layer).needs_weight or "dora_scale" in layer


def layer_delta(layer: Tensors, *, weight: Tensor | None = None, dtype: torch.dtype = torch.float32) -> LayerDelta:
    """The delta of one layer from its tensors by suffix (`network_layouts.group_layers`), in `dtype`.

    Without `weight` the shape is the file's: a linear factor kept as a 1x1 convolution gives four dimensions, a
    convolution kept flat gives two (`with_kernel` puts its kernel back).

    Raises:
        NetworkError: no kind is known for these tensors, the kind needs `weight`, or shapes do not fit.
    """
    kind = _kind(layer)
    if weight is None and needs_weight(layer):
        told = "DoRA" if "dora_scale" in layer else kind.name
        raise NetworkError(f"{told} changes a layer relative to its weight: the checkpoint is needed")
    own = None if weight is None else weight.detach().to(dtype)
    tensors = {name: tensor.detach().to(dtype) for name, tensor in layer.items()}
    try:
        delta = kind.make(tensors, own)
        if own is not None:
            delta = delta.reshape(own.shape)
    except (RuntimeError, IndexError) as error:
        shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in layer.items())
        against = "" if weight is None else f", for a weight {list(weight.shape)}"
        raise NetworkError(f"the tensors of a {kind.name} layer do not fit together: {shapes}{against}") from error
    if own is not None and "dora_scale" in tensors:
        delta = _decomposed(delta, own, tensors["dora_scale"])
    return LayerDelta(delta, tensors.get("diff_b", tensors.get("b_norm")))


def with_kernel(delta: Tensor, name: str) -> Tensor:
    """A convolution's delta that a file keeps flat, `(out, in · 9)`, as `(out, in, 3, 3)`; any other as it is.

    SD's U-Nets have 3x3 kernels at these places and nowhere else, so the layer's name tells it.
    """
    if delta.dim() != 2 or not name.endswith(_KERNELS_OF_3) or delta.shape[1] % 9:
        return delta
    return delta.reshape(delta.shape[0], -1, 3, 3)


_KERNELS_OF_3 = (
    "_conv_in", "_conv_out", "_conv1", "_conv2", "samplers_0_conv", "_in_layers_2", "_out_layers_3", "_op", "_1_conv",
    "_2_conv", "_input_blocks_0_0", "_unet_out_2",
)  # fmt: skip


def _kind(layer: Tensors) -> _LayerKind:
    suffixes = frozenset(layer)
    kind = next((kind for kind in _KINDS if kind.accepts(suffixes)), None)
    told = ", ".join(sorted(suffixes))
    if kind is None:
        raise NetworkError(f"holds {told}, which is no complete layer of a kind that is known")
    if odd := suffixes - frozenset().union(*kind.required) - kind.optional:
        raise NetworkError(f"holds {', '.join(sorted(odd))}, which has no place in a {kind.name} layer ({told})")
    return kind


def _scale(tensors: Tensors, rank: int | None) -> float:
    """`NetworkModule.calc_scale`: a `scale` of its own, else alpha / rank where there are both, else 1."""
    if "scale" in tensors:
        return float(tensors["scale"])
    return float(tensors["alpha"]) / rank if rank and "alpha" in tensors else 1.0


def _product(up: Tensor, down: Tensor) -> Tensor:
    """`rebuild_conventional`: the kernel is in `down`, `up` is 1x1."""
    return (up.flatten(1) @ down.flatten(1)).reshape(up.shape[0], *down.shape[1:])


def _tucker(core: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """`make_weight_cp`: core `(i, j, k, l)`, `up` `(i, out)`, `down` `(j, in)`."""
    return torch.einsum("ijkl,ip,jr->prkl", core, up.flatten(1), down.flatten(1))


def _lora(tensors: Tensors, weight: Tensor | None) -> Tensor:
    up, down, mid = (tensors.get(f"lora_{part}.weight") for part in ("up", "down", "mid"))
    if up is None or down is None:
        up, down = tensors["lora_B.weight"], tensors["lora_A.weight"]
    scale = _scale(tensors, down.shape[0])
    return scale * (_product(up, down) if mid is None else _tucker(mid, up.flatten(1).T, down))


def _loha(tensors: Tensors, weight: Tensor | None) -> Tensor:
    factors = []
    for half in ("1", "2"):
        a, b, core = tensors[f"hada_w{half}_a"], tensors[f"hada_w{half}_b"], tensors.get(f"hada_t{half}")
        factors.append(_product(a, b) if core is None else _tucker(core, a, b))
    return _scale(tensors, tensors["hada_w1_b"].shape[0]) * factors[0] * factors[1]


def _lokr(tensors: Tensors, weight: Tensor | None) -> Tensor:
    """The rank is that of the factor that was factored, the second's where both were; with none the scale is 1."""
    rank = next((tensors[name].shape[0] for name in ("lokr_w2_b", "lokr_w1_b") if name in tensors), None)
    first, second = (_lokr_factor(tensors, half) for half in ("1", "2"))
    if second.dim() == 4:
        first = first[:, :, None, None]
    return _scale(tensors, rank) * torch.kron(first, second.contiguous())


def _lokr_factor(tensors: Tensors, half: str) -> Tensor:
    if f"lokr_w{half}" in tensors:
        return tensors[f"lokr_w{half}"]
    a, b, core = tensors[f"lokr_w{half}_a"], tensors[f"lokr_w{half}_b"], tensors.get(f"lokr_t{half}")
    return a @ b if core is None else _tucker(core, a, b)


def _full(tensors: Tensors, weight: Tensor | None) -> Tensor:
    return _scale(tensors, None) * tensors["diff"]


def _norm(tensors: Tensors, weight: Tensor | None) -> Tensor:
    return _scale(tensors, None) * tensors["w_norm"]


def _ia3(tensors: Tensors, weight: Tensor | None) -> Tensor:
    """A number a channel. For a convolution's outputs this is LyCORIS' formula: the web UI's does not broadcast."""
    assert weight is not None
    shape = [1] * weight.dim()
    shape[1 if bool(tensors["on_input"]) else 0] = -1
    return _scale(tensors, None) * weight * tensors["weight"].reshape(shape)


def _glora(tensors: Tensors, weight: Tensor | None) -> Tensor:
    """The web UI's factors are `a2 (in, r)`, `a1 (r, in)`, `b2 (out, r)`, `b1 (r, in)`, and it reads no alpha.

    LyCORIS 4 writes the same under exchanged names, scaled by alpha / r, which the web UI cannot multiply at all.
    """
    assert weight is not None
    a1, a2, b1, b2 = (tensors[f"{name}.weight"] for name in ("a1", "a2", "b1", "b2"))
    scale = _scale(tensors, None)
    if a2.shape[0] != weight.shape[1]:
        a1, a2, b1, b2, scale = a2, a1, b2, b1, _scale(tensors, a2.shape[0])
    inner = a2.flatten(1) @ a1.flatten(1)
    return scale * (_product(b2, b1).reshape(weight.shape) + torch.einsum("oi...,ij->oj...", weight, inner))


def _oft(tensors: Tensors, weight: Tensor | None) -> Tensor:
    """`oft_blocks`: skew matrices, of which Cayley's transform makes rotations; `oft_diag`: the rotations.

    alpha is the constraint, times the number of outputs: the largest norm that the skew matrices have together.
    """
    assert weight is not None
    if "oft_diag" in tensors:
        turned = _turned(tensors["oft_diag"], weight)
    else:
        blocks = tensors["oft_blocks"]
        rotations = _rotations(blocks, float(tensors.get("alpha", torch.tensor(0.0))) * weight.shape[0])
        turned = _turned(rotations, weight) if blocks.dim() == 3 else _butterfly(rotations, weight)
    if "rescale" in tensors:
        turned = turned * tensors["rescale"].reshape(-1, *[1] * (weight.dim() - 1))
    return turned - weight


def _rotations(blocks: Tensor, constraint: float) -> Tensor:
    skew = blocks - blocks.transpose(-1, -2)
    if constraint:
        norm = skew.norm()
        skew = skew * ((norm.clamp(max=constraint) + 1e-8) / (norm + 1e-8))
    eye = torch.eye(blocks.shape[-1], dtype=blocks.dtype)
    return (eye + skew) @ torch.linalg.inv(eye - skew)


def _turned(rotations: Tensor, weight: Tensor) -> Tensor:
    """Groups of outputs turned by one block `(blocks, n, n)` each."""
    groups = weight.reshape(-1, rotations.shape[-1], *weight.shape[1:])
    return torch.einsum("knm,kn...->km...", rotations, groups).reshape(weight.shape)


def _butterfly(rotations: Tensor, weight: Tensor) -> Tensor:
    """BOFT, `(m, blocks, b, b)`: m turns, each of outputs that lie further apart; Liu et al. 2023, arXiv 2311.06243."""
    size = rotations.shape[-1]
    turned = weight
    for step, blocks in enumerate(rotations):
        apart = 2**step * size // 2
        rest = turned.shape[1:]
        paired = turned.reshape(-1, 2, apart, *rest).transpose(1, 2).reshape(-1, size, *rest)
        paired = torch.einsum("bij,bj...->bi...", blocks, paired)
        turned = paired.reshape(-1, apart, 2, *rest).transpose(1, 2).reshape(weight.shape)
    return turned


def _decomposed(delta: Tensor, weight: Tensor, magnitude: Tensor) -> Tensor:
    """DoRA along the axis that the magnitude has: inputs (`NetworkModule.apply_weight_decompose`), else outputs.

    The web UI knows inputs only, and takes a magnitude an output for what it is not.
    """
    merged = weight + delta
    axis = 0 if magnitude.shape[0] == weight.shape[0] and magnitude.numel() == weight.shape[0] else 1
    if magnitude.numel() != weight.shape[axis]:
        raise NetworkError(f"dora_scale {list(magnitude.shape)} does not belong to a weight {list(weight.shape)}")
    shape = [-1 if at == axis else 1 for at in range(weight.dim())]
    norm = torch.linalg.vector_norm(merged, dim=[at for at in range(weight.dim()) if at != axis], keepdim=True)
    return merged * (magnitude.reshape(shape) / norm) - weight


def _sets(*names: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(name.split()) for name in names)


_ANY = frozenset({"alpha", "scale", "dora_scale"})
_KINDS = (
    _LayerKind(
        "LoRA",
        _sets("lora_up.weight lora_down.weight", "lora_A.weight lora_B.weight"),
        _ANY | {"lora_mid.weight"},
        _lora,
    ),
    _LayerKind("LoHa", _sets("hada_w1_a hada_w1_b hada_w2_a hada_w2_b"), _ANY | {"hada_t1", "hada_t2"}, _loha),
    _LayerKind("(IA)^3", _sets("weight on_input"), _ANY, _ia3, needs_weight=True),
    _LayerKind(
        "LoKr",
        _sets(
            "lokr_w1 lokr_w2",
            "lokr_w1_a lokr_w1_b lokr_w2",
            "lokr_w1 lokr_w2_a lokr_w2_b",
            "lokr_w1_a lokr_w1_b lokr_w2_a lokr_w2_b",
        ),
        _ANY | {"lokr_t1", "lokr_t2"},
        _lokr,
    ),  # fmt: skip
    _LayerKind("full", _sets("diff"), _ANY | {"diff_b"}, _full),
    _LayerKind("norm", _sets("w_norm b_norm", "w_norm"), _ANY, _norm),
    _LayerKind("GLoRA", _sets("a1.weight a2.weight b1.weight b2.weight"), _ANY, _glora, needs_weight=True),
    _LayerKind("OFT", _sets("oft_blocks", "oft_diag"), _ANY | {"rescale"}, _oft, needs_weight=True),
)
