"""Every way in which an embedding's vectors have been spelled, read from names, shapes and dtypes alone.

Used on the tensors of a bundle's embedding and on those of a single embedding file. The result is a plan: which
tensors, which columns of them, make the embedding. So the header alone is enough to list a bundle, and reading follows
the same rules. In order of precedence:

    string_to_param.*       web UI, HCP, LyCORIS            [n, width]; width 2048 is CLIP-L and OpenCLIP-G side by side
    string_to_param.<any>   the same, another inner name
    clip_l (+ clip_g)       web UI SDXL, diffusers, OneTrainer
    text_encoders_0 (+ _1)  older cog-sdxl / diffusers scripts
    emb_params              kohya
    emp_params              OneTrainer (its spelling)
    <any single tensor>     diffusers concepts, cloneofsimo
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from lib_pivotal.bundle.format import EmbeddingTensors, Problem, check_vectors, check_widths
from lib_pivotal.bundle.safetensors_file import dtype_name

_FOREIGN_TOWERS = frozenset({"t5", "t5xxl", "llama", "gemma", "gemma2", "qwen", "clip_h"})
_PAIRS = (("clip_l", "clip_g"), ("text_encoders_0", "text_encoders_1"))
_SINGLES = ("emb_params", "emp_params")
_NARROWEST = 16
"""Width below which a lone tensor without a known name is not taken for an embedding."""
_CONCATENATED = {2048: (768, 1280)}


@dataclass(frozen=True)
class TensorHeader:
    """What is known of a tensor without its data: dtype as safetensors spells it, and shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def is_floating(self) -> bool:
        return self.dtype.startswith(("F", "BF"))


@dataclass(frozen=True)
class TensorPart:
    """Columns `start:stop` of the tensor stored under `key`."""

    key: str
    start: int
    stop: int


@dataclass(frozen=True)
class EmbeddingLayout:
    """How to make an embedding from the tensors that are there: one piece a tower."""

    name: str
    spelling: str
    pieces: tuple[TensorPart, ...]
    vectors: int

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(piece.stop - piece.start for piece in self.pieces)


class _UnusableError(Exception):
    """Inner, short reason why an embedding cannot be read."""


def seen_of(tensor: Tensor) -> TensorHeader:
    """The record of a tensor at hand."""
    return TensorHeader(dtype_name(tensor.dtype), tuple(tensor.shape))


def plan_embedding(name: str, tensors: Mapping[str, TensorHeader]) -> tuple[EmbeddingLayout | None, list[Problem]]:
    """Find the vectors of an embedding among its tensors. No plan means that a Problem of severity `error` says why."""
    problems: list[Problem] = []

    def warn(what: str, remedy: str = "") -> None:
        problems.append(Problem("warning", what, remedy, embedding=name))

    try:
        return _plan(name, tensors, warn), problems
    except _UnusableError as reason:
        problems.append(Problem("error", f"skipped: {reason}", embedding=name))
        return None, problems


def is_single_embedding(tensors: Mapping[str, TensorHeader]) -> bool:
    """Whether a file's tensors are those of one embedding, by their names (or one small tensor under a bare name)."""
    known = {key for pair in _PAIRS for key in pair} | set(_SINGLES)
    bases = {key.removesuffix("_out") for key in tensors}
    if bases and all(base in known or base.split(".")[0] == "string_to_param" for base in bases):
        return True
    if len(tensors) != 1:
        return False
    ((key, seen),) = tensors.items()
    bare = "." not in key and ":" not in key
    return bare and seen.is_floating and len(seen.shape) in (1, 2) and seen.shape[-1] >= _NARROWEST


def carry_out(plan: EmbeddingLayout, fetch: Callable[[str], Tensor]) -> EmbeddingTensors:
    """The embedding's tensors `(vectors, width)`, contiguous, in the dtype in which they are stored."""
    return tuple(
        fetch(piece.key).detach().reshape(plan.vectors, -1)[:, piece.start : piece.stop].contiguous()
        for piece in plan.pieces
    )


def _plan(name: str, tensors: Mapping[str, TensorHeader], warn: Callable[..., None]) -> EmbeddingLayout:
    left = _without_foreign(tensors, warn)
    groups = _groups(left, warn)
    if not groups:
        raise _UnusableError(f"none of its tensors ({', '.join(sorted(tensors))}) are token vectors")
    spelling, keys = groups[0]
    for other, other_keys in groups[1:]:
        warn(f"also holds {', '.join(other_keys)} ({other}); {spelling} is used")
    pieces, vectors = _pieces(left, keys, warn)
    plan = EmbeddingLayout(name, spelling, pieces, vectors)
    reason = check_widths(plan.widths) or check_vectors(vectors)
    if reason:
        raise _UnusableError(reason)
    return plan


def _without_foreign(tensors: Mapping[str, TensorHeader], warn: Callable[..., None]) -> dict[str, TensorHeader]:
    left = dict(tensors)
    for key in tensors:
        base = key.removesuffix("_out")
        if base != key:
            del left[key]
            warn(f"{key} ignored: it replaces the text encoder's output, it is no token vector (OneTrainer)")
        elif base in _FOREIGN_TOWERS:
            del left[key]
            warn(f"{key} ignored: it belongs to another kind of model than SD1, SD2 and SDXL")
    return left


def _groups(left: Mapping[str, TensorHeader], warn: Callable[..., None]) -> list[tuple[str, tuple[str, ...]]]:
    """The spellings that are present, best first: (spelling, its keys)."""
    groups: list[tuple[str, tuple[str, ...]]] = []
    params = sorted(key for key in left if key == "string_to_param" or key.startswith("string_to_param."))
    if params:
        star = "string_to_param.*"
        if len(params) > 1 and star not in params:
            raise _UnusableError(f"has several terms: {', '.join(params)}")
        if len(params) > 1:
            warn(f"has several terms ({', '.join(params)}); {star} is used")
        groups.append((star if star in params else params[0], (star if star in params else params[0],)))
    for first, second in _PAIRS:
        keys = tuple(key for key in (first, second) if key in left)
        if keys:
            groups.append(("+".join(keys), keys))
    groups.extend((key, (key,)) for key in _SINGLES if key in left)
    known = {key for pair in _PAIRS for key in pair} | set(_SINGLES) | set(params)
    rest = [key for key in left if key not in known]
    vectors = [key for key in rest if left[key].is_floating and len(left[key].shape) in (1, 2)]
    for key in rest:
        if key not in vectors or groups:
            warn(f"{key} ignored: {left[key].dtype} {list(left[key].shape)} is no part of the embedding")
    if not groups and len(vectors) > 1:
        raise _UnusableError(f"has several terms: {', '.join(sorted(vectors))}")
    if not groups and vectors:
        groups.append((vectors[0], (vectors[0],)))
    return groups


def _pieces(
    tensors: Mapping[str, TensorHeader], keys: Sequence[str], warn: Callable[..., None]
) -> tuple[tuple[TensorPart, ...], int]:
    shapes = [_shape(key, tensors[key], warn) for key in keys]
    counts = {vectors for vectors, _ in shapes}
    if len(counts) > 1:
        told = ", ".join(f"{key} {vectors}" for key, (vectors, _) in zip(keys, shapes, strict=True))
        raise _UnusableError(f"its towers have unequal numbers of vectors ({told})")
    vectors = counts.pop()
    if len(keys) > 1:
        return tuple(TensorPart(key, 0, width) for key, (_, width) in zip(keys, shapes, strict=True)), vectors
    key, width = keys[0], shapes[0][1]
    if key in ("clip_g", "text_encoders_1"):
        other = "clip_l" if key == "clip_g" else "text_encoders_0"
        if width == 1280:
            raise _UnusableError(f"has {key} without {other}")
        warn(f"{key} stands alone and is {width} wide: taken for {other}")
    if width in _CONCATENATED:
        first, second = _CONCATENATED[width]
        warn(f"{key} is {width} wide: split into {first} (clip_l) and {second} (clip_g)")
        return (TensorPart(key, 0, first), TensorPart(key, first, first + second)), vectors
    return (TensorPart(key, 0, width),), vectors


def _shape(key: str, seen: TensorHeader, warn: Callable[..., None]) -> tuple[int, int]:
    """(vectors, width) of a tensor that must hold token vectors."""
    if not seen.is_floating:
        raise _UnusableError(f"{key} has dtype {seen.dtype}; token vectors are floating point")
    if len(seen.shape) == 1:
        warn(f"{key} has one dimension: taken for a single vector")
        return 1, seen.shape[0]
    if len(seen.shape) != 2:
        raise _UnusableError(f"{key} has shape {list(seen.shape)}; token vectors have shape [vectors, width]")
    if math.prod(seen.shape) == 0:
        raise _UnusableError(f"{key} has shape {list(seen.shape)} and holds nothing")
    return seen.shape[0], seen.shape[1]
