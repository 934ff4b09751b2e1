"""A pickle played by our own hands: the opcodes that plain content needs, and no others.

Python's unpickler imports whatever a file names and calls it; torch's `weights_only` reader is sound from torch 2.6 on
(CVE-2025-32434). Here nothing of the file is imported or called: a name stands for a builder of our own, or is refused.
Opcodes: Python's `pickletools`.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

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
