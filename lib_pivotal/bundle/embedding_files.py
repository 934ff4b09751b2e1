"""Single embedding files of other programs, in and out.

a1111       .safetensors {emb_params: [n, w]}, SDXL {clip_l, clip_g}     web UI, Forge, ComfyUI, InvokeAI
a1111_pt    .pt {string_to_token, string_to_param: {"*": [n, w]}, name, step, ...}; SDXL {clip_l, clip_g}
diffusers   .safetensors {clip_l} / {clip_l, clip_g}                     advanced training scripts
kohya       .safetensors {emb_params} / {clip_l, clip_g}
hcp         .pt {string_to_param: {"*": [n, w]}, name}; SDXL with both towers side by side, [n, 2048]
onetrainer  .safetensors {emp_params} / {clip_l, clip_g}                 OneTrainer, which reads no other name of SD1's

v1.10.1 of the web UI (modules/textual_inversion/textual_inversion.py, `create_embedding_from_data`) reads all of them
but HCP's of SDXL: it lets the width through, 768 + 1280, and fails when it puts the 2048 numbers into one encoder.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor

from lib_pivotal.bundle.embedding_key_formats import carry_out, plan_embedding, seen_of
from lib_pivotal.bundle.file_kinds import kind_of
from lib_pivotal.bundle.format import EmbeddingTensors, Problem, check_vectors, check_widths
from lib_pivotal.bundle.pickles import load_plain
from lib_pivotal.bundle.reader import is_finite, is_torch_file
from lib_pivotal.bundle.safetensors_file import read_header, read_tensors
from lib_pivotal.errors import BundleError
from lib_pivotal.file_names import name_reasons
from lib_pivotal.files import replacing

EmbeddingFormat = Literal["a1111", "a1111_pt", "diffusers", "kohya", "hcp", "onetrainer"]
SUFFIXES: dict[EmbeddingFormat, str] = {
    "a1111": ".safetensors",
    "a1111_pt": ".pt",
    "diffusers": ".safetensors",
    "kohya": ".safetensors",
    "hcp": ".pt",
    "onetrainer": ".safetensors",
}
_LET_IN = re.compile(r"[^/]+/(data/\d+|version|byteorder|data\.pkl)")
_SINGLE_KEYS: dict[EmbeddingFormat, str] = {"diffusers": "clip_l", "onetrainer": "emp_params"}
_STAR_TOKEN = 265
"""Id of `*` in CLIP's vocabulary: what the web UI writes as string_to_token."""


@dataclass(frozen=True, eq=False)
class EmbeddingFile:
    """An embedding out of a file of its own: `name` is the file's stem, or the name that the file gives."""

    name: str
    vectors: EmbeddingTensors
    facts: dict[str, Any]
    problems: tuple[Problem, ...] = ()


def read_embedding(path: str | Path) -> EmbeddingFile:
    """Read a single embedding in any known spelling; `.pt` and `.bin` without executing their pickle."""
    path = Path(path)
    tensors, facts = read_flat(path)
    stem = path.stem
    plan, problems = plan_embedding(stem, {key: seen_of(tensor) for key, tensor in tensors.items()})
    if plan is None:
        raise BundleError(f"{path}: no embedding: " + "; ".join(problem.what for problem in problems))
    vectors = carry_out(plan, tensors.__getitem__)
    if not all(is_finite(tower) for tower in vectors):
        raise BundleError(f"{path}: the embedding holds values that are not numbers (NaN or infinite)")
    return EmbeddingFile(stem, vectors, facts, tuple(problems))


def write_embedding(
    path: str | Path,
    vectors: EmbeddingTensors,
    *,
    name: str,
    layout: EmbeddingFormat = "a1111",
    dtype: torch.dtype | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Write one embedding as a file of its own; atomic.

    `facts` may hold step, sd_checkpoint and sd_checkpoint_name; a .pt of SD1 and SD2 tells them.
    """
    path = Path(path)
    if path.suffix != SUFFIXES[layout]:
        raise BundleError(f"{path}: an embedding in layout {layout} ends in {SUFFIXES[layout]}")
    reason = (
        check_widths([tower.shape[-1] for tower in vectors])
        or check_vectors(vectors[0].shape[0])
        or (None if all(is_finite(tower) for tower in vectors) else "holds values that are not finite")
    )
    if reason:
        raise BundleError(f"{path}: embedding {name!r}: {reason}")
    stored = tuple(tower.detach().cpu().to(dtype or tower.dtype).contiguous().clone() for tower in vectors)
    try:
        with replacing(path) as temporary:
            if layout in ("a1111_pt", "hcp"):
                _save_pickled(_pickled(stored, name=name, layout=layout, facts=facts or {}), temporary)
            else:
                safetensors.torch.save_file(_flat(stored, layout=layout), temporary)
            _check_back(temporary, stored)
    except OSError as error:
        raise BundleError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path


def file_name(name: str, layout: EmbeddingFormat) -> str:
    """A safe file name for an embedding; BundleError for names that could leave the folder or hide."""
    stem = re.sub(r"[<>]", "_", name)
    if reasons := name_reasons(stem):
        told = "; it ".join(reasons)
        raise BundleError(
            f"embedding {name!r}: no file can safely have this name: it {told}. Rename the embedding first."
        )
    return stem + SUFFIXES[layout]


def _flat(vectors: EmbeddingTensors, *, layout: EmbeddingFormat) -> dict[str, Tensor]:
    if len(vectors) == 2:
        return {"clip_l": vectors[0], "clip_g": vectors[1]}
    return {_SINGLE_KEYS.get(layout, "emb_params"): vectors[0]}


def _pickled(
    vectors: EmbeddingTensors, *, name: str, layout: EmbeddingFormat, facts: Mapping[str, Any]
) -> dict[str, Any]:
    if layout == "hcp":
        return {"string_to_param": {"*": torch.cat(vectors, dim=1)}, "name": name}
    if len(vectors) == 2:  # and nothing beside: the web UI takes every value of such a file for a tensor
        return {"clip_l": vectors[0], "clip_g": vectors[1]}
    return {
        "string_to_token": {"*": _STAR_TOKEN},
        "string_to_param": {"*": vectors[0]},
        "name": name,
        "step": facts.get("step"),
        "sd_checkpoint": facts.get("sd_checkpoint"),
        "sd_checkpoint_name": facts.get("sd_checkpoint_name"),
    }


def _save_pickled(content: Mapping[str, Any], path: Path) -> None:
    """Save in torch's zip layout, with only those members that the web UI lets in (v1.10.1, modules/safe.py:68).

    Newer versions of torch add `.format_version` and `.storage_alignment`, for which it refuses a file.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with zipfile.ZipFile(buffer) as made, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as kept:
        for member in made.infolist():
            if _LET_IN.fullmatch(member.filename):
                kept.writestr(member.filename, made.read(member))


def _check_back(path: Path, vectors: EmbeddingTensors) -> None:
    tensors, _ = read_flat(path)
    plan, _ = plan_embedding("word", {key: seen_of(tensor) for key, tensor in tensors.items()})
    back = () if plan is None else carry_out(plan, tensors.__getitem__)
    if len(back) != len(vectors) or not all(torch.equal(a, b) for a, b in zip(back, vectors, strict=True)):
        raise BundleError(f"{path}: reading it back gave something else. The disk may be full or failing.")


def read_flat(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Flat tensors of an embedding file by their inner names, and the plain facts beside them."""
    if is_torch_file(path):
        return _flatten(load_plain(path), path)
    if path.suffix.lower() != ".safetensors" and kind_of(path) == "other":
        raise BundleError(f"{path}: embeddings are .safetensors, .pt or .bin files")
    header = read_header(path)
    tensors = {key: tensor for key, tensor in read_tensors(path, header) if tensor is not None}
    return tensors, dict(header.metadata)


def _flatten(content: Any, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if isinstance(content, Tensor):
        return {"emb_params": content}, {}
    if not isinstance(content, dict):
        raise BundleError(f"{path}: holds a {type(content).__name__}, an embedding was expected")
    tensors: dict[str, Tensor] = {}
    facts: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Tensor):
            tensors[str(key)] = value.detach()
        elif isinstance(value, dict) and key == "string_to_param":
            tensors |= {f"{key}.{term}": v.detach() for term, v in value.items() if isinstance(v, Tensor)}
        elif not isinstance(value, dict):
            facts[str(key)] = value
    return tensors, facts
