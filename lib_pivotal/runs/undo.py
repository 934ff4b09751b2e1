"""Taking a change of a run back: what it changed is as before, and what was changed since by hand stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lib_pivotal.config import Run, check_run, run_to_dict

KEPT = 10
"""So many changes can be taken back."""
EMBEDDING_KEY = "name"


@dataclass(frozen=True)
class UndoStep:
    """One change of a run, in words, and only what differed: settings by dotted path, embeddings by name."""

    label: str
    settings: Mapping[str, Any]
    """Dotted path: value of before."""
    embeddings: Sequence[Mapping[str, Any]] | None
    """All embeddings of before; None: none of them differed."""
    embeddings_after: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def between(cls, label: str, before: Run, after: Run) -> UndoStep | None:
        """What was changed; None where both are the same."""
        old, new = run_to_dict(before), run_to_dict(after)
        embeddings, embeddings_after = old.pop("embeddings"), new.pop("embeddings")
        flat_old, flat_new = _flat(old), _flat(new)
        settings = {path: value for path, value in flat_old.items() if flat_new.get(path) != value}
        same = embeddings == embeddings_after
        if same and not settings:
            return None
        return cls(label, settings, None if same else embeddings, () if same else embeddings_after)

    def as_dict(self) -> dict[str, Any]:
        """For a page's memory."""
        embeddings = None if self.embeddings is None else list(self.embeddings)
        return {
            "label": self.label,
            "settings": dict(self.settings),
            "embeddings": embeddings,
            "after": list(self.embeddings_after),
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> UndoStep:
        """From `as_dict`."""
        return cls(plain["label"], plain["settings"], plain["embeddings"], plain["after"])


def taken_back(run: Run, change: UndoStep) -> Run:
    """The run without a change.

    Right after the change that is the run of before, exactly. Later every setting and every field of an embedding that
    the change touched goes back to its value of before, embeddings that it took out come back to their places, and
    whatever it left alone stays as it is now. A run that had faults before has them again.
    """
    plain = run_to_dict(run)
    for path, value in change.settings.items():
        section, key = _place(plain, path)
        section[key] = value
    if change.embeddings is not None:
        plain["embeddings"] = _embeddings_back(plain["embeddings"], change.embeddings, change.embeddings_after)
    return check_run(plain)[0]


def remembered(changes: Sequence[Mapping[str, Any]], change: UndoStep | None) -> list[dict[str, Any]]:
    """The list with one more change at its end, the last `KEPT` of them."""
    kept = [dict(one) for one in changes]
    if change is not None:
        kept.append(change.as_dict())
    return kept[-KEPT:]


def _embeddings_back(
    now: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Embeddings of now with the fields of before where the change differed; those that it took out are put back."""
    if list(now) == list(after):
        return [dict(embedding) for embedding in before]
    was = {embedding[EMBEDDING_KEY]: embedding for embedding in before}
    became = {embedding[EMBEDDING_KEY]: embedding for embedding in after}
    found = []
    for embedding in now:
        name = embedding[EMBEDDING_KEY]
        if name in became and name not in was:
            continue  # the change brought it
        changed = {
            key: value for key, value in was.get(name, {}).items() if became.get(name, embedding).get(key) != value
        }
        found.append({**embedding, **changed} if name in became else dict(embedding))
    names = [embedding[EMBEDDING_KEY] for embedding in found]
    for place, embedding in enumerate(before):
        name = embedding[EMBEDDING_KEY]
        if name in names or name in became:
            continue
        earlier = [other[EMBEDDING_KEY] for other in before[:place] if other[EMBEDDING_KEY] in names]
        at = names.index(earlier[-1]) + 1 if earlier else 0
        found.insert(at, dict(embedding))
        names.insert(at, name)
    return found


def _flat(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted path; lists are single values."""
    found: dict[str, Any] = {}
    for key, value in plain.items():
        if isinstance(value, Mapping):
            found.update({f"{key}.{name}": inner for name, inner in value.items()})
        else:
            found[key] = value
    return found


def _place(plain: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    section, dot, name = path.partition(".")
    return (plain[section], name) if dot else (plain, section)
