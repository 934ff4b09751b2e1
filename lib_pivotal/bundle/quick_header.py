"""What a LoRA file offers a prompt, read off its header without taking the header apart: for folders of thousands.

`listing` reads the same with every check; this looks only for embeddings, parts and metadata in the header's bytes. A
file that is damaged elsewhere may pass here; reading it will say so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lib_pivotal.bundle.embedding_key_formats import EmbeddingLayout, TensorHeader, plan_embedding
from lib_pivotal.bundle.format import BUNDLE_PREFIX, Family, Problem, family_of_widths, parse_embedding_key
from lib_pivotal.bundle.layer_names import PART_PREFIXES
from lib_pivotal.bundle.listing import EmbeddingSummary
from lib_pivotal.bundle.reader import name_problems
from lib_pivotal.bundle.safetensors_file import MAX_HEADER_BYTES, is_shape, unusable
from lib_pivotal.errors import BundleError
from lib_pivotal.plain_json import parse_json
from lib_pivotal.ports import PARTS, Part

_EMBEDDING = re.compile(rb'"((?:[^"\\]|\\.)*)"\s*:\s*(\{[^{}]*\})')
"""A key and its entry; matched only where `_KEY` was found, since a header may be a megabyte."""
_KEY = b'"' + BUNDLE_PREFIX.encode()
_METADATA = b'"__metadata__"'
_PARTS: tuple[tuple[Part, tuple[bytes, ...]], ...] = (
    ("unet", (b'"lora_unet_', b'"unet.', b'"unet:', b'"oft_unet_')),
    ("te", (b'"lora_te_', b'"lora_te1_', b'"text_encoder.', b'"text_encoder:')),
    ("te2", (b'"lora_te2_', b'"text_encoder_2.')),
)
_OTHER_PARTS = tuple(
    (
        part,
        tuple(
            b'"' + prefix.encode()
            for prefix, of in PART_PREFIXES.items()
            if of == part and not any(b'"' + prefix.encode() in known for _, known in _PARTS)
        ),
    )
    for part in PARTS
)
"""Beginnings of layouts that are seldom: looked for where none of the usual ones occurs, since a header may be long."""
_PEFT = b'"base_model.model.'


@dataclass(frozen=True)
class QuickHeader:
    """Embeddings, parts and metadata of a file; `problems` are those of its embeddings."""

    path: Path
    embeddings: tuple[EmbeddingSummary, ...] = ()
    parts: tuple[Part, ...] = ()
    family: Family = "unknown"
    metadata: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def glance(path: str | Path) -> QuickHeader:
    """Embeddings and parts of a file from its header's bytes. BundleError where it is no safetensors file."""
    path = Path(path)
    raw = _header_bytes(path)
    metadata = _metadata(raw)
    found: dict[str, dict[str, TensorHeader]] = {}
    for key, entry in _embedding_entries(raw):
        parsed = parse_embedding_key(key)
        if parsed is not None and is_shape(entry.get("shape")):
            found.setdefault(parsed.name, {})[parsed.tensor] = TensorHeader(
                str(entry.get("dtype")), tuple(entry["shape"])
            )
    embeddings: list[EmbeddingSummary] = []
    problems: list[Problem] = []
    planned: dict[tuple[tuple[str, TensorHeader], ...], tuple[EmbeddingLayout | None, list[Problem]]] = {}
    for name, tensors in found.items():
        alike = tuple(sorted(tensors.items(), key=lambda item: item[0]))
        if alike not in planned:  # the words of a file are mostly spelled alike
            planned[alike] = plan_embedding(name, tensors)
        plan, plan_problems = planned[alike]
        problems += [replace(problem, embedding=name) for problem in plan_problems]
        if plan is not None:
            embeddings.append(EmbeddingSummary(name, plan.vectors, plan.widths, plan.spelling))
    parts = _parts(raw)
    family = family_of_widths(embeddings[0].widths) if embeddings else "unknown"
    if family == "unknown":
        family = _family(metadata, parts)
    problems += name_problems(embedding.name for embedding in embeddings)
    return QuickHeader(path, tuple(embeddings), parts, family, metadata, tuple(problems))


def _header_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            raw = file.read(length) if 2 <= length <= MAX_HEADER_BYTES else b""
    except OSError as error:
        raise BundleError(f"{path}: cannot be opened: {error.strerror or error}") from error
    if not raw.startswith(b"{") or len(raw) < length:
        raise unusable(path, "it has no header")
    return raw


def _parts(raw: bytes) -> tuple[Part, ...]:
    plain = raw.replace(_PEFT, b'"') if _PEFT in raw else raw
    known = _PARTS[:2] if b'"lora_te_' in plain else _PARTS  # kohya's SD1 and SD2 have one text encoder
    found = tuple(part for part, beginnings in known if any(_is_key(beginning, plain) for beginning in beginnings))
    return found or tuple(part for part, begin in _OTHER_PARTS if any(_is_key(beginning, plain) for beginning in begin))


def _is_key(beginning: bytes, raw: bytes) -> bool:
    """Whether it stands there, and not behind a backslash: as text of the metadata."""
    at = raw.find(beginning)
    while at > 0 and raw[at - 1 : at] == b"\\":
        at = raw.find(beginning, at + 1)
    return at >= 0


def _embedding_entries(raw: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    at = raw.find(_KEY)
    while at >= 0:
        match = _EMBEDDING.match(raw, at)
        if match is not None and raw[at - 1 : at] != b"\\":
            yield _decoded(match)
        at = raw.find(_KEY, at + 1)


def _metadata(raw: bytes) -> dict[str, str]:
    at = raw.find(_METADATA)
    start = raw.find(b"{", at)
    if at < 0 or start < 0 or raw[at - 1 : at] == b"\\":
        return {}
    try:
        content, _ = json.JSONDecoder().raw_decode(raw[start:].decode("utf-8", errors="replace"))
    except (ValueError, RecursionError):
        return {}
    return {key: value for key, value in content.items() if isinstance(value, str) and _is_text(key + value)}


def _is_text(text: str) -> bool:
    """Not so for half of a surrogate pair, which JSON can spell and nothing can write out."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _decoded(match: re.Match[bytes]) -> tuple[str, dict[str, Any]]:
    try:
        key, entry = parse_json(f'["{match.group(1).decode()}", {match.group(2).decode()}]')
    except (ValueError, RecursionError):
        return "", {}
    return (key, entry) if _is_text(f"{key}{entry.get('dtype')}") else ("", {})


def _family(metadata: Mapping[str, str], parts: tuple[Part, ...]) -> Family:
    version = metadata.get("ss_base_model_version", "")
    if version.startswith("sdxl") or "te2" in parts:
        return "sdxl"
    if version.startswith("sd_v2") or metadata.get("ss_v2") == "True":
        return "sd2"
    return "sd1" if version.startswith("sd_v1") or metadata.get("ss_v2") == "False" else "unknown"
