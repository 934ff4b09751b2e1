"""What every LoRA file of the web UI offers: words, parts, family; headers only, each read once while unchanged."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib_pivotal.bundle.format import META_RECOMMENDED
from lib_pivotal.bundle.glance import Glance, glance
from lib_pivotal.errors import BundleError
from lib_pivotal.webui import freshness


@dataclass
class Catalog:
    """Glances at files, kept until the file changes."""

    known: dict[str, tuple[object, Glance | str]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self, path: str | Path) -> Glance | str:
        """What a file offers, or the sentence why that cannot be said (a `.pt` file says nothing by its header)."""
        key, stamp = str(path), freshness.stamp_of(path)
        known = self.known.get(key)
        if known is None or known[0] != stamp:
            known = (stamp, _look(Path(path)))
            with self.lock:
                self.known[key] = known
        return known[1]


catalog = Catalog()


def _look(path: Path) -> Glance | str:
    if path.suffix.lower() != ".safetensors":
        return f"{path.name} is a pickle: what it holds is seen when it is used"
    try:
        return glance(path)
    except BundleError as error:
        return str(error)


def find_on_disk(name: str) -> Any:
    """The web UI's entry of a LoRA file by name or alias, looked for on the disk where it is not listed; or None."""
    networks = freshness.lora_networks()
    for attempt in (0, 1):
        entry = networks.available_networks.get(name)
        if name.lower() not in networks.forbidden_network_aliases:
            entry = networks.available_network_aliases.get(name, entry)
        if entry is not None or attempt:
            return entry
        networks.update_available_networks_by_names([name])
    return None


def brings_words(name: str) -> bool:
    """Whether the file that a tag names has words."""
    entry = find_on_disk(name)
    seen = None if entry is None else catalog.look(entry.filename)
    return isinstance(seen, Glance) and bool(seen.words)


def describe(entry: Any) -> dict[str, Any]:
    """One file as plain values: what the cards, the rows and the API show."""
    seen = catalog.look(entry.filename)
    facts: dict[str, Any] = {"name": entry.name, "alias": entry.alias, "hash": entry.shorthash or ""}
    if isinstance(seen, str):
        return {**facts, "words": [], "parts": [], "family": "unknown", "problems": [seen], "recommended": {}}
    return {
        **facts,
        "words": [{"name": word.name, "vectors": word.vectors, "widths": list(word.widths)} for word in seen.words],
        "parts": list(seen.parts),
        "family": seen.family,
        "problems": [str(problem) for problem in seen.problems],
        "recommended": recommended(seen.metadata),
    }


def recommended(metadata: Mapping[str, str]) -> dict[str, float]:
    """The weights that a bundle recommends for itself, `te` and `unet`; empty where it does not."""
    try:
        found = json.loads(metadata.get(META_RECOMMENDED, "{}"))
    except json.JSONDecodeError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: float(found[key]) for key in ("te", "unet") if isinstance(found.get(key), int | float)}


def everything() -> list[dict[str, Any]]:
    """Every LoRA file that the web UI lists, by name."""
    networks = freshness.lora_networks()
    entries = [] if networks is None else list(networks.available_networks.values())
    return [describe(entry) for entry in sorted(entries, key=lambda entry: str(entry.name).lower())]
