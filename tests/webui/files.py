"""Bundles and embedding files that fit the fake's tiny checkpoints."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.live.material import Material, spelled
from tests.webui.fake.checkpoints import checkpoint_file
from tests.webui.fake.install import FakeWebUI

STRONG = 20.0
"""How many times the vocabulary's size a word is here: a picture of 16 px shows it."""


@lru_cache(maxsize=8)
def material(kind: str) -> Material:
    """What fits the checkpoint."""
    return Material(load_file(checkpoint_file(kind)))


def embedding(kind: str, rows: int = 2, *, seed: int = 0) -> tuple[Tensor, ...]:
    """Random vectors, one tensor a text encoder."""
    towers = material(kind).vectors(rows, generator=torch.Generator().manual_seed(seed))
    return tuple(STRONG * tower for tower in towers)


def write_lora(
    webui: FakeWebUI,
    name: str,
    embeddings: Mapping[str, Any] | None = None,
    *,
    parts: Sequence[str] = (),
    metadata: Mapping[str, str] | None = None,
    kind: str = "sd1",
    extra: Mapping[str, Tensor] | None = None,
    listed: bool = True,
) -> Path:
    """A LoRA file in models/Lora; `words` by name: their tensors, or the seed of random ones (2 vectors)."""
    towers = {
        key: value if isinstance(value, tuple) else embedding(kind, seed=value)
        for key, value in (embeddings or {}).items()
    }
    tensors = {**material(kind).network(*parts), **spelled(towers), **(extra or {})}
    path = webui.lora_folder / f"{name}.safetensors"
    save_file(
        {key: tensor.contiguous().clone() for key, tensor in tensors.items()}, path, dict(metadata or {"format": "pt"})
    )
    if listed:
        webui.networks.list_available_networks()
    return path


def write_embedding(webui: FakeWebUI, name: str, *, seed: int = 0, kind: str = "sd1") -> Path:
    """A file of the embeddings folder, which the web UI reads at the next picture."""
    towers = embedding(kind, seed=seed)
    path = webui.embeddings_folder / f"{name}.safetensors"
    tensors = {"emb_params": towers[0]} if len(towers) == 1 else dict(zip(("clip_l", "clip_g"), towers, strict=True))
    save_file(tensors, path)
    os.utime(webui.embeddings_folder, (2e9 + seed, 2e9 + seed))  # the web UI looks at the folder's time stamp
    return path
