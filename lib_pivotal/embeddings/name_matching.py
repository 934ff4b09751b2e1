"""Find embeddings in the text of a prompt, where the web UI looks for token ids only.

Ids alone cannot tell `v1` from the beginning of `v12`, find `char` at the end of `mychar`, and miss `<x>` in `a <x>, b`
because CLIP's tokenizer melts punctuation into its neighbours. Text can: a name counts where it stands as written (in
any case), not inside a run of letters or a run of digits, and the longest name first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

W = TypeVar("W")

QUALIFIER = "@"
"""Joins an embedding and its file in a qualified name. Means nothing in prompts: `[a:b:10]`, `(a:1.2)`, `a|b`,
`__a__`."""

_LETTER = r"[^\W\d_]"


@dataclass(frozen=True)
class NameMatch(Generic[W]):
    """A name found at `start:stop` of a text, and what it stands for."""

    start: int
    stop: int
    name: str
    value: W


def qualified(embedding: str, file: str) -> str:
    """The name by which an embedding of a certain file can always be reached: `hana@gekidol`."""
    return f"{embedding}{QUALIFIER}{file}"


def folded(name: str) -> str:
    """How names are compared: without case, and with any white space as one blank."""
    return " ".join(name.split()).lower()


class NameMatcher(Generic[W]):
    """Finds any of a set of names in texts; `values` maps a name, as it is to be written, to what it stands for."""

    def __init__(self, values: Mapping[str, W]) -> None:
        self._values = {folded(name): (name, value) for name, value in values.items() if name.strip()}
        ordered = sorted(self._values, key=lambda name: (-len(name), name))
        self._pattern = re.compile("|".join(_as_pattern(name) for name in ordered), re.IGNORECASE) if ordered else None

    def __len__(self) -> int:
        return len(self._values)

    def matches(self, text: str) -> list[NameMatch[W]]:
        """Every name in the text, from left to right, none overlapping."""
        if self._pattern is None:
            return []
        found = []
        for match in self._pattern.finditer(text):
            entry = self._values.get(folded(match.group()))
            if entry is not None:  # letters whose lower case is longer than they are
                found.append(NameMatch(match.start(), match.end(), entry[0], entry[1]))
        return found

    def names_in(self, texts: Iterable[str]) -> set[str]:
        """The names that occur in any of the texts."""
        return {match.name for text in texts for match in self.matches(text)}


def _as_pattern(name: str) -> str:
    """The name, any white space in it, and its ends not inside a run of letters or digits."""
    body = r"\s+".join(re.escape(piece) for piece in name.split(" "))
    return _no_run(name[0], before=True) + body + _no_run(name[-1], before=False)


def _no_run(end: str, *, before: bool) -> str:
    kind = _LETTER if end.isalpha() else r"\d" if end.isdigit() else ""
    if not kind:
        return ""
    return f"(?<!{kind})" if before else f"(?!{kind})"
