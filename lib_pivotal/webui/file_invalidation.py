"""A LoRA file that changed is seen at the next picture: its weights, its embeddings, and what was computed with them.

The stock web UI (v1.10.1) keeps four copies of a file's content, none of which is tied to the file:

    networks.networks_in_memory, loaded_networks   reloaded only for a *newer* time stamp   Lora/networks.py:319
    weights merged into the layers                 known by name and multipliers alone      Lora/networks.py:423, 453
    cached conditionings                           know neither file nor embeddings        modules/processing.py:440
    NetworkOnDisk: metadata, alias, hash           until the list is refreshed              Lora/network.py:27

So a file that is saved again under its name goes on acting as it was. Here every loaded network carries the stamp of
the file that it came from; `drop_stale` compares it before each activation, and forgets all four copies together.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

import torch
from modules import cache

from lib_pivotal.webui import compat, identities
from lib_pivotal.webui.identities import Forgotten

logger = logging.getLogger(__name__)

Stamp: TypeAlias = "tuple[int, int, int]"
"""Time of change (ns), size (bytes) and inode: differs after every way of replacing a file."""

STAMP = "pivotal_stamp"
"""Attribute of a loaded network: the stamp of its file when it was read."""

LAYERS = "pivotal_layers"
"""Attribute of a loaded network: what stands for the layers of the checkpoint that its modules belong to."""

_forgotten = Forgotten()


def stamp_of(path: str | Path) -> Stamp | None:
    """The stamp of a file now, or None where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 (asked for thousands of files at a time)
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def full_stamp(path: str | Path) -> tuple[Stamp | None, int]:
    """The stamp, and a number that is another one after each `forget_lora_file`."""
    return stamp_of(path), _forgotten.number(_key(path))


def forget_lora_file(path: str | Path) -> None:
    """Tell that a LoRA file was written, replaced, renamed or deleted; to be called after the file is in place.

    From any thread. Weights, embeddings and conditionings of the old content are dropped when the next picture begins
    (nothing is touched while one is being made). The web UI's list, hash and metadata of the file are renewed now.
    """
    _forgotten.add(_key(path))
    renew_entry(path)


def renew_entry(path: str | Path) -> None:
    """Read name, alias, metadata and hash of a LoRA file again, or take it off the list where it is gone."""
    networks = compat.find_lora_networks()
    if networks is None:
        return
    name = Path(path).stem
    for table in ("safetensors-metadata", "hashes", "hashes-addnet"):
        cache.cache(table).pop(f"lora/{name}", None)
    for listing in (networks.available_networks, networks.available_network_aliases):
        for key, entry in list(listing.items()):
            if _key(entry.filename) == _key(path):
                listing.pop(key, None)
    for digest, entry in list(networks.available_network_hash_lookup.items()):
        if _key(entry.filename) == _key(path):
            networks.available_network_hash_lookup.pop(digest, None)
    if Path(path).is_file():
        compat.list_lora_files([name])


def remember(net: Any) -> None:
    """Note on a network that was just read which file content and which checkpoint's layers it stands for."""
    setattr(net, STAMP, full_stamp(net.network_on_disk.filename))
    setattr(net, LAYERS, _layers())


def drop_stale() -> list[str]:
    """Forget every loaded network whose file changed or whose layers are another checkpoint's; returns their names.

    To be called where a picture begins, in the thread that makes it. Merged weights of these networks are taken out of
    the layers, so that the next forward merges the new ones.
    """
    networks = compat.find_lora_networks()
    if networks is None:
        return []
    held = {id(net): net for net in (*networks.loaded_networks, *networks.networks_in_memory.values())}
    stale = [net for net in held.values() if is_stale(net)]
    if not stale:
        return []
    gone = {id(net) for net in stale}
    networks.loaded_networks[:] = [net for net in networks.loaded_networks if id(net) not in gone]
    for name, net in list(networks.networks_in_memory.items()):
        if id(net) in gone:
            networks.networks_in_memory.pop(name, None)
    unmerge({net.name for net in stale})
    for path in {net.network_on_disk.filename for net in stale if _file_changed(net)}:
        renew_entry(path)
    names = [net.name for net in stale]
    logger.info("read again, since the file or the checkpoint changed: %s", ", ".join(names))
    return names


def is_stale(net: Any) -> bool:
    """Whether a loaded network no longer stands for its file, or not for this checkpoint."""
    layers = getattr(net, LAYERS, None)
    return _file_changed(net) or (layers is not None and layers is not _layers())


def unmerge(names: Iterable[str]) -> int:
    """Put back the checkpoint's own weights in every layer that has one of these networks merged; returns how many.

    A layer remembers what is merged as (name, multipliers) in `network_current_names`; emptied, it is merged anew.
    """
    networks, model = compat.find_lora_networks(), compat.loaded_model()
    if networks is None or model is None:
        return 0
    wanted, count = set(names), 0
    with torch.no_grad():
        for layer in getattr(model, "network_layer_mapping", {}).values():
            if wanted & {merged[0] for merged in getattr(layer, "network_current_names", ())}:
                networks.network_restore_weights_from_backup(layer)
                layer.network_current_names = ()
                count += 1
    return count


def network_state() -> tuple[object, ...]:
    """What conditionings depend on and the web UI's cache key leaves out: which files' content acts, and how strongly.

    Empty where no network is loaded.
    """
    networks = compat.find_lora_networks()
    loaded = networks.loaded_networks if networks is not None else ()
    return tuple((net.name, getattr(net, STAMP, None), net.te_multiplier, net.dyn_dim) for net in loaded)


def _file_changed(net: Any) -> bool:
    stamp = getattr(net, STAMP, None)
    return stamp is not None and stamp != full_stamp(net.network_on_disk.filename)


def _layers() -> object | None:
    """What stands for the loaded checkpoint's layers."""
    return identities.mark_of_layers(compat.loaded_model())


def _key(path: str | Path) -> str:
    return os.path.normcase(os.path.realpath(path))
