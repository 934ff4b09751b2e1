"""The resumable state of a run: one safetensors file, written atomically, read without executing anything.

A state is complete or absent: it is written beside its final name, flushed to the disk and renamed. A process killed
at any moment leaves at worst a stray temporary file, which the next write removes. Tensors are the file's tensors;
numbers, text and the structure around them are JSON in its metadata, with a checksum over both, so that a file that
was cut or in which bits flipped is told from a good one. There is no pickle. Old states (`torch.save`) are read by the
careful reader of `bundle.pickles`, once: what is written next is of the new kind.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from lib_pivotal.bundle.pickles import load_plain
from lib_pivotal.bundle.safetensors_file import read_header, read_tensors
from lib_pivotal.errors import BundleError, StateError
from lib_pivotal.files import TEMPORARY_SUFFIX, replacing
from lib_pivotal.plain_json import parse_json
from lib_pivotal.training.state_files import StateFile, list_states, next_state

logger = logging.getLogger(__name__)
FORMAT_VERSION = 2
PICKLED_VERSION = 1
META_TREE, META_CHECKSUM = "pivotal.state", "pivotal.checksum"


@dataclass(frozen=True, eq=False)
class SavedState:
    """A state that was read; `passed_over` tells why later ones in the same folder could not be."""

    path: Path
    content: dict[str, Any]
    passed_over: tuple[str, ...] = ()

    @property
    def step(self) -> int:
        """Steps done when it was written."""
        return int(self.content["step"])


def save_state(folder: Path, step: int, content: Mapping[str, Any], *, keep: int = 2) -> Path:
    """Write a state (tensors, numbers, text, lists, tuples and dicts of them), then drop the oldest beyond `keep`.

    What was just written is never dropped, whatever else lies in the folder.

    Raises:
        StateError: it cannot be written, or holds something else; the states that were there stay untouched.
    """
    tensors: list[Tensor] = []
    tree = json.dumps(_encoded({"format_version": FORMAT_VERSION, "step": step, **content}, tensors, "state"))
    metadata = {META_TREE: tree, META_CHECKSUM: _checksum(tree, tensors)}
    target = next_state(folder, step)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for stray in folder.glob(f".state-*{TEMPORARY_SUFFIX}"):
            stray.unlink(missing_ok=True)
        with replacing(target) as temporary:
            save_file({str(number): tensor for number, tensor in enumerate(tensors)}, temporary, metadata)
        for old in list_states(folder)[max(keep, 1) :]:
            old.path.unlink(missing_ok=True)
    except Exception as error:  # the safetensors library has an error of its own for a full disk
        raise StateError(
            f"the state {target} cannot be written: {_plain_words(error)}. Free disk space or choose another folder"
        ) from error
    return target


def load_state(file: StateFile) -> dict[str, Any]:
    """Read one state; nothing in it is executed.

    Raises:
        StateError: unreadable, damaged, or written by a newer version.
    """
    try:
        content = load_plain(file.path) if file.is_pickle else _read(file.path)
    except (BundleError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise StateError(f"the state {file.path} cannot be read: {error}") from error
    wanted = PICKLED_VERSION if file.is_pickle else FORMAT_VERSION
    if not isinstance(content, dict) or content.get("format_version") != wanted:
        found = content.get("format_version") if isinstance(content, dict) else type(content).__name__
        raise StateError(f"the state {file.path} has format {found!r}, this version reads {wanted}: update it")
    if type(content.get("step")) is not int:
        raise StateError(f"the state {file.path} does not say its step")
    return content


def load_latest_state(folder: Path) -> SavedState:
    """The last written readable state; why later ones could not be read goes with it.

    Raises:
        StateError: there is none, or none can be read (says why of each). Nothing is changed.
    """
    passed_over: list[str] = []
    for file in list_states(folder):
        try:
            return SavedState(file.path, load_state(file), tuple(passed_over))
        except StateError as error:
            logger.warning("%s", error)
            passed_over.append(str(error))
    if not passed_over:
        raise StateError(f"no saved state in {folder}: there is nothing to continue. Start a new run")
    raise StateError("none of the saved states can be read, so the run cannot continue: " + "; ".join(passed_over))


def _read(path: Path) -> Any:
    header = read_header(path)
    tree = header.metadata[META_TREE]
    by_key = dict(read_tensors(path, header))
    tensors = [by_key[str(number)] for number in range(len(by_key))]
    known = [tensor for tensor in tensors if tensor is not None]
    if len(known) < len(tensors):
        raise ValueError("it has tensors of a type that this version of torch does not know")
    if _checksum(tree, known) != header.metadata.get(META_CHECKSUM):
        raise ValueError("its checksum is wrong, it was damaged after it was written")
    return _decoded(parse_json(tree), known)


def _plain_words(error: Exception) -> str:
    """What the system said; the safetensors library wraps it in its own notation."""
    wrapped = re.search(r'message: "(.*?)"', str(error))
    return wrapped[1] if wrapped else str(error)


def _checksum(tree: str, tensors: list[Tensor]) -> str:
    digest = hashlib.blake2b(tree.encode(), digest_size=16)
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _encoded(value: Any, tensors: list[Tensor], where: str) -> Any:
    """JSON for `value`: what JSON lacks is a table of one entry, with tensors by their number in `tensors`."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, np.generic):
        return _encoded(value.item(), tensors, where)
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, Tensor):
        tensors.append(_own(value))
        return {"tensor": len(tensors) - 1}
    if isinstance(value, tuple | list):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_encoded(item, tensors, f"{where}.{number}") for number, item in enumerate(value)]}
    if isinstance(value, Mapping):
        pairs = [[_key(key, where), _encoded(item, tensors, f"{where}.{key}")] for key, item in value.items()]
        return {"dict": pairs}
    raise StateError(f"{where} is a {type(value).__name__}: a state holds tensors, numbers and text only")


def _key(key: Any, where: str) -> str | int:
    if isinstance(key, str | int) and not isinstance(key, bool):
        return key
    raise StateError(f"{where} has the key {key!r}: keys of a state are text or whole numbers")


def _own(tensor: Tensor) -> Tensor:
    """On the CPU, contiguous, sharing no memory with another: as safetensors wants it."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def _decoded(value: Any, tensors: list[Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "float":
        return float(content)
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _decoded(item, tensors) for key, item in content}
    items = [_decoded(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items
