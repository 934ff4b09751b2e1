"""SHA-256 of files, remembered by title; of LoRAs over what follows the header, as sd-webui-additional-networks."""

from __future__ import annotations

import hashlib
from pathlib import Path

from modules import shared
from modules.cache import cache


def sha256_from_cache(filename: str, title: str, use_addnet_hash: bool = False) -> str | None:
    table = cache("hashes-addnet" if use_addnet_hash else "hashes")
    path = Path(filename)
    if title not in table or not path.exists() or path.stat().st_mtime > table[title]["mtime"]:
        return None
    return table[title]["sha256"]


def sha256(filename: str, title: str, use_addnet_hash: bool = False) -> str | None:
    known = sha256_from_cache(filename, title, use_addnet_hash)
    if known is not None or shared.cmd_opts.no_hashing:
        return known
    content = Path(filename).read_bytes()
    if use_addnet_hash:
        content = content[8 + int.from_bytes(content[:8], "little") :]
    digest = hashlib.sha256(content).hexdigest()
    table = cache("hashes-addnet" if use_addnet_hash else "hashes")
    table[title] = {"mtime": Path(filename).stat().st_mtime, "sha256": digest}
    return digest
