"""What a LoRA file offers a prompt, read off its header without taking the header apart: for folders of thousands.

`listing` reads the same with every check; this looks only for words, parts and metadata in the header's bytes. A
file that is damaged elsewhere may pass here; reading it will say so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib_pivotal.bundle.format import BUNDLE_PREFIX, Family, Problem, family_of_widths, parse_word_key
from lib_pivotal.bundle.listing import WordSummary
from lib_pivotal.bundle.reader import name_problems
from lib_pivotal.bundle.safetensors_file import MAX_HEADER_BYTES
from lib_pivotal.bundle.spellings import Seen, plan_word
from lib_pivotal.errors import BundleError
from lib_pivotal.ports import Part

_WORD = re.compile(rb'(?<!\\)"(' + re.escape(BUNDLE_PREFIX.encode()) + rb'(?:[^"\\]|\\.)*)"\s*:\s*(\{[^{}]*\})')
_METADATA = re.compile(rb'(?<!\\)"__metadata__"\s*:\s*(?=\{)')
_PARTS: tuple[tuple[Part, re.Pattern[bytes]], ...] = (
    ("unet", re.compile(rb'"(?:base_model\.model\.)?(?:lora_unet_|oft_unet_|unet[.:])')),
    ("te", re.compile(rb'"(?:base_model\.model\.)?(?:lora_te1?_|text_encoder[.:])')),
    ("te2", re.compile(rb'"(?:base_model\.model\.)?(?:lora_te2_|text_encoder_2\.)')),
)


@dataclass(frozen=True)
class Glance:
    """Words, parts and metadata of a file; `problems` are those of its words."""

    path: Path
    words: tuple[WordSummary, ...] = ()
    parts: tuple[Part, ...] = ()
    family: Family = "unknown"
    metadata: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def glance(path: str | Path) -> Glance:
    """Words and parts of a file from its header's bytes. BundleError where it is no safetensors file."""
    path = Path(path)
    raw = _header_bytes(path)
    metadata = _metadata(raw)
    found: dict[str, dict[str, Seen]] = {}
    for match in _WORD.finditer(raw):
        key, entry = _decoded(match)
        parsed = parse_word_key(key)
        if parsed is not None and isinstance(entry.get("shape"), list):
            found.setdefault(parsed.name, {})[parsed.tensor] = Seen(str(entry.get("dtype")), tuple(entry["shape"]))
    words: list[WordSummary] = []
    problems: list[Problem] = []
    for name, tensors in found.items():
        plan, plan_problems = plan_word(name, tensors)
        problems += plan_problems
        if plan is not None:
            words.append(WordSummary(name, plan.vectors, plan.widths, plan.spelling))
    parts = tuple(part for part, pattern in _PARTS if pattern.search(raw))
    family = family_of_widths(words[0].widths) if words else "unknown"
    if family == "unknown":
        family = _family(metadata, parts)
    problems += name_problems(word.name for word in words)
    return Glance(path, tuple(words), parts, family, metadata, tuple(problems))


def _header_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            raw = file.read(length) if 2 <= length <= MAX_HEADER_BYTES else b""
    except OSError as error:
        raise BundleError(f"{path}: cannot be opened: {error.strerror or error}") from error
    if not raw.startswith(b"{") or len(raw) < length:
        raise BundleError(f"{path}: not a usable safetensors file: it has no header. Download or save it again.")
    return raw


def _metadata(raw: bytes) -> dict[str, str]:
    match = _METADATA.search(raw)
    if match is None:
        return {}
    try:
        content, _ = json.JSONDecoder().raw_decode(raw[match.end() :].decode("utf-8", errors="replace"))
    except (json.JSONDecodeError, RecursionError):
        return {}
    return {key: value for key, value in content.items() if isinstance(value, str)}


def _decoded(match: re.Match[bytes]) -> tuple[str, dict[str, Any]]:
    try:
        key = json.loads(b'"' + match.group(1) + b'"')
        entry = json.loads(match.group(2))
    except ValueError:
        return "", {}
    return str(key), entry if isinstance(entry, dict) else {}


def _family(metadata: Mapping[str, str], parts: tuple[Part, ...]) -> Family:
    version = metadata.get("ss_base_model_version", "")
    if version.startswith("sdxl") or "te2" in parts:
        return "sdxl"
    if version.startswith("sd_v2") or metadata.get("ss_v2") == "True":
        return "sd2"
    return "sd1" if version.startswith("sd_v1") or metadata.get("ss_v2") == "False" else "unknown"
