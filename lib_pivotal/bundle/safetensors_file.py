"""Safetensors files, read with care: the header alone, or tensor by tensor.

The official loader refuses a whole file for one dtype that it does not know. Here a file is refused only where its
structure lies; a single odd tensor is left to the caller. Reading the header touches no tensor data.
Format: 8 bytes header length (little endian), JSON header, data. https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

import torch
from torch import Tensor

from lib_pivotal.bundle.file_kinds import alien, kind_of
from lib_pivotal.errors import BundleError

MAX_HEADER_BYTES = 100_000_000
"""The limit of the official reader."""

MAX_DIMENSIONS, MAX_NUMBERS = 64, 2**63 - 1
"""What torch can hold; an empty dimension counts as one, as in torch's strides."""

_SURROGATE = re.compile(rb"\\u[dD]")
"""May be half of a pair that spells one letter: no text by itself, and nothing can write it out."""

_DTYPE_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
_DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, attribute) for name, attribute in _DTYPE_NAMES.items() if hasattr(torch, attribute)
}
_SIZES = {name: torch.empty(0, dtype=dtype).element_size() for name, dtype in _DTYPES.items()}
_NAMES_OF_DTYPES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True)
class TensorEntry:
    """What the header says of one tensor; `start` and `end` count bytes from the beginning of the data."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def size_bytes(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class Header:
    """A safetensors header: tensors in the order of the file's JSON, text metadata, and where the data begins."""

    tensors: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]
    data_start: int
    data_bytes: int
    odd_metadata: tuple[str, ...] = ()


def dtype_name(dtype: torch.dtype) -> str:
    """How safetensors spells a torch dtype (or torch's own name where it has none)."""
    return _NAMES_OF_DTYPES.get(dtype, str(dtype))


def read_header(path: str | Path) -> Header:
    """Read and check the header of a safetensors file. Raises BundleError when the file cannot be what it says."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            size_bytes = path.stat().st_size
            return _read_header(file, size_bytes=size_bytes)
    except OSError as error:
        raise BundleError(f"{path}: cannot be opened: {error.strerror or error}") from error
    except _MalformedError as error:
        raise unusable(path, str(error)) from None


def unusable(path: Path, reason: str) -> BundleError:
    """The error for a file that is no safetensors file: what it is instead, if its first bytes tell, else `reason`."""
    instead = alien(path)
    if instead is not None:
        return BundleError(f"{path}: {instead}.")
    if kind_of(path) == "torch":
        return BundleError(f"{path}: is a torch file (a pickle) under another name. Name it .pt, or save it again.")
    return BundleError(f"{path}: not a usable safetensors file: {reason}. Download or save it again.")


def read_tensors(path: str | Path, header: Header) -> Iterator[tuple[str, Tensor | None]]:
    """Every tensor of the file in the order of the data; None for a dtype that this torch does not know."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            for key, entry in sorted(header.tensors.items(), key=lambda item: item[1].start):
                yield key, _read_tensor(file, entry, data_start=header.data_start)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror or error}") from error
    except _MalformedError as error:
        raise BundleError(f"{path}: {error}. The file changed while it was read; try again.") from None


class _MalformedError(Exception):
    """Inner, short reason; the public functions add the file's name."""


def _read_header(file: BinaryIO, *, size_bytes: int) -> Header:
    prefix = file.read(8)
    if len(prefix) < 8:
        raise _MalformedError(f"{size_bytes} bytes are too few to hold a header")
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER_BYTES:
        raise _MalformedError(f"it claims a header of {length:,} bytes, the limit is {MAX_HEADER_BYTES:,}")
    if length < 2 or 8 + length > size_bytes:
        raise _MalformedError(f"it claims a header of {length:,} bytes in a file of {size_bytes:,}")
    raw = file.read(length)
    if not raw.startswith(b"{"):
        raise _MalformedError("its header does not begin with '{'")
    try:
        content = json.loads(raw.decode("utf-8"), object_pairs_hook=_pairs_without_repetition)
        if _SURROGATE.search(raw):
            json.dumps(content, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits
        raise _MalformedError(f"its header is not JSON ({_short(str(error))})") from None
    metadata, odd = _metadata(content.pop("__metadata__", None))
    tensors = {key: _entry(key, value) for key, value in content.items()}
    data_bytes = size_bytes - 8 - length
    _check_offsets(tensors, data_bytes=data_bytes)
    return Header(tensors, metadata, data_start=8 + length, data_bytes=data_bytes, odd_metadata=odd)


def _pairs_without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = sorted({key for key, _ in pairs if key in seen or seen.add(key)})  # type: ignore[func-returns-value]
        raise _MalformedError(f"its header has {', '.join(map(repr, twice[:3]))} more than once")
    return result


def _metadata(value: Any) -> tuple[dict[str, str], tuple[str, ...]]:
    """Text metadata, and the keys whose value was no text (kept as JSON)."""
    if value is None:
        return {}, ()
    if not isinstance(value, dict):
        raise _MalformedError("its __metadata__ is not a table")
    odd = tuple(key for key, item in value.items() if not isinstance(item, str))
    return {key: item if isinstance(item, str) else json.dumps(item) for key, item in value.items()}, odd


def _entry(key: str, value: Any) -> TensorEntry:
    if not isinstance(value, dict):
        raise _MalformedError(f"tensor {key!r} has no description")
    dtype, shape, offsets = value.get("dtype"), value.get("shape"), value.get("data_offsets")
    if not isinstance(dtype, str):
        raise _MalformedError(f"tensor {key!r} has dtype {dtype!r}")
    if not is_shape(shape):
        raise _MalformedError(f"tensor {key!r} has shape {_short(repr(shape))}")
    if not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _MalformedError(f"tensor {key!r} has data_offsets {_short(repr(offsets))}")
    entry = TensorEntry(dtype, tuple(shape), offsets[0], offsets[1])
    if dtype in _SIZES:
        expected = math.prod(entry.shape) * _SIZES[dtype]
        if entry.size_bytes != expected:
            raise _MalformedError(
                f"tensor {key!r} {dtype} {list(shape)} needs {expected:,} bytes, has {entry.size_bytes:,}"
            )
    return entry


def is_shape(value: Any) -> TypeGuard[list[int]]:
    """Whether a value of the header is a shape that a tensor can have."""
    return _counts(value) and len(value) <= MAX_DIMENSIONS and math.prod(max(n, 1) for n in value) <= MAX_NUMBERS


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}…"


def _counts(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_offsets(tensors: Mapping[str, TensorEntry], *, data_bytes: int) -> None:
    """Tensors must tile the data without gap or overlap, as the official reader demands."""
    reached, before = 0, ""
    for key, entry in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start < reached:
            raise _MalformedError(f"tensors {before!r} and {key!r} overlap")
        if entry.start > reached:
            raise _MalformedError(f"there is a gap of {entry.start - reached:,} bytes before tensor {key!r}")
        reached, before = entry.end, key
    if reached > data_bytes:
        raise _MalformedError(f"tensor {before!r} ends at byte {reached:,}, the data has {data_bytes:,} (cut off)")
    if reached < data_bytes:
        raise _MalformedError(f"{data_bytes - reached:,} bytes at the end belong to no tensor")


def _read_tensor(file: BinaryIO, entry: TensorEntry, *, data_start: int) -> Tensor | None:
    dtype = _DTYPES.get(entry.dtype)
    if dtype is None:
        return None
    if entry.size_bytes == 0:
        return torch.empty(entry.shape, dtype=dtype)
    file.seek(data_start + entry.start)
    buffer = bytearray(entry.size_bytes)
    if file.readinto(buffer) != entry.size_bytes:  # type: ignore[attr-defined]
        raise _MalformedError("its data ends early")
    return torch.frombuffer(buffer, dtype=dtype).reshape(entry.shape)
