"""What every LoRA file of the web UI offers: embeddings, parts, family; headers only, each read once while
unchanged."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modules import extra_networks, shared

from lib_pivotal.bundle import metadata as facts_of
from lib_pivotal.bundle.format import META_RECOMMENDED
from lib_pivotal.commands.terms import both
from lib_pivotal.errors import BundleError
from lib_pivotal.webui import compat, file_invalidation, prompt_tags

if TYPE_CHECKING:
    from lib_pivotal.bundle.quick_header import QuickHeader

TE_WEIGHT, UNET_WEIGHT, PART = "pivotal te weight", "pivotal unet weight", "pivotal part"
"""Keys of the card's .json: the weights and the part that a click on the card writes."""


@dataclass
class Catalog:
    """Glances at files, kept until the file changes or is listed no more; of metadata what is asked for here."""

    known: dict[str, tuple[object, QuickHeader | str]] = field(default_factory=dict)
    told: dict[str, tuple[object, str]] = field(default_factory=dict)
    """Descriptions as JSON, by file, with what they were made from."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self, path: str | Path) -> QuickHeader | str:
        """What a file offers, or the sentence why that cannot be said (a `.pt` file says nothing by its header)."""
        key, stamp = str(path), file_invalidation.stamp_of(path)
        known = self.known.get(key)
        if known is None or known[0] != stamp:
            known = (stamp, _look(Path(path)))
            with self.lock:
                self.known[key] = known
        return known[1]

    def keep_only(self, paths: Collection[str]) -> None:
        """Forget all files but these: the ones that the web UI lists."""
        with self.lock:
            self.known = {path: known for path, known in self.known.items() if path in paths}
            self.told = {path: told for path, told in self.told.items() if path in paths}


catalog = Catalog()


def _look(path: Path) -> QuickHeader | str:
    if path.suffix.lower() != ".safetensors":
        return f"{path.name} is a pickle: what it holds is seen when it is used"
    from lib_pivotal.bundle.quick_header import glance  # here: to start, no file is looked at

    try:
        seen = glance(path)
    except BundleError as error:
        return str(error)
    # tag frequencies of thousands of files would be hundreds of megabytes
    kept = {key: value for key, value in seen.metadata.items() if key == META_RECOMMENDED}
    texts = {
        name: {"init_text": known["init_text"]}
        for name, known in facts_of.embedding_facts(seen.metadata).items()
        if isinstance(known.get("init_text"), str)
    }
    return replace(seen, metadata=facts_of.with_embedding_facts(kept, texts))


def init_texts(seen: QuickHeader | str) -> dict[str, str]:
    """The init texts that a file keeps of its embeddings, those that say a direction; by name."""
    facts = {} if isinstance(seen, str) else facts_of.embedding_facts(seen.metadata)
    if not facts:
        return {}
    from lib_pivotal.embeddings.initial import is_directed  # here: as above

    return {name: known["init_text"] for name, known in facts.items() if is_directed(known["init_text"])}


def find_on_disk(name: str) -> Any:
    """The web UI's entry of a LoRA file by name or alias, looked for on the disk where it is not listed; or None."""
    networks = compat.find_lora_networks()
    for attempt in (0, 1):
        entry = networks.available_networks.get(name)
        if name.lower() not in networks.forbidden_network_aliases:
            entry = networks.available_network_aliases.get(name, entry)
        if entry is not None or attempt:
            return entry
        compat.list_lora_files([name])
    return None


def brings_embeddings(name: str) -> bool:
    """Whether the file that a tag names has embeddings."""
    entry = find_on_disk(name)
    seen = None if entry is None else catalog.look(entry.filename)
    return seen is not None and not isinstance(seen, str) and bool(seen.embeddings)


def describe(entry: Any) -> dict[str, Any]:
    """One file as plain values: what the cards, the rows and the API show."""
    seen = catalog.look(entry.filename)
    facts: dict[str, Any] = {"name": entry.name, "alias": entry.alias, "hash": entry.shorthash or ""}
    facts["tag"] = tag_of(entry)
    if isinstance(seen, str):
        return {**facts, "words": [], "parts": [], "family": "unknown", "problems": [seen], "recommended": {}}
    texts = init_texts(seen)
    return {
        **facts,
        "words": [
            {
                "name": embedding.name,
                "vectors": embedding.vectors,
                "widths": list(embedding.widths),
                "init_text": texts.get(embedding.name, ""),
            }
            for embedding in seen.embeddings
        ],
        "parts": list(seen.parts),
        "family": seen.family,
        "problems": [str(problem) for problem in seen.problems],
        "recommended": facts_of.recommended_weights(seen.metadata),
    }


def tag_of(entry: Any, user: Mapping[str, Any] | None = None) -> str:
    """The tag that a click writes: with the file's own weights where the user, or else the bundle, prefers some."""
    te, unet, embeddings = preferred(entry, user_metadata(entry) if user is None else user)
    if te is None and unet is None:
        weights = f"{shared.opts.extra_networks_default_multiplier:g}"
    else:
        weights = f"{1 if te is None else te:g}:{1 if unet is None else unet:g}"
    return f"<lora:{entry.get_alias()}:{weights}{'' if embeddings else ':words=0'}>"


def preferred(entry: Any, user: Mapping[str, Any]) -> tuple[float | None, float | None, bool]:
    """Text encoder's and U-Net's weight to begin with (None: the web UI's default), and whether the embeddings hold.

    What the user set in the card's editor goes first: part, then weights, then the web UI's one "preferred weight";
    then the weights that the bundle recommends.
    """
    one, te, unet = (facts_of.finite_number(user.get(key)) for key in ("preferred weight", TE_WEIGHT, UNET_WEIGHT))
    one = one or None
    if te is None and unet is None and one is None:
        seen = catalog.look(entry.filename)
        own = facts_of.recommended_weights(seen.metadata) if not isinstance(seen, str) else {}
        te, unet = own.get("te"), own.get("unet")
    elif one is not None:
        te, unet = one if te is None else te, one if unet is None else unet
    part = str(user.get(PART) or "")
    if part in prompt_tags.PARTS and part != "whole":
        base_te, base_unet = (1.0 if weight is None else weight for weight in (te, unet))
        te, unet = base_te if part == "TE" else 0.0, base_unet if part == "U-Net" else 0.0
    return te, unet, part != "none"


def user_metadata(entry: Any) -> dict[str, Any]:
    """What the user set in the card's editor: the web UI's .json beside the file."""
    found = extra_networks.get_user_metadata(entry.filename)
    return found if isinstance(found, dict) else {}


def embeddings_by_name() -> dict[str, str]:
    """Every embedding of every LoRA file, lower case, and the file's name."""
    found: dict[str, str] = {}
    for entry in _entries():
        seen = catalog.look(entry.filename)
        if not isinstance(seen, str):
            found |= {embedding.name.lower(): Path(entry.filename).name for embedding in seen.embeddings}
    return found


def everything() -> list[dict[str, Any]]:
    """Every LoRA file that the web UI lists, by name."""
    entries = _entries()
    catalog.keep_only({str(entry.filename) for entry in entries})
    return [describe(entry) for entry in entries]


def everything_as_json() -> str:
    """The same as JSON; what did not change since the last time is neither read nor written out again."""
    pieces = []
    folders: dict[str, set[str]] = {}
    entries = _entries()
    for entry in entries:
        folder, file = os.path.split(entry.filename)
        if folder not in folders:
            folders[folder] = set(os.listdir(folder)) if Path(folder).is_dir() else set()
        user = f"{os.path.splitext(file)[0]}.json"  # noqa: PTH122
        made_from = (
            file_invalidation.stamp_of(entry.filename),
            file_invalidation.stamp_of(f"{folder}/{user}") if user in folders[folder] else None,
            entry.get_alias(),
            entry.shorthash,
            shared.opts.extra_networks_default_multiplier,
        )
        known = catalog.told.get(entry.filename)
        if known is None or known[0] != made_from:
            known = (made_from, json.dumps(both(describe(entry)), ensure_ascii=False))
            catalog.told[entry.filename] = known
        pieces.append(known[1])
    catalog.keep_only({str(entry.filename) for entry in entries})
    return f"[{', '.join(pieces)}]"


def _entries() -> list[Any]:
    networks = compat.find_lora_networks()
    entries = [] if networks is None else list(networks.available_networks.values())
    return sorted(entries, key=lambda entry: str(entry.name).lower())
