"""A caption as it is trained at one draw: kohya's chain, kgrid's fields before it, templates and word lists behind."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

from lib_pivotal.data.captions import (
    KEEP_MARK,
    Cut,
    EmbeddingFinder,
    as_letters,
    read_text,
    split_tags,
    with_pairs_alone,
)
from lib_pivotal.data.records import Picture
from lib_pivotal.data.tags import TAG_CLASSES, tag_class
from lib_pivotal.errors import DataError
from lib_pivotal.files import typed_path

FIELDS = ("npeople", "characters", "copyright", "type", "artist", "rating", "crop", "tags")
"""What kgrid's captions are made of, in its order (anime2sd/captioning/captioning.py, `default_ordering`)."""

_PLACEHOLDER = re.compile(r"\{([A-Za-z0-9_-]+)\}|\[(filewords|name)\]")
_CAPTION, _EMBEDDING = ("caption", "filewords"), ("word", "name")
_WILDCARD = re.compile(r"\{([^{}]*\|[^{}]*)\}")
_LIST = re.compile(r"__([A-Za-z0-9_/-]+?)__")
_MOST_EXPANSIONS = 100

Choose = Callable[[Sequence[str]], str]
"""Takes one of several texts."""
Opening = Callable[[random.Random], str]
"""Draws what a caption begins with."""

DropMode = Literal["each", "all", "rising"]
"""How tags drop: each by its own draw; all that are not kept by one draw; by its place, the last with the whole chance
(mgds of OneTrainer, pipelineModules/DropTags.py: FULL and RANDOM WEIGHTED)."""


@dataclass(frozen=True)
class CaptionSettings:
    """How captions vary; `config.DataConfig` says what each does.

    `tag_classes` are chances of dropping by class of tag or `/regular expression/`, `drop_mode` how these draws hang
    together; `fields` the parts of a caption with their chances; `dropout_epochs` n: each n-th epoch has no captions;
    `bare`: chance that only the names of a caption's embeddings stand in its place; `warmup_steps` in optimiser steps.
    """

    prefix: str = ""
    suffix: str = ""
    templates: tuple[str, ...] = ()
    shuffle: bool = False
    keep_first: int = 0
    keep_separator: str = KEEP_MARK
    separator: str = ","
    tag_dropout: float = 0.0
    tag_classes: tuple[tuple[str, float], ...] = ()
    drop_mode: DropMode = "each"
    caption_dropout: float = 0.0
    dropout_epochs: int = 0
    bare: float = 0.0
    warmup_steps: int = 0
    warmup_tags: int = 1
    max_tags: int = 0
    wildcards: bool = False
    emphasis: bool = True
    fields: tuple[tuple[str, float], ...] = ()
    add_missing_embedding: bool = False

    def __post_init__(self) -> None:
        chances = [(name, getattr(self, name)) for name in ("tag_dropout", "caption_dropout", "bare")]
        for name, chance in (*chances, *self.tag_classes, *self.fields):
            if not 0.0 <= chance <= 1.0:
                raise DataError(f"{name} = {chance}: a chance is from 0 to 1.")
        for name in ("keep_first", "dropout_epochs", "warmup_steps", "max_tags"):
            if getattr(self, name) < 0:
                raise DataError(f"{name} = {getattr(self, name)}: must be 0 or more.")
        if not self.separator:
            raise DataError("separator = '': tags need something between them, usually a comma.")
        for name, _ in self.fields:
            if name not in FIELDS:
                raise DataError(f"caption field {name!r} is unknown. There are: {', '.join(FIELDS)}.")
        for name, _ in self.tag_classes:
            if name not in TAG_CLASSES and not (len(name) > 2 and name.startswith("/") and name.endswith("/")):
                known = ", ".join(TAG_CLASSES)
                raise DataError(f"tag class {name!r} is unknown. There are: {known}; or write /a regular expression/.")


@dataclass(frozen=True)
class TrainingTime:
    """When a caption is drawn: finished optimiser steps and whole epochs, both from 0."""

    step: int = 0
    epoch: int = 0


START = TrainingTime()


class Captions(Protocol):
    """What makes the caption of a draw."""

    def draw(
        self, picture: Picture, *, rng: random.Random, moment: TrainingTime = START, opening: Opening | None = None
    ) -> str:
        """A picture's caption for this draw; deterministic given `rng` and the moment. It begins with what `opening`
        gives, unless it is left out; the limit of tokens counts that, too."""

    def longest(self, picture: Picture, places: Callable[[str], int]) -> str:
        """The longest caption that a draw can give it, as `places` counts; limits of tokens are left aside."""


class CaptionsByPart:
    """Chains of their own for some pictures, by key; one chain for all others."""

    def __init__(self, common: Captions, own: Mapping[str, Captions]) -> None:
        self._common, self._own = common, dict(own)

    def draw(
        self, picture: Picture, *, rng: random.Random, moment: TrainingTime = START, opening: Opening | None = None
    ) -> str:
        """By the chain of this picture."""
        return self._own.get(picture.key, self._common).draw(picture, rng=rng, moment=moment, opening=opening)

    def longest(self, picture: Picture, places: Callable[[str], int]) -> str:
        """By the chain of this picture."""
        return self._own.get(picture.key, self._common).longest(picture, places)


class CaptionPipeline:
    """Makes the caption of each draw; deterministic given `rng` and the moment, so that resuming needs no state.

    In kohya's order (https://github.com/kohya-ss/sd-scripts/blob/48d368fa/library/train_util.py, `process_caption`):
    prefix and suffix, caption dropout, one of the picture's captions, wildcards `{a|b}`, keep separator or keep first
    n, warm-up, shuffle, tag dropout; then templates, as the web UI's textual inversion has them, emphasis (of brackets
    in pairs; those of faces such as `:(` are letters), and the limit of tokens. Differs from kohya: prefix and suffix
    are tags of their own and go to whichever caption is drawn; tags that hold a `protected` embedding are never
    dropped, cut or warmed up. Where a picture has fields and the settings name some, its caption is made of them first,
    each with its chance, a keep separator before `tags`.

    Placeholders of templates: `{caption}` or `{filewords}`; `{word}` or `{name}` (the embedding of the picture's
    concept); `[filewords]` and `[name]` as in the web UI; `{any}` a choice of the list `any`, as HCP's templates have
    them.
    """

    def __init__(
        self,
        settings: CaptionSettings | None = None,
        *,
        embeddings: Mapping[str, str] | None = None,
        protected: Collection[str] = (),
        classes: Mapping[str, str] | None = None,
        lists: Mapping[str, Sequence[str]] | None = None,
        shorten: Callable[[str], str] | None = None,
    ) -> None:
        """`embeddings`: concept -> embedding for `{word}`; `classes`: embedding -> what stands beside its bare name;
        `lists`: name -> choices; `shorten` cuts what is over the limit."""
        self.settings = settings or CaptionSettings()
        self._embeddings, self._lists = dict(embeddings or {}), dict(lists or {})
        self._classes = dict(classes or {})
        self._finders = {embedding: EmbeddingFinder([embedding]) for embedding in self._embeddings.values()}
        self._protected = EmbeddingFinder([*protected, *self._embeddings.values()])
        self._shorten = shorten
        separator = self.settings.separator
        self._cut = Cut(self.settings.keep_separator, separator)
        self._joint = separator if separator.endswith(" ") else f"{separator} "
        self._patterns = {
            name: re.compile(name[1:-1], re.IGNORECASE)
            for name, _ in self.settings.tag_classes
            if name not in TAG_CLASSES
        }

    def draw(
        self, picture: Picture, *, rng: random.Random, moment: TrainingTime = START, opening: Opening | None = None
    ) -> str:
        """A picture's caption for this draw: one of its captions, or one made of its fields; then the chain."""
        settings = self.settings
        if self._left_out(rng, moment):
            return ""
        if settings.bare > 0.0 and rng.random() < settings.bare and (bare := self._bare(picture)):
            return bare if opening is None else opening(rng) + bare
        if settings.fields and picture.fields:
            caption = self._of_fields(picture, rng)
        elif picture.alternatives:
            captions = (picture.caption, *picture.alternatives)
            caption = captions[rng.randrange(len(captions))]
        else:
            caption = picture.caption
        return self._vary(caption, concept=picture.concept, rng=rng, moment=moment, opening=opening)

    def longest(self, picture: Picture, places: Callable[[str], int]) -> str:
        """The longest caption that a draw can give: nothing dropped, and wherever one is drawn, the longest.

        Choices within a text are compared by themselves: tokens that two of them make together are not foreseen.
        """
        settings, longer = self.settings, partial(max, key=places)
        if settings.fields and picture.fields:
            captions = [self._made_of({name for name, chance in settings.fields if chance > 0}, picture)]
        else:
            captions = [picture.caption, *picture.alternatives]
        embedding, found = self._embeddings.get(picture.concept, ""), list[str]()
        for caption in captions:
            caption = self._before_tags(caption, embedding, longer)
            head, tags, tail = self._divide(caption)
            if settings.max_tags:
                free = sorted((tag for tag in tags if not self._protected(tag)), key=places, reverse=True)
                embeddings = [tag for tag in tags if self._protected(tag)] if settings.shuffle else []
                room = max(0, settings.max_tags - len(head) - len(tail))
                tags = [*embeddings, *free[:room]] if settings.shuffle else self._first(tags, room)
            if settings.max_tags or self._cut.has_mark(caption):
                caption = self._joined([*head, *tags, *tail])
            texts = [
                self._fill_template(template, caption=caption, embedding=embedding, choose=longer)
                for template in settings.templates
            ]
            found += texts or [caption]
        found = [self._as_meant(text) for text in found]
        return longer(found) if len(found) > 1 else found[0]

    def __call__(self, caption: str, *, concept: str, rng: random.Random, moment: TrainingTime = START) -> str:
        """A text for this draw; "" when the whole caption is dropped."""
        return "" if self._left_out(rng, moment) else self._vary(caption, concept=concept, rng=rng, moment=moment)

    def _left_out(self, rng: random.Random, moment: TrainingTime) -> bool:
        settings = self.settings
        dropped = settings.caption_dropout > 0.0 and rng.random() < settings.caption_dropout
        # kohya counts epochs from 1
        return dropped or (settings.dropout_epochs > 0 and (moment.epoch + 1) % settings.dropout_epochs == 0)

    def _vary(
        self, caption: str, *, concept: str, rng: random.Random, moment: TrainingTime, opening: Opening | None = None
    ) -> str:
        settings = self.settings
        embedding = self._embeddings.get(concept, "")

        def choose(options: Sequence[str]) -> str:
            return options[rng.randrange(len(options))]

        caption = self._vary_tags(self._before_tags(caption, embedding, choose), rng, moment)
        if settings.templates:
            template = settings.templates[rng.randrange(len(settings.templates))]
            caption = self._fill_template(template, caption=caption, embedding=embedding, choose=choose)
        if opening is not None and caption:
            caption = opening(rng) + caption
        caption = self._as_meant(caption)  # before it is measured: letters take places
        return caption if self._shorten is None else self._shorten(caption)

    def _as_meant(self, caption: str) -> str:
        """With what is a letter in it written as one for those who read prompts."""
        settings = self.settings
        return with_pairs_alone(caption, separator=settings.separator) if settings.emphasis else as_letters(caption)

    def _before_tags(self, caption: str, embedding: str, choose: Choose) -> str:
        """With embedding, prefix and suffix, and its wildcards filled."""
        settings = self.settings
        if settings.add_missing_embedding and embedding and not self._finders[embedding](caption):
            caption = self._join(embedding, caption)
        caption = self._join(settings.prefix, caption, settings.suffix)
        return fill_wildcards(caption, choose, self._lists) if settings.wildcards else caption

    def _bare(self, picture: Picture) -> str:
        """The names of a picture's embeddings, each with its class behind it, and nothing else; "" where it has none.

        As eden's trainer has it, where the caption is the trained token alone with a chance of 0.1.
        """
        settings = self.settings
        written = self._join(settings.prefix, picture.caption, settings.suffix)
        names = self._protected(written) or (self._embeddings.get(picture.concept, ""),)
        tags = (tag for name in names for tag in (name, self._classes.get(name, "")))
        return self._join(*dict.fromkeys(tags))

    def _of_fields(self, picture: Picture, rng: random.Random) -> str:
        """kgrid's caption: each field with its chance."""
        # a chance is drawn for fields that this picture lacks, too: others' draws then stay as they are
        return self._made_of({name for name, chance in self.settings.fields if rng.random() < chance}, picture)

    def _made_of(self, names: Collection[str], picture: Picture) -> str:
        """A caption of these fields, in the settings' order; embeddings of the picture are never lost."""
        texts = dict(picture.fields)
        caption = ""
        for name, _ in self.settings.fields:
            if name not in names or not texts.get(name):
                continue
            joint = (
                f" {self.settings.keep_separator} " if name == "tags" and self.settings.keep_separator else self._joint
            )
            caption += (joint if caption else "") + texts[name]
        missing = [
            embedding for embedding in self._protected(picture.caption) if embedding not in self._protected(caption)
        ]
        return self._join(*missing, caption)

    def _join(self, *parts: str) -> str:
        mark = self.settings.separator.strip() or self.settings.separator
        stripped = (part.strip().strip(mark).strip() for part in parts)
        return self._joint.join(part for part in stripped if part)

    def _vary_tags(self, caption: str, rng: random.Random, moment: TrainingTime) -> str:
        settings = self.settings
        warming = moment.step < settings.warmup_steps
        drops = settings.tag_dropout > 0.0 or bool(settings.tag_classes)
        if not (settings.shuffle or drops or warming or settings.max_tags):
            if self._cut.has_mark(caption):
                return self._joined([tag for part in self._divide(caption) for tag in part])
            return caption.strip()
        head, tags, tail = self._divide(caption)
        if warming:
            tags = self._first(tags, self._warm_tags(len(tags), moment.step))
        if drops and settings.drop_mode == "rising":  # by places as they are written
            tags = self._drop(tags, rng)
        if settings.shuffle:
            rng.shuffle(tags)
        if drops and settings.drop_mode != "rising":
            tags = self._drop(tags, rng)
        if settings.max_tags:
            tags = self._first(tags, max(0, settings.max_tags - len(head) - len(tail)))
        return self._joined([*head, *tags, *tail])

    def _joined(self, tags: Sequence[str]) -> str:
        """A caption of these tags. In another order brackets of two tags may look like a pair: they are letters."""
        return self._joint.join(map(self._as_meant, tags) if self.settings.emphasis else tags)

    def _drop(self, tags: list[str], rng: random.Random) -> list[str]:
        """The tags that stay. A chance is drawn for protected tags too, so that protecting an embedding does not shift
        the other draws."""
        mode, count = self.settings.drop_mode, len(tags)
        draws = [rng.random()] * count if mode == "all" else [rng.random() for _ in tags]
        weights = [(place + 1) / count if mode == "rising" else 1.0 for place in range(count)]
        return [
            tag
            for tag, draw, weight in zip(tags, draws, weights, strict=True)
            if draw >= self._chance(tag) * weight or self._protected(tag)
        ]

    def _warm_tags(self, tags: int, step: int) -> int:
        least = self.settings.warmup_tags
        return math.floor(step * ((tags - least) / self.settings.warmup_steps)) + least

    def _first(self, tags: list[str], count: int) -> list[str]:
        """The first `count` tags, and behind them those that hold an embedding."""
        return [tag for index, tag in enumerate(tags) if index < count or self._protected(tag)]

    def _chance(self, tag: str) -> float:
        for name, chance in self.settings.tag_classes:
            pattern = self._patterns.get(name)
            if pattern.search(tag) if pattern is not None else tag_class(tag) == name:
                return chance
        return self.settings.tag_dropout

    def _divide(self, caption: str) -> tuple[list[str], list[str], list[str]]:
        """Kept in front, free, kept at the end: `a ||| b, c ||| d`, else the first n are kept in front."""
        return self._cut.divide(caption, self.settings.keep_first)

    def _fill_template(self, template: str, *, caption: str, embedding: str, choose: Choose) -> str:
        """Fill a template's placeholders; a comma left over by an empty one goes too."""

        def value(match: re.Match[str]) -> str:
            name = match.group(1) or match.group(2)
            if name in _CAPTION:
                return caption
            if name in _EMBEDDING:
                return embedding
            choices = self._lists.get(name)
            return choose(choices) if choices else match.group(0)

        filled = _PLACEHOLDER.sub(value, template)
        return filled.strip() if caption and embedding else ", ".join(split_tags(filled))


def fill_wildcards(caption: str, choose: Choose, lists: Mapping[str, Sequence[str]] | None = None) -> str:
    """Replace `__name__` by a choice of that list and `{a|b|c}` by one of its choices, inner ones first.

    `{{` and `}}` stand for braces that stay, as in kohya; a name without a list stays as it is.
    """
    lists = lists or {}
    opening, closing = "\ue000", "\ue001"  # private letters, which no caption has
    caption = caption.replace("{{", opening).replace("}}", closing)

    def choice(match: re.Match[str]) -> str:
        choices = lists.get(match.group(1))
        return choose(choices) if choices else match.group(0)

    for _ in range(_MOST_EXPANSIONS):  # a list may name another list, or itself
        filled = _LIST.sub(choice, caption)
        while match := _WILDCARD.search(filled):
            filled = filled[: match.start()] + choose(match.group(1).split("|")) + filled[match.end() :]
        if filled == caption:
            break
        caption = filled
    return caption.replace(opening, "{").replace(closing, "}")


def parse_lists(lines: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """`who = girl | woman` lines by name; an empty choice is a choice."""
    found: dict[str, tuple[str, ...]] = {}
    for line in lines:
        name, equals, choices = line.partition("=")
        if not (name.strip() and equals):
            raise DataError(f"word list {line!r}: write `name = first | second`.")
        found[name.strip()] = tuple(choice.strip() for choice in choices.split("|"))
    return found


def read_lists(folder: Path | str) -> dict[str, tuple[str, ...]]:
    """Wildcard files as sd-dynamic-prompts has them: `hair/colour.txt` is the list `hair/colour`, a choice a line.

    Empty lines and lines that begin with `#` are no choices.

    Raises:
        DataError: there is no such folder.
    """
    root = typed_path(folder)
    if not root.is_dir():
        raise DataError(f"{root}: is not a folder. Give one with lists, `name.txt`, one choice per line.")
    found: dict[str, tuple[str, ...]] = {}
    for path in sorted(root.rglob("*.txt")):
        lines = (line.strip() for line in read_text(path)[0].splitlines())
        choices = tuple(line for line in lines if line and not line.startswith("#"))
        if choices:
            found[path.relative_to(root).with_suffix("").as_posix()] = choices
    return found
