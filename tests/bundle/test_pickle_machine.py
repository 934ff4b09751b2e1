"""The opcodes of plain content, and nothing that a file could do beyond."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from typing import Any

import pytest

from lib_pivotal.bundle.pickle_machine import BrokenError, UnsafeError, builders, no_persistent, play

PLAIN: dict[str, Any] = {
    "text": "grüße",
    "bytes": b"\x00\xff",
    "numbers": [0, 1, -1, 255, 65_536, 2**40, -(2**70), 0.5, True, False, None],
    "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
    "table": OrderedDict(a={"b": {"c": [1]}}),
    "set": {1, 2},
    (1, "a"): "a flat key",
    "long": ["x"] * 2_000,
}


def played(data: bytes) -> Any:
    return play(data, builders(), no_persistent)[0]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_content_is_what_the_unpickler_reads(protocol: int) -> None:
    data = pickle.dumps(PLAIN, protocol=protocol)
    assert played(data) == pickle.loads(data) == PLAIN
    assert play(data + b"more", builders(), no_persistent)[1] == len(data)
    assert play(b"12" + data, builders(), no_persistent, start=2) == (PLAIN, len(data) + 2)


SHARED = [1]


def test_references_stay_references() -> None:
    content = played(pickle.dumps([SHARED, SHARED], protocol=2))
    assert content[0] is content[1]


EVIL = {
    "GLOBAL": b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.",
    "a global of the standard library": b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.",
    "a dotted name below a module that is let in": b"\x80\x04\x8c\x05torch\x8c\x12hub.os.system.nope\x93.",
    "STACK_GLOBAL, its name from the memo": (
        b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x86h\x00h\x01\x93\x8c\x04true\x85R\x86."
    ),
    "STACK_GLOBAL": b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x8c\x04true\x85R.",
    "INST": b"\x80\x02(X\x04\x00\x00\x00trueios\nsystem\n.",
    "OBJ": b"\x80\x02(cos\nsystem\nX\x04\x00\x00\x00trueo.",
    "NEWOBJ": b"\x80\x02csubprocess\nPopen\nX\x04\x00\x00\x00true\x85\x81.",
    "NEWOBJ_EX": b"\x80\x04csubprocess\nPopen\n)}\x92.",
    "EXT1": b"\x80\x02\x82\x01.",
    "BUILD of a builder": b"\x80\x02ccollections\nOrderedDict\n}X\x04\x00\x00\x00makeK\x01sb.",
    "a call of a text": b"\x80\x02X\x01\x00\x00\x00a)R.",
    "a builder as the content": b"\x80\x02ccollections\nOrderedDict\n.",
    "a call of a type": b"\x80\x02cbuiltins\ndict\n)R.",
    "persistent text": b"\x80\x02Pevil\n.",
    "an encoding with a codec of its own": b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00zip\x86R.",
    "NEXT_BUFFER": b"\x80\x05\x97.",
}


@pytest.mark.parametrize("name", EVIL)
def test_what_could_run_code_is_refused(name: str) -> None:
    with pytest.raises(UnsafeError):
        played(EVIL[name])


def nested(count: int, *, keys: bool) -> bytes:
    """A tuple in a tuple in a tuple, at the end as a key: its hash would need the whole C stack."""
    inner = b")" + b"\x85" * count
    return b"\x80\x02}" + inner + b"Ns." if keys else b"\x80\x02" + inner + b"."


def test_bombs_are_refused() -> None:
    for bomb in (nested(100_000, keys=True), nested(100_000, keys=False), b"\x80\x02]q\x00h\x00a."):
        with pytest.raises(UnsafeError):
            played(bomb)
    assert played(b"\x80\x02Nr\xff\xff\xff\x7f.") is None, "a far place of the memo takes no memory"
    with pytest.raises(BrokenError, match="integer"):
        played(b"\x80\x02\x8b" + (10_000).to_bytes(4, "little") + b"\x7f" * 10_000 + b".")


def test_references_that_multiply_are_refused() -> None:
    """A list of lists that hold the list before twice: 2^50 items in 400 bytes."""
    data = b"\x80\x02](]q\x00"
    for step in range(50):
        data += b"](h" + bytes([step]) + b"h" + bytes([step]) + b"eq" + bytes([step + 1])
    with pytest.raises(UnsafeError, match="holds more than"):
        played(data + b"e.")


@pytest.mark.parametrize(
    "data",
    [b"", b"\x80", b"\x80\x02", b"\x80\x02.", b"\x80\x02h\x07.", b"\x80\x02e.", b"\x80\x02}Ke.", b"\x80\x02]NNs.",
     b"\x80\x02NN.", b"\x80\x02(N.", b"\x80\x02}(Nu.", b"\x80\x02X\xff\xff\xff\xff.", b"\xff."],
)  # fmt: skip
def test_broken_pickles(data: bytes) -> None:
    with pytest.raises(BrokenError):
        played(data)
