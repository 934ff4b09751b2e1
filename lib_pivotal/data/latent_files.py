"""Cached latents on disk: one safetensors file an entry, named by everything that went into it, so never stale."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from lib_pivotal.errors import DataError
from lib_pivotal.files import TEMPORARY_SUFFIX, replacing
from lib_pivotal.plain_json import parse_json

_log = logging.getLogger(__name__)
_VERSION = 1
_LEFTOVER_AGE_S = 3600.0
_ENTRY = re.compile(r"[0-9a-f]{40}")


def entry_name(facts: Mapping[str, Any]) -> str:
    """The name of the entry that these facts (hashes, sizes, options) describe."""
    text = json.dumps({"version": _VERSION, **facts}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def remove_entries(folder: Path) -> None:
    """Delete the entries of a folder, and the folder if nothing else is in it; what is not ours stays."""
    try:
        for path in folder.glob("??/*.safetensors"):
            if _ENTRY.fullmatch(path.stem):
                path.unlink(missing_ok=True)
        for place in [*folder.glob("??"), folder]:
            if place.is_dir() and not any(place.iterdir()):
                place.rmdir()
    except OSError as error:
        _log.warning("latent cache: %s stays (%s)", folder, error)


class LatentFiles:
    """A folder of entries. Writes are atomic; a damaged entry reads as absent, so that it is made again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"{folder}: the latent cache's folder cannot be made ({error.strerror}). "
                "Choose another, or cache in memory."
            ) from error
        self._remove_leftovers()

    def path(self, name: str) -> Path:
        """Where an entry is or would be; spread over sub-folders, as some file systems are slow with many files."""
        return self._folder / name[:2] / f"{name}.safetensors"

    def read(self, name: str) -> dict[str, Tensor] | None:
        """An entry's tensors, or None if it is absent or damaged (length, header or checksum)."""
        path = self.path(name)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.warning("latent cache: %s cannot be read (%s); it is made again", path, error)
            return None
        try:
            start = 8 + int.from_bytes(data[:8], "little")
            metadata = parse_json(data[8:start]).get("__metadata__", {})
            if metadata.get("name") != name or metadata.get("sha256") != hashlib.sha256(data[start:]).hexdigest():
                raise ValueError("checksum differs")
            return load(data)
        except Exception as error:  # safetensors has its own error type, json and slicing others
            _log.warning("latent cache: %s is damaged (%s); it is made again", path, error)
            return None

    def write(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Write an entry: to a file beside it, synced, then renamed over it."""
        plain = {key: tensor.contiguous() for key, tensor in tensors.items()}
        body = save(plain)
        start = 8 + int.from_bytes(body[:8], "little")
        checksum = hashlib.sha256(body[start:]).hexdigest()
        data = save(plain, metadata={"name": name, "sha256": checksum})
        path = self.path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                temporary.write_bytes(data)
        except OSError as error:
            raise DataError(
                f"{path}: cached latents cannot be written ({error.strerror}). "
                "Free some space, choose another folder, or cache in memory."
            ) from error

    def _remove_leftovers(self) -> None:
        oldest = time.time() - _LEFTOVER_AGE_S
        for path in self._folder.glob(f"*/.*{TEMPORARY_SUFFIX}"):
            try:
                if path.stat().st_mtime < oldest:
                    path.unlink(missing_ok=True)
            except OSError as error:
                _log.debug("latent cache: %s stays (%s)", path, error)
