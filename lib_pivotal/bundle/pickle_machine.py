"""A pickle played by our own hands: the opcodes that plain content needs, and no others.

Python's unpickler imports whatever a file names and calls it; torch's `weights_only` reader is sound from torch 2.6 on
(CVE-2025-32434). Here nothing of the file is imported or called: a name stands for a builder of our own, or is refused.
Opcodes: Python's `pickletools`. The names that have a builder (tensors, parameters, tables, numbers) are those that
torch's own `weights_only` reader and the web UI's checker (v1.10.1, modules/safe.py) let in.
"""

from __future__ import annotations

import io
import math
import pickletools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, dtype

MAX_DEPTH, MAX_ITEMS = 64, 5_000_000
"""Of the content, unfolded: a few bytes can nest without end, hold themselves, or multiply by reference."""
MAX_INTEGER_BYTES = 64

ATOMS = (str, bytes, int, float, bool, type(None))
_LEAVES = (*ATOMS, Tensor, dtype)


class UnsafeError(Exception):
    """The pickle asks for more than plain content: the reason."""


class BrokenError(Exception):
    """The pickle is cut off or contradicts itself: the reason."""


@dataclass(frozen=True)
class Builder:
    """What a global name of a pickle stands for."""

    name: str
    make: Callable[..., Any]


class Stateful(dict[Any, Any]):
    """A table that takes what a pickle hands over as an object's state."""

    def set_state(self, state: Any) -> None:
        raise NotImplementedError


def play(
    data: bytes, builders: Mapping[str, Builder | dtype], persistent: Callable[[Any], Any], *, start: int = 0
) -> tuple[Any, int]:
    """The content of the pickle at `start`, and where it ends. Raises UnsafeError or BrokenError.

    `builders`: "module name" -> what it stands for. `persistent` turns a persistent id into a value.
    """
    stream = io.BytesIO(data)
    stream.seek(start)
    machine = _Machine(builders, persistent)
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            machine.step(opcode.name, argument)
        content = machine.result()
    except (BrokenError, UnsafeError):
        raise
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, RuntimeError, MemoryError) as error:
        raise BrokenError(_line(error)) from error
    check_plain(content)
    return content, stream.tell()


def check_plain(content: Any) -> None:
    """Refuse what is not plain, what is nested too deep, and what multiplies by references. Raises UnsafeError."""
    waiting, count = [(content, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if count > MAX_ITEMS or depth > MAX_DEPTH:
            raise UnsafeError(f"it is nested deeper than {MAX_DEPTH} or holds more than {MAX_ITEMS:,} values")
        if isinstance(value, dict):
            waiting += ((item, depth + 1) for item in value.values())
        elif isinstance(value, list | tuple | set):
            waiting += ((item, depth + 1) for item in value)
        elif not isinstance(value, _LEAVES):
            raise UnsafeError(f"it holds {value.name if isinstance(value, Builder) else type(value).__name__!r}")


class _Machine:
    """The stack, the marks and the memo of one pickle."""

    def __init__(self, builders: Mapping[str, Builder | dtype], persistent: Callable[[Any], Any]) -> None:
        self._builders = builders
        self._persistent = persistent
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        if name in _PUSHED:
            self._stack.append(_number(argument))
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self._stack.append(_EMPTY[name]())
        elif name in _SHORT_TUPLES:
            count = _SHORT_TUPLES[name]
            self._stack.append(tuple(self._take() for _ in range(count))[::-1])
        elif name in _STEPS:
            _STEPS[name](self, argument)
        else:
            raise UnsafeError(f"opcode {name}")

    def result(self) -> Any:
        if len(self._stack) != 1 or self._below:
            raise BrokenError("its stack does not end with one value")
        return self._stack[0]

    def _take(self) -> Any:
        if not self._stack:
            raise BrokenError("its stack runs empty")
        return self._stack.pop()

    def _top(self, kind: type | tuple[type, ...]) -> Any:
        if not self._stack or not isinstance(self._stack[-1], kind):
            raise BrokenError("an item without a container")
        return self._stack[-1]

    def _take_marked(self) -> list[Any]:
        if not self._below:
            raise BrokenError("a mark is missing")
        items, self._stack = self._stack, self._below.pop()
        return items

    def nothing(self, _: Any) -> None:
        """PROTO, FRAME, STOP."""

    def mark(self, _: Any) -> None:
        self._below.append(self._stack)
        self._stack = []

    def tuple(self, _: Any) -> None:
        items = tuple(self._take_marked())
        self._stack.append(items)

    def put(self, index: int) -> None:
        self._memo[index] = self._top(object)

    def memoize(self, _: Any) -> None:
        self.put(len(self._memo))

    def get(self, index: int) -> None:
        if index not in self._memo:
            raise BrokenError(f"memo {index} was never filled")
        self._stack.append(self._memo[index])

    def set_item(self, _: Any) -> None:
        value, key = self._take(), self._take()
        self._top(dict)[_key(key)] = value

    def set_items(self, _: Any) -> None:
        items = self._take_marked()
        if len(items) % 2:
            raise BrokenError("a key without a value")
        table = self._top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            table[_key(key)] = value

    def append(self, _: Any) -> None:
        value = self._take()
        self._top(list).append(value)

    def appends(self, _: Any) -> None:
        items = self._take_marked()
        self._top(list).extend(items)

    def add_items(self, _: Any) -> None:
        items = self._take_marked()
        self._top(set).update(_key(item) for item in items)

    def global_(self, argument: str) -> None:
        self._stack.append(self._builder(argument))

    def stack_global(self, _: Any) -> None:
        name, module = self._take(), self._take()
        if not isinstance(name, str) or not isinstance(module, str):
            raise BrokenError("a global's name is not text")
        self._stack.append(self._builder(f"{module} {name}"))

    def _builder(self, name: str) -> Builder | dtype:
        if name not in self._builders:
            raise UnsafeError(f"it names {name.replace(' ', '.')[:100]!r}")
        return self._builders[name]

    def reduce(self, _: Any) -> None:
        arguments, builder = self._take(), self._take()
        if not isinstance(builder, Builder) or not isinstance(arguments, tuple):
            raise UnsafeError("it calls what is not a known builder")
        self._stack.append(builder.make(*arguments))

    def build(self, _: Any) -> None:
        state, target = self._take(), self._top(object)
        if isinstance(target, Stateful):
            target.set_state(state)
        elif not isinstance(target, dict):  # of a state dict: notes of torch's modules, `_metadata`
            raise UnsafeError(f"it changes a {type(target).__name__}")

    def persistent_id(self, _: Any) -> None:
        self._stack.append(self._persistent(self._take()))


def _number(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > 8 * MAX_INTEGER_BYTES:
        raise BrokenError(f"an integer of {value.bit_length():,} bits")
    return value


def _key(value: Any) -> Any:
    """Only flat keys: the hash of nested tuples takes time without bounds."""
    if isinstance(value, ATOMS) or (isinstance(value, tuple) and all(isinstance(item, ATOMS) for item in value)):
        return value
    raise UnsafeError(f"a {type(value).__name__} as a key")


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def no_persistent(_: Any) -> NoReturn:
    """For pickles that refer to nothing beside them."""
    raise BrokenError("a reference to data that is not there")


_PUSHED = frozenset(
    "BININT BININT1 BININT2 LONG1 LONG4 BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 "
    "SHORT_BINUNICODE BINUNICODE BINUNICODE8 BINFLOAT".split()
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
}
_SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _Machine.nothing,
    "FRAME": _Machine.nothing,
    "STOP": _Machine.nothing,
    "MARK": _Machine.mark,
    "TUPLE": _Machine.tuple,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "ADDITEMS": _Machine.add_items,
    "GLOBAL": _Machine.global_,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.reduce,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent_id,
}


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
