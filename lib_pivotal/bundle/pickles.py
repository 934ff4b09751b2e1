"""Tensors out of `.pt` and `.bin` files, without ever executing a pickle.

Both layouts of `torch.save` are read here by hand: the zip archive, and the row of pickles of before torch 1.6. Neither
`torch.load` nor Python's unpickler is called, so what holds does not hang on the version of torch, nor on the checker
which the web UI puts in place of `torch.load`.
"""

from __future__ import annotations

import sys
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from lib_pivotal.bundle.file_kinds import alien
from lib_pivotal.bundle.pickle_machine import (
    STORAGES,
    BrokenError,
    Builder,
    Storage,
    UnsafeError,
    builders,
    no_persistent,
    play,
)
from lib_pivotal.errors import BundleError

MAX_UNPACKED_BYTES = 1 << 30
"""Of the compressed members of an archive together. torch stores its members as they are."""

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_BUILDERS = builders()
_DAMAGE = (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, ValueError, EOFError, RuntimeError)
"""What zipfile raises for a damaged archive (RuntimeError: an encrypted one, or a compression that is not built in)."""


def load_plain(path: str | Path) -> Any:
    """What a torch file holds: tensors, numbers, text, lists and dicts. BundleError for anything that would run code.

    Parameters come as plain tensors, `nn.ParameterDict` of old web UIs as a dict, all on the CPU.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            is_archive = stream.read(2) == b"PK"
            stream.seek(0)
            return _read_zip(stream, size_bytes=path.stat().st_size) if is_archive else _read_legacy(stream.read())
    except OSError as error:
        raise BundleError(f"{path}: cannot be opened: {error.strerror or error}") from error
    except UnsafeError as error:
        raise BundleError(
            f"{path}: refused: it holds more than plain tensors, and reading it could run code ({error}). "
            "If you trust it, open it once in the program that made it and save it as .safetensors."
        ) from None
    except BrokenError as error:
        instead = alien(path)
        if instead is not None:
            raise BundleError(f"{path}: {instead}.") from None
        raise BundleError(f"{path}: not a torch file ({error}). Download or save it again.") from None


def load_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a flat torch file (a state dict), other values left out."""
    content = load_plain(path)
    if not isinstance(content, dict):
        raise BundleError(f"{path}: holds a {type(content).__name__}, a table of tensors was expected")
    return {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}


@dataclass
class _Archive:
    """The members of one zip archive below its one folder, each read once and within bounds."""

    file: zipfile.ZipFile
    members: Mapping[str, zipfile.ZipInfo]
    budget: int

    def read(self, name: str) -> bytearray:
        member = self.members.get(name)
        if member is None:
            raise BrokenError(f"its member {name!r} is missing")
        if member.compress_type != zipfile.ZIP_STORED:
            self.budget -= member.file_size
            if self.budget < 0:
                raise UnsafeError(f"it unpacks to more than {MAX_UNPACKED_BYTES:,} bytes")
        elif member.file_size != member.compress_size:
            raise BrokenError(f"its member {name!r} has two sizes")
        with self.file.open(member) as stream:
            return bytearray(stream.read(member.file_size))


def _read_zip(stream: BinaryIO, *, size_bytes: int) -> Any:
    try:
        with zipfile.ZipFile(stream) as file:
            return _read_archive(_Archive(file, _members(file, size_bytes=size_bytes), MAX_UNPACKED_BYTES))
    except _DAMAGE as error:
        raise BrokenError(str(error).splitlines()[0] if str(error) else type(error).__name__) from error


def _members(file: zipfile.ZipFile, *, size_bytes: int) -> dict[str, zipfile.ZipInfo]:
    infos = file.infolist()
    pickles = [info.filename for info in infos if info.filename.split("/")[-1] == "data.pkl"]
    if len(pickles) != 1 or pickles[0].count("/") != 1:
        raise BrokenError(f"an archive with {len(pickles)} members data.pkl, a torch file has one, in one folder")
    folder = pickles[0].removesuffix("data.pkl")
    members = {info.filename.removeprefix(folder): info for info in infos if info.filename.startswith(folder)}
    if len({info.filename for info in infos}) != len(infos):
        raise BrokenError("its members are named more than once")
    if "constants.pkl" in members:
        raise UnsafeError("it is a TorchScript program")
    if sum(info.compress_size for info in infos) > size_bytes:
        raise BrokenError("its members overlap")
    return members


def _read_archive(archive: _Archive) -> Any:
    order = bytes(archive.read("byteorder")).decode("ascii") if "byteorder" in archive.members else "little"
    storages: dict[str, Storage] = {}

    def storage(reference: Any) -> Storage:
        key, dtype, count = _reference(reference)
        if key not in storages:
            raw = archive.read(f"data/{key}")
            if len(raw) != count * _size(dtype):
                raise BrokenError(f"storage {key} has {len(raw):,} bytes, {count * _size(dtype):,} were announced")
            storages[key] = Storage(dtype, _tensor_of(raw, dtype, order))
        return _same(storages[key], dtype)

    data = bytes(archive.read("data.pkl"))
    content, end = play(data, _BUILDERS, storage)
    _nothing_behind(len(data) - end)
    return content


def _read_legacy(data: bytes) -> Any:
    """Five pickles (magic number, protocol, facts of the machine, content, order of the storages), then the storages.

    The content comes before the data that it refers to: its storages are made empty, and filled at the end.
    """
    if not data.startswith(b"\x80"):
        raise BrokenError("it begins with neither an archive nor a pickle")
    storages: dict[str, Storage] = {}

    def storage(reference: Any) -> Any:
        if isinstance(reference, tuple) and len(reference) == 4 and reference[0] == "module":
            return reference[1]  # with a copy of its source, which nobody needs
        key, dtype, count = _reference(reference)
        if key not in storages:
            if sum(_nbytes(known.values) for known in storages.values()) + count * _size(dtype) > len(data):
                raise BrokenError(f"storage {key} is larger than the file")
            storages[key] = Storage(dtype, torch.zeros(count, dtype=dtype or torch.uint8))
        return _same(storages[key], dtype)

    magic, at = play(data, {}, no_persistent)
    if magic != _MAGIC:
        raise BrokenError("a pickle, but not one of torch's")
    protocol, at = play(data, {}, no_persistent, start=at)
    if protocol != _PROTOCOL:
        raise BrokenError(f"torch's protocol {protocol!r}")
    facts, at = play(data, {}, no_persistent, start=at)
    order = "little" if not isinstance(facts, dict) or facts.get("little_endian", True) else "big"
    content, at = play(data, _BUILDERS, storage, start=at)
    keys, at = play(data, {}, no_persistent, start=at)
    _nothing_behind(len(data) - _fill(storages, keys, data, at, order))
    return content


def _fill(storages: Mapping[str, Storage], keys: Any, data: bytes, at: int, order: str) -> int:
    """Copy the data behind the pickles into the storages; where it ends."""
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
        raise BrokenError("its storages are not those that its content refers to")
    for key in map(str, keys):
        values = storages[key].values
        count = int.from_bytes(data[at : at + 8], "little")
        end = at + 8 + _nbytes(values)
        if count != values.numel() or end > len(data):
            raise BrokenError(f"storage {key} is cut off or of another size than announced")
        if values.numel():
            values.copy_(_tensor_of(bytearray(data[at + 8 : end]), storages[key].dtype, order))
        at = end
    return at


def _reference(reference: Any) -> tuple[str, torch.dtype | None, int]:
    """Key, dtype (None: bytes) and number of elements of a storage. The device of old is of no interest."""
    if not isinstance(reference, tuple) or len(reference) not in (5, 6) or reference[0] != "storage":
        raise UnsafeError("a reference to something other than a tensor's data")
    kind, key, count = reference[1], reference[2], reference[4]
    if len(reference) == 6 and reference[5] is not None:
        raise BrokenError("a storage that is a view of another one")
    if not isinstance(kind, Builder) or kind.name not in STORAGES:
        raise UnsafeError("a reference to something other than a tensor's data")
    if not isinstance(key, str) or type(count) is not int or count < 0:
        raise BrokenError("a storage without a key or a size")
    return key, STORAGES[kind.name], count


def _same(storage: Storage, dtype: torch.dtype | None) -> Storage:
    if storage.dtype != dtype:
        raise BrokenError("a storage of two types")
    return storage


def _size(dtype: torch.dtype | None) -> int:
    return 1 if dtype is None else torch.empty(0, dtype=dtype).element_size()


def _nbytes(values: Tensor) -> int:
    return values.numel() * values.element_size()


def _tensor_of(raw: bytearray, dtype: torch.dtype | None, order: str) -> Tensor:
    if not raw:
        return torch.empty(0, dtype=dtype or torch.uint8)
    if order != sys.byteorder and dtype is not None:
        swapped = torch.frombuffer(raw, dtype=torch.uint8).view(-1, _size(dtype)).flip(1).contiguous()
        return swapped.view(-1).view(dtype)
    return torch.frombuffer(raw, dtype=dtype or torch.uint8)


def _nothing_behind(left: int) -> None:
    if left:
        raise BrokenError(f"{left:,} bytes behind its end")
