"""Dtypes that torch stores but does not compute with: what holds two of them, how they are put side by side, equality.

torch promotes no float8 to anything, compares none, and joins some dtypes only where a build happens to know them.
Whatever is done to the numbers of a file goes through here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lib_pivotal.errors import NetworkError

_WIDER = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def holding_both(first: torch.dtype, second: torch.dtype) -> torch.dtype:
    """The narrowest dtype in which every value of either is itself. NetworkError where torch has none."""
    if first == second:
        return first
    for candidate in (*sorted((first, second), key=lambda dtype: dtype.itemsize), *_WIDER):
        if _holds(candidate, first) and _holds(candidate, second):
            return candidate
    raise NetworkError(f"{_name(first)} and {_name(second)}: no dtype holds both; convert one of the files")


def side_by_side(tensors: Sequence[Tensor], *, dim: int) -> Tensor:
    """The tensors (all of one dtype) one after the other along `dim`, by their bytes: exact in any dtype."""
    dtype = tensors[0].dtype
    return torch.cat([_as_integers(tensor) for tensor in tensors], dim=dim).view(dtype)


def same_values(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors have dtype, shape and every bit in common."""
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    return torch.equal(_as_integers(first), _as_integers(second))


def _holds(wide: torch.dtype, narrow: torch.dtype) -> bool:
    if wide == narrow:
        return True
    if not wide.is_floating_point:
        return False
    if not narrow.is_floating_point:
        return not narrow.is_complex and _digits(wide) >= _bits(narrow)
    of, within = torch.finfo(wide), torch.finfo(narrow)
    # the smallest number below the normal ones: tiny · eps
    return of.eps <= within.eps and of.max >= within.max and of.tiny * of.eps <= within.tiny * within.eps


def _digits(dtype: torch.dtype) -> int:
    """Binary digits of a floating point number: every integer of so many bits is exact."""
    return round(-torch.log2(torch.tensor(torch.finfo(dtype).eps, dtype=torch.float64)).item()) + 1


def _bits(dtype: torch.dtype) -> int:
    return 1 if dtype == torch.bool else torch.iinfo(dtype).bits


_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _as_integers(tensor: Tensor) -> Tensor:
    """The same memory, as integers of the same size; with which every build of torch can do what is done here."""
    integer = _INTEGERS.get(tensor.dtype.itemsize)
    return tensor if integer is None else tensor.contiguous().view(integer)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
