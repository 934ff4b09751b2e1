"""What the global names of an honest torch file stand for: tensors, parameters, tables, numbers.

The names are those that torch's own `weights_only` reader and the web UI's checker (v1.10.1, modules/safe.py) let in.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lib_pivotal.bundle.pickle_machine import ATOMS, BrokenError, Builder, Stateful, UnsafeError

_TYPED = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
}
STORAGES: dict[str, torch.dtype | None] = {
    **{f"torch {name}Storage": dtype for name, dtype in _TYPED.items()},
    "torch.storage UntypedStorage": None,
    "torch UntypedStorage": None,
}
"""Global name of a storage's type -> its dtype; None for bytes."""

_DTYPES = tuple(
    "float64 float32 float16 bfloat16 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz complex64 complex128 "
    "int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool".split()
)
_NUMPY_CODE = re.compile(r"[<>=|]?(f[248]|[iu][1248]|b1)")


@dataclass(frozen=True, eq=False)
class Storage:
    """The numbers that tensors are views of; `dtype` None: bytes, of which the tensor tells the type."""

    dtype: torch.dtype | None
    values: Tensor


def builders() -> dict[str, Builder]:
    """ "module name" of a pickle -> what it stands for."""
    made: dict[str, Callable[..., Any]] = {
        "collections OrderedDict": _table,
        "collections Counter": _table,
        "collections defaultdict": _default_table,
        "torch Size": lambda items=(): _integers(items),
        "torch device": _device,
        "torch._utils _rebuild_tensor": _tensor,
        "torch._utils _rebuild_tensor_v2": _tensor,
        "torch._utils _rebuild_tensor_v3": _tensor_v3,
        "torch._utils _rebuild_parameter": lambda tensor, *_: _only_tensor(tensor),
        "torch._utils _rebuild_parameter_with_state": lambda tensor, *_: _only_tensor(tensor),
        "torch._utils _rebuild_device_tensor_from_cpu_tensor": lambda tensor, *_: _only_tensor(tensor),
        "torch._tensor _rebuild_from_type_v2": _tensor_with_attributes,
        "torch.nn.modules.container ParameterDict": _ParameterDict,
        "_codecs encode": _encode,
    }
    for module in ("__builtin__", "builtins"):
        made |= {f"{module} {kind}": _no_call for kind in ("dict", "list", "int", "float")}
        made[f"{module} set"] = lambda items=(): _set(items)
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        made[f"{module} scalar"] = _numpy_scalar
    made["numpy dtype"] = _NumpyType
    made |= dict.fromkeys((*STORAGES, "torch Tensor", "torch.nn.parameter Parameter"), _no_call)
    dtypes = {f"torch {name}": getattr(torch, name) for name in _DTYPES if hasattr(torch, name)}
    return {**{name: Builder(name, make) for name, make in made.items()}, **dtypes}


def _no_call(*_: Any) -> Any:
    raise UnsafeError("it calls a type that only names something")


def _table(items: Any = (), *_: Any) -> dict[Any, Any]:
    if isinstance(items, dict):
        return dict(items)
    if not isinstance(items, list | tuple):
        raise BrokenError("a table out of something else")
    pairs = [tuple(item) for item in items if isinstance(item, list | tuple) and len(item) == 2]
    if len(pairs) != len(items) or not all(isinstance(key, ATOMS) for key, _ in pairs):
        raise BrokenError("a table out of something else")
    return dict(pairs)


def _default_table(*_: Any) -> dict[Any, Any]:
    return {}


def _set(items: Any) -> set[Any]:
    if not isinstance(items, list | tuple) or not all(isinstance(item, ATOMS) for item in items):
        raise BrokenError("a set out of something else")
    return set(items)


def _device(*parts: Any) -> str:
    return ":".join(str(part) for part in parts if isinstance(part, str | int))


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """How protocol 2 spells bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise UnsafeError("it encodes something other than bytes")
    return text.encode("latin1")


def _integers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list | tuple) or not all(type(value) is int and value >= 0 for value in values):
        raise BrokenError("a tensor without a shape")
    return tuple(values)


def _only_tensor(value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise BrokenError("a parameter without a tensor")
    return value


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """A view of a storage. Nothing may lie outside, nor stand for more numbers than were stored."""
    if not isinstance(storage, Storage) or storage.dtype is None:
        raise BrokenError("a tensor without data")
    return _view(storage.values, offset, size, stride)


def _tensor_v3(
    storage: Any, offset: Any, size: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any, *_: Any
) -> Tensor:
    if not isinstance(storage, Storage) or storage.dtype is not None or not isinstance(dtype, torch.dtype):
        raise BrokenError("a tensor without data")
    return _view(storage.values.view(dtype), offset, size, stride)


def _view(values: Tensor, offset: Any, size: Any, stride: Any) -> Tensor:
    shape, steps, first = _integers(size), _integers(stride), _integers((offset,))[0]
    if len(shape) != len(steps):
        raise BrokenError("a tensor whose strides do not fit its shape")
    if 0 in shape:
        return torch.empty(shape, dtype=values.dtype)
    last = first + sum((length - 1) * step for length, step in zip(shape, steps, strict=True))
    if last >= values.numel() or math.prod(shape) > values.numel():
        raise BrokenError(f"a tensor of shape {list(shape)} reaches beyond its data")
    return values.as_strided(shape, steps, first)


def _tensor_with_attributes(builder: Any, _kind: Any, arguments: Any, *_: Any) -> Tensor:
    """A tensor that had attributes of Python's: they are left out."""
    if not isinstance(builder, Builder) or not isinstance(arguments, tuple):
        raise UnsafeError("it builds a tensor by what is not a known builder")
    return _only_tensor(builder.make(*arguments))


class _ParameterDict(Stateful):
    """`nn.ParameterDict` as a table of its tensors."""

    def set_state(self, state: Any) -> None:
        parameters = state.get("_parameters") if isinstance(state, dict) else None
        if not isinstance(parameters, dict):
            raise BrokenError("a ParameterDict without parameters")
        self.update(parameters)


class _NumpyType(Stateful):
    """`numpy.dtype`: a code such as f4, and the byte order in its state."""

    def __init__(self, code: Any, *_: Any) -> None:
        super().__init__()
        if not isinstance(code, str) or not _NUMPY_CODE.fullmatch(code):
            raise UnsafeError(f"a number of numpy's type {str(code)[:20]!r}")
        self.code, self.order = code.lstrip("<>=|"), "<"

    def set_state(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "=", "|"):
            raise BrokenError("a numpy type without a byte order")
        self.order = state[1]


def _numpy_scalar(kind: Any, raw: Any = None) -> int | float | bool:
    """A single number."""
    if not isinstance(kind, _NumpyType) or not isinstance(raw, bytes) or len(raw) != int(kind.code[1:]):
        raise BrokenError("a number without a value")
    name = {"f": "float", "i": "int", "u": "uint", "b": "bool"}[kind.code[0]] + _bits(kind.code)
    dtype = getattr(torch, name, None)
    if dtype is None:
        raise BrokenError(f"a number of a type that this torch does not know, {name}")
    value: int | float | bool = torch.frombuffer(bytearray(raw[::-1] if kind.order == ">" else raw), dtype=dtype).item()
    return value


def _bits(code: str) -> str:
    return "" if code == "b1" else str(8 * int(code[1:]))
