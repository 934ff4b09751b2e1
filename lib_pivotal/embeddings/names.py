"""What makes a good name for a word, and why not: the rules by which the web UI finds words in prompts.

The web UI compares token ids, not letters: a name is found wherever its ids stand in a row, in any case, the longest
name first. So a name can be legal in a file and still be heard where it was not meant. Grammar is `embedding_names`'s.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lib_pivotal.bundle.format import check_vectors
from lib_pivotal.embedding_names import check_embedding_name, warn_embedding_name
from lib_pivotal.embeddings.vectors import MAX_VECTORS

TokenIds = Callable[[str], list[int]]

SHORT_NAME = 2
"""Names of so few tokens may well be the end of another word."""

LONG_NAME = 8
"""A name of more tokens than this makes the web UI's counter jump when its bundle is loaded or not."""


@dataclass(frozen=True)
class NameIssue:
    """`error`: do not use the name; `warning`: it works, but not only where it is meant; `info`: good to know."""

    level: Literal["error", "warning", "info"]
    reason: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.level}: {self.reason}. {self.remedy}".rstrip() if self.remedy else f"{self.level}: {self.reason}"


def check_name(
    name: str, *, token_ids: TokenIds, existing: Mapping[str, str] | None = None, vectors: int = 0
) -> list[NameIssue]:
    """Everything to know about a name, the worst first; no error or warning = a good one.

    `token_ids` is the host's tokenizer (`TextEncoder.token_ids`). `existing` maps other words to where they come from
    ("embeddings folder", "bundle x.safetensors", "this run"). With `vectors`, says what the word takes of a prompt.
    """
    issues = [
        NameIssue("error", f"{name!r} {reason}", "Use a-z, 0-9, '_' and '-', with a letter first and last.")
        for reason in check_embedding_name(name)
    ]
    issues += [
        NameIssue("warning", f"{name!r} {reason}", "Leave that part out.") for reason in warn_embedding_name(name)
    ]
    ids = token_ids(name) if name else []
    if name and not ids:
        issues.append(NameIssue("error", f"{name!r} has no tokens, so no prompt can name it", "Use letters."))
    if ids:
        issues += _as_ordinary_text(name, ids, token_ids)
        for other, source in (existing or {}).items():
            issues += _beside(name, ids, other, source, token_ids)
    if vectors:
        issues += _size(name, ids, vectors)
    order = {"error": 0, "warning": 1, "info": 2}
    return sorted(issues, key=lambda issue: order[issue.level])


def _as_ordinary_text(name: str, ids: list[int], token_ids: TokenIds) -> list[NameIssue]:
    """Where the name is heard in text that means something else."""
    remedy = "Choose a made-up name, e.g. with a short prefix of your own."
    if len(ids) == 1:
        return [
            NameIssue(
                "warning",
                f"{name!r} is a single token of the vocabulary, an ordinary word: while the bundle is in a prompt, "
                "every use of that word becomes your embedding",
                remedy,
            )
        ]
    if len(ids) > SHORT_NAME:  # nobody writes a longer word that happens to end like this
        return []
    inside = [letter + name for letter in string.ascii_lowercase if token_ids(letter + name)[-len(ids) :] == ids]
    if not inside:
        return []
    return [NameIssue("info", f"{name!r} is also found at the end of longer words such as {inside[0]!r}", remedy)]


def _beside(name: str, ids: list[int], other: str, source: str, token_ids: TokenIds) -> list[NameIssue]:
    """How the name gets on with another word."""
    where = f"{other!r} ({source})" if source else repr(other)
    if name.lower() == other.lower():
        return [
            NameIssue(
                "error",
                f"{name!r} is taken by {where}: the web UI keeps the one that is loaded first and drops the other",
                "Choose another name, or rename that one.",
            )
        ]
    other_ids = token_ids(other)
    if not other_ids:
        return []
    if ids == other_ids:
        return [
            NameIssue("error", f"{name!r} has the same tokens as {where}: only one is found", "Choose another name.")
        ]
    if _contains(other_ids, ids):
        return [
            NameIssue(
                "warning",
                f"{name!r} is a part of {where}: where that embedding is not loaded, its name is read as yours",
                "Choose a name that is no part of another.",
            )
        ]
    if _contains(ids, other_ids):
        return [
            NameIssue(
                "warning",
                f"{where} is a part of {name!r}: without your bundle in the prompt, your name is read as that "
                "embedding",
                "Choose a name that has no other in it.",
            )
        ]
    if name.lower() in other.lower() or other.lower() in name.lower():  # SD.Next replaces letters, not tokens
        short, long = sorted((name, other), key=len)
        return [
            NameIssue(
                "info",
                f"the letters of {short!r} are inside {long!r}: SD.Next garbles a prompt that has both",
                "Choose names of which none is inside another.",
            )
        ]
    return []


def _size(name: str, ids: Sequence[int], vectors: int) -> list[NameIssue]:
    """What the word takes of a prompt's chunk."""
    problem = check_vectors(vectors)
    if problem:
        return [NameIssue("error", f"{name!r} {problem}", f"Use 1 to {MAX_VECTORS}.")]
    issues = [NameIssue("info", f"{name!r} takes {vectors} of a chunk's {MAX_VECTORS} places")]
    if 2 * vectors > MAX_VECTORS:
        issues.append(
            NameIssue(
                "warning",
                f"{name!r} takes {vectors} of {MAX_VECTORS} places: two such embeddings never share a chunk",
                "2 to 8 vectors are usual.",
            )
        )
    if len(ids) > LONG_NAME:
        issues.append(
            NameIssue(
                "info",
                f"{name!r} is {len(ids)} tokens long: without its bundle a prompt is counted {len(ids)} tokens for it",
                "Shorten it.",
            )
        )
    return issues


def _contains(outer: Sequence[int], inner: Sequence[int]) -> bool:
    """Whether `inner` stands in `outer` in a row."""
    return any(outer[start : start + len(inner)] == inner for start in range(len(outer) - len(inner) + 1))
