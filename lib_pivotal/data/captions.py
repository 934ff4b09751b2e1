"""Captions: reading them from files, finding trained words in them, and varying them at each draw."""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from lib_pivotal.errors import DataError

_PLACEHOLDER = re.compile(r"\{(caption|filewords|word|name)\}|\[(filewords|name)\]")
_WILDCARD = re.compile(r"\{([^{}]*\|[^{}]*)\}")
_LEADING_NUMBER = re.compile(r"^[-\d]+\s*")
_CAMERA_NAME = re.compile(r"^(img|dsc|dscn|image|screenshot|photo|pic|untitled)?[\W_\d]*$", re.IGNORECASE)


def read_caption(path: Path) -> tuple[str, str]:
    """Read a caption file: its text, several lines joined by commas, and a remark ("" if all was well)."""
    text, remark = read_text(path)
    lines = [stripped for line in text.splitlines() if (stripped := line.strip().strip(",").strip())]
    return ", ".join(lines), remark


def read_text(path: Path) -> tuple[str, str]:
    """Read a text file of unknown making: its text, and a remark ("" if all was well).

    UTF-8 with or without mark, UTF-16 with mark; else Windows' western code page, which the remark says.
    """
    data = path.read_bytes()
    remark = ""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = data.decode("utf-16", errors="replace")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("cp1252", errors="replace")
            remark = "is not UTF-8; it was read as Windows-1252. Save it as UTF-8"
    return text.replace("\x00", ""), remark


def caption_from_name(stem: str) -> str:
    """A caption from a file's name, as the web UI does it: leading numbers gone, `_` a space; "" for `IMG_0001`."""
    text = _LEADING_NUMBER.sub("", stem)
    if _CAMERA_NAME.match(text):
        return ""
    return text.replace("_", " ").strip()


def split_tags(caption: str, *, separator: str = ",") -> list[str]:
    """The tags of a caption, in order, stripped, empty ones left out."""
    return [tag for part in caption.split(separator) if (tag := part.strip())]


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


class CaptionPipeline:
    """A caption as it is trained at one draw, in kohya's order.

    Prefix and suffix, caption dropout, wildcards `{a|b}`, keep separator or keep first n, shuffle, tag dropout
    (https://github.com/kohya-ss/sd-scripts/blob/48d368fa/library/train_util.py, `process_caption`), then templates, as
    the web UI's textual inversion has them. Differs from kohya in two points: prefix and suffix are joined by commas,
    so that they are tags of their own; tags that hold a `protected` word never drop out.
    Placeholders of templates: `{caption}` or `{filewords}`; `{word}` or `{name}` (the word of the picture's concept);
    `[filewords]` and `[name]` as in the web UI. Deterministic given `rng`.
    """

    def __init__(
        self,
        prefix: str = "",
        suffix: str = "",
        *,
        templates: Sequence[str] = (),
        words: Mapping[str, str] | None = None,
        add_missing_word: bool = False,
        protected: Collection[str] = (),
        shuffle: bool = False,
        keep_first: int = 0,
        keep_separator: str = "|||",
        separator: str = ",",
        tag_dropout: float = 0.0,
        caption_dropout: float = 0.0,
        wildcards: bool = False,
    ) -> None:
        """`words`: concept -> word for `{word}`; `add_missing_word` puts it first where a caption lacks it."""
        for name, chance in (("tag_dropout", tag_dropout), ("caption_dropout", caption_dropout)):
            if not 0.0 <= chance <= 1.0:
                raise DataError(f"{name} = {chance}: a chance is from 0 to 1.")
        if keep_first < 0:
            raise DataError(f"keep_first = {keep_first}: the number of tags to keep in front is 0 or more.")
        if not separator:
            raise DataError("separator = '': tags need something between them, usually a comma.")
        self._prefix, self._suffix = prefix.strip(), suffix.strip()
        self._templates = tuple(templates)
        self._words = dict(words or {})
        self._add_missing_word = add_missing_word
        self._finders = {word: WordFinder([word]) for word in self._words.values()}
        self._protected = WordFinder([*protected, *self._words.values()])
        self._shuffle, self._keep_first, self._keep_separator = shuffle, keep_first, keep_separator
        self._separator = separator
        self._joint = separator if separator.endswith(" ") else f"{separator} "
        self._tag_dropout, self._caption_dropout = tag_dropout, caption_dropout
        self._wildcards = wildcards

    def __call__(self, caption: str, *, concept: str, rng: random.Random) -> str:
        """The caption for this draw; "" when the whole caption is dropped."""
        if self._caption_dropout > 0.0 and rng.random() < self._caption_dropout:
            return ""
        word = self._words.get(concept, "")
        if self._add_missing_word and word and not self._finders[word](caption):
            caption = self._join(word, caption)
        caption = self._join(self._prefix, caption, self._suffix)
        if self._wildcards:
            caption = _fill_wildcards(caption, rng)
        caption = self._vary_tags(caption, rng)
        if self._templates:
            template = self._templates[rng.randrange(len(self._templates))]
            caption = _fill_template(template, caption=caption, word=word)
        return caption

    def _join(self, *parts: str) -> str:
        mark = self._separator.strip() or self._separator
        stripped = (part.strip().strip(mark).strip() for part in parts)
        return self._joint.join(part for part in stripped if part)

    def _vary_tags(self, caption: str, rng: random.Random) -> str:
        head, tags, tail = self._divide(caption)
        if not (self._shuffle or self._tag_dropout > 0.0):
            if self._keep_separator and self._keep_separator in caption:
                return self._joint.join([*head, *tags, *tail])
            return caption.strip()
        if self._shuffle:
            rng.shuffle(tags)
        if self._tag_dropout > 0.0:
            # a chance is drawn for protected tags too, so that protecting a word does not shift the other draws
            draws = [rng.random() for _ in tags]
            tags = [
                tag for tag, draw in zip(tags, draws, strict=True) if draw >= self._tag_dropout or self._protected(tag)
            ]
        return self._joint.join([*head, *tags, *tail])

    def _divide(self, caption: str) -> tuple[list[str], list[str], list[str]]:
        """Kept in front, free, kept at the end: `a ||| b, c ||| d`, else the first n are kept in front."""
        if self._keep_separator and self._keep_separator in caption:
            head, _, rest = caption.partition(self._keep_separator)
            middle, _, tail = rest.partition(self._keep_separator)
            parts = [
                split_tags(part.replace(self._keep_separator, self._separator), separator=self._separator)
                for part in (head, middle, tail)
            ]
            return parts[0], parts[1], parts[2]
        tags = split_tags(caption, separator=self._separator)
        return tags[: self._keep_first], tags[self._keep_first :], []


def _fill_wildcards(caption: str, rng: random.Random) -> str:
    """Replace each `{a|b|c}` by one of its choices, inner ones first."""
    while match := _WILDCARD.search(caption):
        choices = match.group(1).split("|")
        caption = caption[: match.start()] + choices[rng.randrange(len(choices))] + caption[match.end() :]
    return caption


def _fill_template(template: str, *, caption: str, word: str) -> str:
    """Fill a template's placeholders; a comma left over by an empty one goes too."""

    def value(match: re.Match[str]) -> str:
        return caption if (match.group(1) or match.group(2)) in ("caption", "filewords") else word

    filled = _PLACEHOLDER.sub(value, template)
    if caption and word:
        return filled.strip()
    return ", ".join(split_tags(filled))
