"""Brackets in captions: which belong together, and which are letters: of a face such as `:(`, or without a partner.

Whoever cuts captions, compares tags or writes what is trained asks here. The grammar is that of prompts
(`lib_pivotal.prompts`), which reads a bracket that is never closed as emphasis of all that follows; the author of a
caption meant a face, or forgot the other bracket. Prompts of generation are read as the web UI reads them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from lib_pivotal.prompts import SYMBOL

_LEFT, _RIGHT = "([", ")]"
_FACE = r"""
    (?<! [^\s{edge}(\[] ) [<>|}}]? [:;=] ['\u2019\u00b4]? [-^~*o]? (?P<mouth> [()\[\]] )
        (?= [()\[\]]* (?: [\s{edge}] | \Z | : \s* [+-]? [.\d]+ \s* \) ) )
    | (?<! [^\s{edge}(\[] ) (?P<first> [()\[\]] ) [-^~*o]? ['\u2019\u00b4]? [:;=] [<>|{{]? (?= [\s{edge}] | \Z )
"""
"""`:(`, `>:)`, `;-)`, `:'(` and, from the other side, `(:`: signs of their own between blanks and separators."""
_CAT = re.compile(r"(?<![^\s,(\[]):3(?=\))")
"""`:3` as the last tag in a bracket, which would be read as its weight."""
_BRACKET = re.compile(r"[()\[\]]")
_ESCAPE_OR_SIGN = re.compile(r"\\[()\[\]]|[\\()\[\]]")


@dataclass(frozen=True)
class Pair:
    """Two brackets that belong together: the places of the opening one and of the closing one's first sign (that of a
    weight's colon where there is a weight), and where the pair ends."""

    start: int
    close: int
    end: int


def pairs(text: str, *, separator: str = ",") -> tuple[Pair, ...]:
    """The brackets of a text that belong together, by their starts; escaped ones, faces and others are letters."""
    if not _BRACKET.search(text):
        return ()
    return _read(text, separator)[0]


def groups(text: str, *, separator: str = ",") -> list[tuple[int, int]]:
    """Stretches (start, end) that outermost pairs hold together."""
    found: list[tuple[int, int]] = []
    for pair in pairs(text, separator=separator):
        if found and pair.start < found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], pair.end))  # `(a [b) c]` crosses
        else:
            found.append((pair.start, pair.end))
    return found


def peeled(text: str, *, separator: str = ",") -> tuple[str, str, str]:
    """What pairs around the whole text open with, what is in them, and what they close with, weights included."""
    opening, closing = "", ""
    while True:
        whole = next((p for p in pairs(text, separator=separator) if p.start == 0 and p.end == len(text)), None)
        if whole is None:
            return opening, text, closing
        opening, closing = opening + text[0], text[whole.close :] + closing
        text = text[1 : whole.close]


def with_pairs_alone(text: str, *, separator: str = ",") -> str:
    """The caption as the author meant it, for whoever reads prompts: brackets without a partner, and those of faces,
    are letters (`:\\(`); pairs weigh as they do in prompts."""
    if not _BRACKET.search(text):
        return text
    found, letters = _read(text, separator)
    cats = {match.end() for match in _CAT.finditer(text)} & {pair.close for pair in found}
    # a cat gets the weight that its bracket has without a number
    signs = [rf"\{sign}" if place in letters else sign for place, sign in enumerate(text)]
    return "".join(f":1.1{sign}" if place in cats else sign for place, sign in enumerate(signs))


def as_letters(text: str) -> str:
    """The caption with each bracket and backslash as a letter: `saber \\(fate\\)`; `\\(` is one already."""
    return _ESCAPE_OR_SIGN.sub(lambda match: match[0] if len(match[0]) > 1 else rf"\{match[0]}", text)


def without_escapes(text: str) -> str:
    """`saber \\(fate\\)` as `saber (fate)`; other backslashes, as of `\\o/`, stay."""
    return re.sub(r"\\([()\[\]])", r"\1", text)


@lru_cache(maxsize=1024)
def _read(text: str, separator: str) -> tuple[tuple[Pair, ...], frozenset[int]]:
    """The pairs of a text, and the places of brackets that are letters without being escaped."""
    opened: dict[str, list[int]] = {"(": [], "[": []}
    found: list[Pair] = []
    mouths = {max(match.start("mouth"), match.start("first")) for match in _faces(separator).finditer(text)}
    letters: set[int] = set()
    for start, last in _brackets(text):
        bracket = text[last]
        if last in mouths:
            letters.add(last)
        elif bracket in _LEFT:
            rest = text[last + 1 :].lstrip()
            if rest and not rest.startswith(separator):
                opened[bracket].append(last)
            else:  # at the end of a tag nothing follows that it could weigh
                letters.add(last)
        elif partners := opened[_LEFT[_RIGHT.index(bracket)]]:
            found.append(Pair(partners.pop(), start, last + 1))
        else:
            letters.add(last)
    letters.update(place for places in opened.values() for place in places)
    return tuple(sorted(found, key=lambda pair: pair.start)), frozenset(letters)


def _brackets(text: str) -> Iterator[tuple[int, int]]:
    """Each bracket as prompts are cut: where it begins, with its weight if it has one, and its own place."""
    cats = {match.start() for match in _CAT.finditer(text)}
    for match in SYMBOL.finditer(text):
        if match.group("open") is None and match.group("close") is None and match.group("weight") is None:
            continue
        last = match.end() - 1
        yield (last if match.start() in cats else match.start()), last


@lru_cache(maxsize=64)
def _faces(separator: str) -> re.Pattern[str]:
    return re.compile(_FACE.format(edge=re.escape(separator[:1] or ",")), re.VERBOSE)
