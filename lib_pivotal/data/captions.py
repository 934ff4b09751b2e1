"""A caption as text: read from a file, cut into tags, with its brackets and the trained words in it.

This is the one place that knows how a caption is cut: whoever counts, prunes, shows, draws or writes tags asks `Cut`.
The grammar of brackets is that of prompts (`lib_pivotal.prompts`), which reads a bracket that is never closed as
emphasis of all that follows; the author of a caption meant a face such as `:(`, or forgot the other bracket. Prompts of
generation are read as the web UI reads them. `caption_chain` varies captions, `captioning` finds them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

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


KEEP_MARK = "|||"
"""What divides kept from free tags where nothing else is set, as in kohya's examples."""

_WIDE_COMMA = re.compile("[ \t]*[\uff0c\u3001\uff64\ufe50\ufe51\u060c][ \t\u3000]*")
_LEADING_NUMBER = re.compile(r"^[-\d]+\s*")
_KANA = re.compile("[\u3041-\u30ff]")
_CAMERA_NAME = re.compile(r"^(img|dsc|dscn|image|screenshot|photo|pic|untitled)?[\W_\d]*$", re.IGNORECASE)


def read_captions(path: Path, lines: str = "join") -> tuple[tuple[str, ...], str]:
    """Read a caption file: its captions, none if it is blank, and a remark ("" if all was well).

    `lines`: what several lines are: `join` one caption with commas between, `draw` one each, `first` the first alone.
    """
    text, remark = read_text(path)
    text = with_commas(text)
    found = tuple(stripped for line in text.splitlines() if (stripped := line.strip().strip(",").strip()))
    if lines == "join" and found:
        found = (", ".join(found),)
    elif lines == "first":
        found = found[:1]
    return tuple(dict.fromkeys(found)), remark


def read_text(path: Path) -> tuple[str, str]:
    """Read a text file of unknown making: its text, and a remark ("" if all was well)."""
    with path.open("rb", buffering=0) as file:  # thousands of small files: a buffer each takes half of the time
        return decode(file.read())


def with_commas(text: str) -> str:
    """A caption in which commas of Japanese, Chinese and Arabic writing are plain ones: they part tags, too."""
    return _WIDE_COMMA.sub(", ", text)


def decode(data: bytes) -> tuple[str, str]:
    """Text of unknown making, and a remark ("" if all was well).

    UTF-8 or UTF-16 with or without mark; else Japanese Shift-JIS or Windows' western code page, which the remark says.
    """
    remark = ""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = data.decode("utf-16", errors="replace")
    elif order := _order_of_utf16(data):
        text = data.decode(order, errors="replace")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text, name = _old_encoding(data)
            remark = f"is not UTF-8; it was read as {name}. Save it as UTF-8"
    return text.replace("\x00", ""), remark


def _order_of_utf16(data: bytes) -> str:
    """`utf-16-le` or `utf-16-be` where zeros stand at every second place alone, as beside letters, commas and spaces of
    text without a mark, and it can be read so."""
    start = data[:256]
    zeros = start[0::2].count(0), start[1::2].count(0)
    if len(data) % 2 or min(zeros) > 0 or max(zeros) < max(2, 0.1 * len(start)):
        return ""
    order = "utf-16-le" if zeros[1] else "utf-16-be"
    try:
        text = data.decode(order)
    except UnicodeDecodeError:
        return ""
    return order if all(letter.isprintable() or letter.isspace() for letter in text) else ""


def _old_encoding(data: bytes) -> tuple[str, str]:
    """Shift-JIS where it makes kana of the bytes, or Windows-1252 cannot be; else Windows-1252."""
    try:
        western = data.decode("cp1252")
    except UnicodeDecodeError:
        western = ""
    try:
        japanese = data.decode("cp932")
    except UnicodeDecodeError:
        japanese = ""
    if japanese and (not western or _KANA.search(japanese)):
        return japanese, "Shift-JIS"
    return western or data.decode("cp1252", errors="replace"), "Windows-1252"


def caption_from_name(stem: str, embeddings: str = "", join: str = " ") -> str:
    """A caption from a file's name, as the web UI does it: leading numbers gone, `_` a space; "" for `IMG_0001`.

    `words` is a regular expression: what it finds is joined by `join`, and nothing else changed (the web UI's
    modules/textual_inversion/dataset.py, `dataset_filename_word_regex`). One group in it is the word.
    """
    text = _LEADING_NUMBER.sub("", stem)
    if embeddings:
        pattern = re.compile(embeddings)
        group = 1 if pattern.groups else 0
        return join.join(match.group(group) or "" for match in pattern.finditer(text)).strip()
    if _CAMERA_NAME.match(text):
        return ""
    return text.replace("_", " ").strip()


def split_tags(caption: str, *, separator: str = ",") -> list[str]:
    """The tags of a caption, in order, stripped, empty ones left out.

    Brackets hold together: `(red hair, smile:1.2), hat` is two tags, so that shuffling does not tear the weight off.
    Brackets without a partner, and those of faces (`:(, hat`), are letters.
    """
    parts = caption.split(separator)
    if len(parts) > 1 and ("(" in caption or "[" in caption):
        parts = _joined_in_brackets(caption, parts, separator)
    return [tag for part in parts if (tag := part.strip())]


def split_group(tag: str, *, separator: str = ",") -> tuple[str, list[str], str] | None:
    """A tag that holds several, `(red hair, smile:1.2)`, as bracket, tags, and weight with bracket; else None."""
    if separator not in tag:
        return None
    opening, inside, closing = peeled(tag.strip(), separator=separator)
    return (opening, split_tags(inside, separator=separator), closing) if opening else None


def single_tags(caption: str, *, separator: str = ",") -> list[str]:
    """The tags of a caption with those that brackets hold together one by one: for counting and comparing."""
    found: list[str] = []
    for tag in split_tags(caption, separator=separator):
        group = split_group(tag, separator=separator)
        if group is None:
            found.append(tag)
        else:
            for inner in group[1]:
                found += single_tags(inner, separator=separator)
    return found


@dataclass(frozen=True)
class Cut:
    """How a caption is cut into tags: the one place that knows. Whoever counts, prunes, shows, draws or writes asks it.

    `mark` is what stands between tags that are kept in front, free ones, and those kept at the end
    (`a ||| b, c ||| d`); it parts tags as `separator` does. Empty: there is no such mark.
    """

    mark: str = KEEP_MARK
    separator: str = ","

    def has_mark(self, caption: str) -> bool:
        """Whether the mark is in a caption."""
        return bool(self.mark) and self.mark in caption

    def flat(self, caption: str) -> str:
        """A caption whose marks are separators."""
        return caption.replace(self.mark, self.separator) if self.has_mark(caption) else caption

    def parts(self, caption: str) -> list[list[str]]:
        """The tags by the parts that marks make."""
        parts = caption.split(self.mark) if self.mark else [caption]
        return [split_tags(part, separator=self.separator) for part in parts]

    def join(self, parts: Sequence[Sequence[str]]) -> str:
        """The opposite of `parts`."""
        return f" {self.mark} ".join(f"{self.separator} ".join(tags) for tags in parts)

    def tags(self, caption: str) -> list[str]:
        """All tags, in order; brackets hold together (`split_tags`)."""
        return split_tags(self.flat(caption), separator=self.separator)

    def single(self, caption: str) -> list[str]:
        """The same with those that brackets hold together one by one: for counting and comparing."""
        return single_tags(self.flat(caption), separator=self.separator)

    def divide(self, caption: str, keep_first: int = 0) -> tuple[list[str], list[str], list[str]]:
        """Kept in front, free, kept at the end; without a mark the first `keep_first` are kept in front."""
        if self.has_mark(caption):
            head, _, rest = caption.partition(self.mark)
            middle, _, tail = rest.partition(self.mark)
            return self.tags(head), self.tags(middle), self.tags(tail)
        tags = self.tags(caption)
        return tags[:keep_first], tags[keep_first:], []

    def plain(self, caption: str) -> str:
        """A caption as a text encoder is to see it where nothing varies it: without marks."""
        return f"{self.separator} ".join(self.tags(caption)) if self.has_mark(caption) else caption


def _joined_in_brackets(caption: str, parts: list[str], separator: str) -> list[str]:
    """Parts of one bracket joined again."""
    held = groups(caption, separator=separator)
    joined: list[str] = []
    place, first = 0, 0
    for part in parts:
        while first < len(held) and held[first][1] <= place:
            first += 1
        before = place - len(separator)  # where the separator in front of this part begins
        if joined and first < len(held) and held[first][0] <= before:
            joined[-1] += separator + part
        else:
            joined.append(part)
        place += len(part) + len(separator)
    return joined


def legal_name(text: str) -> str:
    """The nearest legal name of a word: `My Girl 2` -> `my-girl`."""
    name = re.sub(r"[^a-z0-9_-]+", "-", text.lower())
    name = re.sub(r"^[^a-z]+|[^a-z]+$", "", name)
    return name or "myword"


class EmbeddingFinder:
    """Finds trained words in text as a text encoder does: ignoring case, the longest first, not inside longer words.

    A word ends where its letters end (`hanako` is in `hanako-chan` and `hanako2`, not in `hanakos`), since CLIP's
    tokenizer cuts there too; https://github.com/openai/CLIP/blob/main/clip/simple_tokenizer.py, `self.pat`.
    """

    def __init__(self, embeddings: Iterable[str]) -> None:
        self._names = {embedding.lower(): embedding for embedding in embeddings if embedding}
        longest_first = sorted(self._names, key=lambda embedding: (-len(embedding), embedding))
        body = "|".join(re.escape(embedding) for embedding in longest_first)
        self._pattern = re.compile(rf"(?<![^\W\d_])(?:{body})(?![^\W\d_])", re.IGNORECASE) if body else None

    def __call__(self, text: str) -> tuple[str, ...]:
        """The words in `text`, in order of first occurrence, each once."""
        if self._pattern is None:
            return ()
        found = (self._names.get(match.lower()) for match in self._pattern.findall(text))
        return tuple(dict.fromkeys(embedding for embedding in found if embedding is not None))

    def replace(self, text: str, by: Mapping[str, str]) -> str:
        """The text with each word replaced by what `by` has for it."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda match: by[self._names[match.group().lower()]], text)
