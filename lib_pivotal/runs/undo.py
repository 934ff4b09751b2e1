"""Taking a change of a run back: what it changed is as before, and what was changed since by hand stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lib_pivotal.config import Run, check_run, run_to_dict

KEPT = 10
"""So many changes can be taken back."""
WORD_KEY = "name"


@dataclass(frozen=True)
class UndoStep:
    """One change of a run, in words, and only what differed: settings by dotted path, words by name."""

    label: str
    settings: Mapping[str, Any]
    """Dotted path: value of before."""
    words: Sequence[Mapping[str, Any]] | None
    """All words of before; None: none of them differed."""
    words_after: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def between(cls, label: str, before: Run, after: Run) -> UndoStep | None:
        """What was changed; None where both are the same."""
        old, new = run_to_dict(before), run_to_dict(after)
        words, words_after = old.pop("words"), new.pop("words")
        flat_old, flat_new = _flat(old), _flat(new)
        settings = {path: value for path, value in flat_old.items() if flat_new.get(path) != value}
        same = words == words_after
        if same and not settings:
            return None
        return cls(label, settings, None if same else words, () if same else words_after)

    def as_dict(self) -> dict[str, Any]:
        """For a page's memory."""
        words = None if self.words is None else list(self.words)
        return {"label": self.label, "settings": dict(self.settings), "words": words, "after": list(self.words_after)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> UndoStep:
        """From `as_dict`."""
        return cls(plain["label"], plain["settings"], plain["words"], plain["after"])


def taken_back(run: Run, change: UndoStep) -> Run:
    """The run without a change.

    Right after the change that is the run of before, exactly. Later every setting and every field of a word that the
    change touched goes back to its value of before, words that it took out come back to their places, and whatever it
    left alone stays as it is now. A run that had faults before has them again.
    """
    plain = run_to_dict(run)
    for path, value in change.settings.items():
        section, key = _place(plain, path)
        section[key] = value
    if change.words is not None:
        plain["words"] = _words_back(plain["words"], change.words, change.words_after)
    return check_run(plain)[0]


def remembered(changes: Sequence[Mapping[str, Any]], change: UndoStep | None) -> list[dict[str, Any]]:
    """The list with one more change at its end, the last `KEPT` of them."""
    kept = [dict(one) for one in changes]
    if change is not None:
        kept.append(change.as_dict())
    return kept[-KEPT:]


def _words_back(
    now: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Words of now with the fields of before where the change differed; those that it took out are put back."""
    if list(now) == list(after):
        return [dict(word) for word in before]
    was = {word[WORD_KEY]: word for word in before}
    became = {word[WORD_KEY]: word for word in after}
    found = []
    for word in now:
        name = word[WORD_KEY]
        if name in became and name not in was:
            continue  # the change brought it
        changed = {key: value for key, value in was.get(name, {}).items() if became.get(name, word).get(key) != value}
        found.append({**word, **changed} if name in became else dict(word))
    names = [word[WORD_KEY] for word in found]
    for place, word in enumerate(before):
        name = word[WORD_KEY]
        if name in names or name in became:
            continue
        earlier = [other[WORD_KEY] for other in before[:place] if other[WORD_KEY] in names]
        at = names.index(earlier[-1]) + 1 if earlier else 0
        found.insert(at, dict(word))
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
