"""An old picture's infotext finds its LoRA files by hash, also when they were renamed.

v1.10.1 does so for `<lora:name:…` (Lora/scripts/lora_script.py:78-101); not for `<lora:name>`, `<lyco:…>` and
`<words:…>`, nor in the second pass' prompt, nor for names that "Lora hashes" spells without `,`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from lib_pivotal.webui import compat, prompt_tags

LORA_HASHES = "Lora hashes"
FIELDS = ("Prompt", "Hires prompt")


def pasted(_: str, params: dict[str, Any]) -> None:
    """Give every tag whose file is not there under its name the name of the file with its hash; a callback."""
    networks = compat.find_lora_networks()
    hashes = read_hashes(params.get(LORA_HASHES))
    if networks is None or not hashes:
        return

    def name_now(name: str) -> str | None:
        known = networks.available_networks.get(name) or networks.available_network_aliases.get(name)
        digest = hashes.get(name.translate(_REMOVED))
        if digest is None or (known is not None and known.shorthash == digest):
            return None
        entry = networks.available_network_hash_lookup.get(digest)
        return None if entry is None else str(entry.get_alias())

    for key in FIELDS:
        if isinstance(params.get(key), str):
            params[key] = renamed(params[key], name_now)


def read_hashes(text: Any) -> Mapping[str, str]:
    """`gekidol: 1a2b3c4d5e6f, other: …` as names and hashes."""
    pairs = [pair.rsplit(":", 1) for pair in str(text or "").split(",") if ":" in pair]
    return {name.strip(): digest.strip() for name, digest in pairs}


def renamed(prompt: str, name_now: Callable[[str], str | None]) -> str:
    """The prompt with the names in its tags replaced, where there is another; all else stays."""

    def written(match: re.Match[str]) -> str:
        name, colon, rest = match.group(2).partition(":")
        return f"<{match.group(1)}:{name_now(name) or name}{colon}{rest}>"

    return prompt_tags.TAG.sub(written, prompt)


_REMOVED = str.maketrans("", "", ":,")
"""What the web UI leaves out of names in "Lora hashes" (Lora/extra_networks_lora.py:12)."""
