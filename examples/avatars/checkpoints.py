"""Where the avatars' checkpoints are: the base as it is stored, the second made of the base and its own U-Net.

Both share the text model and the autoencoder, so that only what differs is stored twice.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file

WEIGHTS = Path(__file__).parent / "weights"
MADE = Path(__file__).parents[2] / "out" / "avatars"
"""Where the second checkpoint is put together; not part of the project."""
BASE, RETRO = "avatars", "avatars-retro"
NAMES = (BASE, RETRO)
RETRO_UNET = f"{RETRO}.unet.safetensors"
"""The second checkpoint's U-Net alone, under the names of a whole checkpoint."""
MADE_OF = "made_of"


def checkpoint(name: str, *, weights: Path = WEIGHTS, made: Path = MADE) -> Path:
    """The file of a checkpoint of `NAMES`, with its yaml beside it; made where it is missing or older than its parts.

    Raises:
        ValueError: there is no checkpoint of that name.
        FileNotFoundError: a stored part is missing.
    """
    if name not in NAMES:
        raise ValueError(f"checkpoint is {name!r}; it must be one of {', '.join(NAMES)}")
    base = weights / f"{BASE}.safetensors"
    if name == BASE:
        return base
    unet, path = weights / RETRO_UNET, made / f"{name}.safetensors"
    parts = [_hash(base), _hash(unet)]
    if not path.exists() or _made_of(path) != parts:
        _join(base, unet, path, parts)
    yaml = base.with_suffix(".yaml").read_text(encoding="utf-8")
    path.with_suffix(".yaml").write_text(yaml, encoding="utf-8")
    return path


def _join(base: Path, unet: Path, path: Path, parts: list[str]) -> None:
    with safe_open(str(base), framework="pt") as file:
        metadata = dict(file.metadata() or {}) | {MADE_OF: json.dumps(parts)}
    tensors, other = load_file(base), load_file(unet)
    if not other.keys() <= tensors.keys():
        raise ValueError(f"{unet} is no part of {base}: {sorted(other.keys() - tensors.keys())[:3]}")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    save_file(tensors | other, unfinished, metadata=metadata)
    unfinished.replace(path)


def _made_of(path: Path) -> list[str]:
    with safe_open(str(path), framework="pt") as file:
        found: list[str] = json.loads((file.metadata() or {}).get(MADE_OF, "[]"))
    return found


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
