"""What is to be known of a word's name here: the checker of names, with the process's tokenizer and other words."""

from __future__ import annotations

from collections.abc import Mapping

from lib_pivotal.embeddings.names import NameIssue, check_name
from lib_pivotal.runs.backend import TrainerBackend


def name_issues(
    backend: TrainerBackend, name: str, *, vectors: int = 0, file: str = "", siblings: Mapping[str, str] | None = None
) -> list[NameIssue]:
    """Everything to know about `name` before one trains or renames, the worst first.

    `file` is the bundle that the word is in, or will be: its own words are no clash. `siblings`, words that come
    beside it in that file, are. Without a loaded tokenizer names are compared by their letters.
    """
    others = {other: place for other, place in backend.taken_names().items() if place != file}
    others |= {other.lower(): place for other, place in (siblings or {}).items()}
    tokens = backend.token_ids if backend.token_ids("a") else _letters
    return check_name(
        name,
        token_ids=lambda text: list(tokens(text)),
        existing={other: others[other] for other in others if _akin(name, other)},
        vectors=vectors,
    )


def _letters(text: str) -> list[int]:
    return [ord(letter) for letter in text.lower()]


def _akin(name: str, other: str) -> bool:
    """Whether one may be a part of the other: only then is tokenising it worth the while, of thousands."""
    first, second = name.lower(), other.lower()
    return first in second or second in first
