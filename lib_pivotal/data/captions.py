"""Captions: reading them from files, their tags, and the trained words in them. caption_chain.py varies them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib_pivotal.data.brackets import groups, peeled

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


def caption_from_name(stem: str, words: str = "", join: str = " ") -> str:
    """A caption from a file's name, as the web UI does it: leading numbers gone, `_` a space; "" for `IMG_0001`.

    `words` is a regular expression: what it finds is joined by `join`, and nothing else changed (the web UI's
    modules/textual_inversion/dataset.py, `dataset_filename_word_regex`). One group in it is the word.
    """
    text = _LEADING_NUMBER.sub("", stem)
    if words:
        pattern = re.compile(words)
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


class WordFinder:
    """Finds trained words in text as a text encoder does: ignoring case, the longest first, not inside longer words.

    A word ends where its letters end (`hanako` is in `hanako-chan` and `hanako2`, not in `hanakos`), since CLIP's
    tokenizer cuts there too; https://github.com/openai/CLIP/blob/main/clip/simple_tokenizer.py, `self.pat`.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self._names = {word.lower(): word for word in words if word}
        longest_first = sorted(self._names, key=lambda word: (-len(word), word))
        body = "|".join(re.escape(word) for word in longest_first)
        self._pattern = re.compile(rf"(?<![^\W\d_])(?:{body})(?![^\W\d_])", re.IGNORECASE) if body else None

    def __call__(self, text: str) -> tuple[str, ...]:
        """The words in `text`, in order of first occurrence, each once."""
        if self._pattern is None:
            return ()
        found = (self._names.get(match.lower()) for match in self._pattern.findall(text))
        return tuple(dict.fromkeys(word for word in found if word is not None))

    def replace(self, text: str, by: Mapping[str, str]) -> str:
        """The text with each word replaced by what `by` has for it."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda match: by[self._names[match.group().lower()]], text)
