"""Which names an embedding may have in a file: the grammar alone, readable without torch.

What a prompt makes of a name is in `embeddings/names.py`.
"""

from __future__ import annotations

import re

MAX_NAME_LENGTH = 100

_NAME = re.compile(r"[a-z](?:[a-z0-9_-]*[a-z])?")
_TRAPS = ("alpha", "lora_up", "lora_down")


def check_embedding_name(name: str) -> list[str]:
    """Every reason why `name` must not be written into a bundle; empty when it is fine. Grammar only."""
    if _NAME.fullmatch(name) and len(name) <= MAX_NAME_LENGTH:  # nearly always: folders of thousands are listed
        return []
    if not name:
        return ["is empty"]
    reasons = []
    if len(name) > MAX_NAME_LENGTH:
        reasons.append(f"has {len(name)} characters, at most {MAX_NAME_LENGTH} are allowed")
    if name != name.lower():
        reasons.append("has upper-case letters, but prompts are compared in lower case")
    if "." in name:
        reasons.append("has a dot, at which the web UI would cut the name off")
    lower = name.lower()
    foreign = sorted(set(re.sub(r"[a-z0-9_.-]", "", lower)))
    if foreign:
        shown = ", ".join(repr(character) for character in foreign)
        reasons.append(f"has {shown}, but only a-z, 0-9, '_' and '-' are allowed")
    if not re.match(r"[a-z]", lower):
        reasons.append(f"begins with {name[0]!r}: it must begin with a letter, or it melts into what stands before it")
    if len(name) > 1 and not re.search(r"[a-z]\Z", lower):
        reasons.append(f"ends with {name[-1]!r}: it must end with a letter, or it melts into what comes after it")
    if not reasons and not _NAME.fullmatch(name):
        reasons.append("is not a name")
    return reasons


def warn_embedding_name(name: str) -> list[str]:
    """What to mind about a legal name: it may be used, but some tool stumbles over it."""
    return [f"contains {trap!r}, which kohya's merge script takes for a LoRA key" for trap in _TRAPS if trap in name]
