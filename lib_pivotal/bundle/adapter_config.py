"""The strength that peft and diffusers keep beside the tensors: `adapter_config.json`, or the file's metadata.

A layer adds `lora_alpha / r · B · A`, with `rslora` `lora_alpha / sqrt(r) · B · A`; `rank_pattern` and `alpha_pattern`
name layers with other values. diffusers 0.34 and newer writes the same under the metadata key `lora_adapter_metadata`,
each name behind the model's: `unet.lora_alpha`.
peft 0.13, tuners/lora/config.py; diffusers 58eb52c, loaders/lora_base.py:1025-1109.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib_pivotal.bundle.metadata import finite_number
from lib_pivotal.errors import BundleError
from lib_pivotal.plain_json import parse_json

ADAPTER_METADATA = "lora_adapter_metadata"
CONFIG_FILE = "adapter_config.json"

_MODELS = ("unet", "text_encoder", "text_encoder_2")
_MAX_BYTES = 4 << 20


@dataclass(frozen=True)
class AdapterConfig:
    """Rank and alpha of the layers of one model."""

    rank: float | None = None
    alpha: float | None = None
    ranks: Mapping[str, float] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)
    by_root: bool = False

    def scale(self, path: str, rank: int) -> float | None:
        """What the product B · A of the layer is multiplied with; None where the config does not say."""
        alpha = _of(self.alphas, path, self.alpha)
        if alpha is None:
            return None
        divisor = _of(self.ranks, path, self.rank) or float(rank)
        return alpha / (math.sqrt(divisor) if self.by_root else divisor)


def configs_of(path: Path | None, metadata: Mapping[str, str]) -> dict[str, AdapterConfig]:
    """The configs of a file by model (`unet`, `text_encoder`, `text_encoder_2`; `` for a file of one model).

    BundleError where there is one that cannot be read: without it the strength would be wrong.
    """
    found: dict[str, AdapterConfig] = {}
    if ADAPTER_METADATA in metadata:
        plain = _table(metadata[ADAPTER_METADATA], f"metadata {ADAPTER_METADATA}")
        for model in _MODELS:
            own = {key.removeprefix(f"{model}."): v for key, v in plain.items() if key.startswith(f"{model}.")}
            if own:
                found[model] = _config(own, f"metadata {ADAPTER_METADATA}")
        if not found and plain:
            found[""] = _config(plain, f"metadata {ADAPTER_METADATA}")
    beside = None if path is None else path.with_name(CONFIG_FILE)
    if not found and path is not None and beside is not None and path.stem.startswith("adapter_") and beside.is_file():
        found[""] = _config(_table(_text(beside), str(beside)), str(beside))
    return found


def without_parts(metadata: Mapping[str, str], gone: frozenset[str]) -> dict[str, str]:
    """The metadata without what it says of these models' adapters."""
    if ADAPTER_METADATA not in metadata:
        return dict(metadata)
    plain = _table(metadata[ADAPTER_METADATA], f"metadata {ADAPTER_METADATA}")
    kept = {key: value for key, value in plain.items() if key.partition(".")[0] not in gone}
    left = {key: value for key, value in metadata.items() if key != ADAPTER_METADATA}
    return {**left, ADAPTER_METADATA: json.dumps(kept, indent=2, sort_keys=True)} if kept else left


def config_for(ranks: Mapping[str, int], alphas: Mapping[str, float], *, dora: bool) -> dict[str, Any]:
    """peft's config for layers (by path) of these ranks and alphas."""
    rank, alpha = _most(ranks), _most(alphas)
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": _plain(alpha),
        "rank_pattern": {path: own for path, own in ranks.items() if own != rank},
        "alpha_pattern": {path: _plain(own) for path, own in alphas.items() if own != alpha},
        "target_modules": sorted(ranks),
        "use_dora": dora,
        "bias": "none",
        "inference_mode": True,
    }


def _config(plain: Mapping[str, Any], where: str) -> AdapterConfig:
    kind = plain.get("peft_type", "LORA")
    if kind != "LORA":
        raise BundleError(f"{where}: peft_type = {kind!r}; only LORA (with DoRA) can be read")
    return AdapterConfig(
        _number(plain.get("r"), "r", where),
        _number(plain.get("lora_alpha"), "lora_alpha", where),
        _pattern(plain.get("rank_pattern"), "rank_pattern", where),
        _pattern(plain.get("alpha_pattern"), "alpha_pattern", where),
        by_root=plain.get("use_rslora") is True,
    )


def _pattern(value: Any, name: str, where: str) -> dict[str, float]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BundleError(f"{where}: {name} = {str(value)[:80]!r} is no table")
    read: dict[str, float] = {}
    for key, item in value.items():
        path = key.removeprefix("^").removesuffix("$").replace("\\.", ".")
        number = _number(item, f"{name}.{key}", where)
        if re.search(r"[^\w.-]", path) or number is None:  # peft takes names for regular expressions
            raise BundleError(f"{where}: {name} has {key[:80]!r}: only names of layers can be read")
        read[path] = number
    return read


def _number(value: Any, name: str, where: str) -> float | None:
    number = finite_number(value)
    if value is not None and (number is None or number < 0):
        raise BundleError(f"{where}: {name} = {str(value)[:80]!r} is no number that a strength can have")
    return number


def _of(pattern: Mapping[str, float], path: str, otherwise: float | None) -> float | None:
    """As peft looks a layer up: its whole path, or the end of it behind a dot."""
    if path in pattern:
        return pattern[path]
    return next((value for key, value in pattern.items() if path.endswith(f".{key}")), otherwise)


def _table(text: str, where: str) -> dict[str, Any]:
    try:
        plain = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where}: is not JSON ({error}), so the strength of the layers is not known") from None
    if not isinstance(plain, dict):
        raise BundleError(f"{where}: is no table, so the strength of the layers is not known")
    return plain


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise BundleError(f"{path}: is larger than {_MAX_BYTES:,} bytes; peft's config has a few thousand")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: cannot be read ({error}), so the strength of the layers is not known") from None


def _most(values: Mapping[str, Any]) -> Any:
    """The most frequent value, the larger one at a draw."""
    found = list(values.values())
    return max(set(found), key=lambda value: (found.count(value), value))


def _plain(value: float) -> float | int:
    return int(value) if value == int(value) else value
