"""From a scanned folder to a table of words: which words captions train, how they begin, how often they come."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from lib_pivotal.bundle.format import check_word_name
from lib_pivotal.config import Run, WordConfig
from lib_pivotal.data.captions import WordFinder, split_tags
from lib_pivotal.data.records import Dataset
from lib_pivotal.data.tags import (
    CLOTHES,
    NARUGO_FEATURES,
    NOT_CORE,
    TagShare,
    core_tags,
    init_text,
    same_tag,
    tag_shares,
)

ADVISED_DRAWS = 800
"""So often a word wants to be drawn in a run (kgrid's rule of thumb)."""

MOST_WORDS = 60
VECTORS = 4
CORE_TAGS_IN_INIT = 5
LEAD_TAGS = 2
"""A word of one's own stands among the first so many tags of its captions."""

ORDINARY = frozenset(
    "masterpiece absurdres highres lowres realistic photo photograph painting sketch nsfw safe general cat dog animal "
    "woman man person character a an the of and with in on".split()
)
WORD_TEMPLATE = "{word}, {caption}"


@dataclass(frozen=True)
class WordRow:
    """A proposed word: its settings, and what the pictures say about it.

    `draws_share` is its part of all draws; `style` marks words that stand beside other words; `absorbed` are the tags
    that it should stand for, `kept` frequent tags that stay in the captions; `lift` tells how much more frequent a
    tag is with this word than without.
    """

    word: WordConfig
    pictures: int
    draws_share: float
    style: bool = False
    absorbed: tuple[TagShare, ...] = ()
    kept: tuple[TagShare, ...] = ()
    lift: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Proposal:
    """What a folder suggests: words, a training size, and templates where no caption names a word."""

    rows: tuple[WordRow, ...]
    resolution_px: int
    templates: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def propose(dataset: Dataset) -> Proposal:
    """Words that the captions hold, else the concepts' names, each with init text, counts and tags."""
    names = words_in_captions(dataset)
    templates: tuple[str, ...] = ()
    remarks: list[str] = []
    if not names and dataset.pictures:
        names = _names_of_concepts(dataset)
        templates = (WORD_TEMPLATE,)
        remarks.append(
            "No caption names a word of your own: the folder's name is proposed, and a template writes it in front of "
            "every caption. Rename it as you like."
        )
    rows = describe_words(
        dataset, [WordConfig(name=name, vectors=VECTORS) for name in names], everywhere=bool(templates)
    )
    rows = tuple(_with_start(row) for row in rows)
    return Proposal(rows, fitting_resolution(dataset), templates, tuple(remarks))


def words_in_captions(dataset: Dataset) -> list[str]:
    """Tags that look like words of one's own: legal, made up, and in front in nearly all captions that have them."""
    counts: Counter[str] = Counter()
    leading: Counter[str] = Counter()
    for picture in dataset.pictures:
        tags = [tag.strip() for tag in split_tags(picture.caption)]
        for position, tag in enumerate(dict.fromkeys(tags)):
            if _may_be_word(tag):
                counts[tag.lower()] += 1
                leading[tag.lower()] += position < LEAD_TAGS
    for concept, keys in dataset.concepts.items():  # a folder's name that its captions hold anywhere
        name = concept.lower()
        if not check_word_name(name) and counts[name] >= 0.5 * len(keys):
            leading[name] = counts[name]
    least = 1 if len(dataset) < 8 else 2
    found = [name for name, count in counts.items() if count >= least and leading[name] >= 0.8 * count]
    return sorted(found, key=lambda name: (-counts[name], name))[:MOST_WORDS]


def _may_be_word(tag: str) -> bool:
    name = tag.lower()
    parts = set(re.split(r"[_-]", name))
    ordinary = NOT_CORE | CLOTHES | NARUGO_FEATURES | ORDINARY
    return len(name) > 2 and not check_word_name(name) and parts.isdisjoint(ordinary)


def _names_of_concepts(dataset: Dataset) -> list[str]:
    names = (legal_name(concept) for concept in dataset.concepts)
    return list(dict.fromkeys(names))[:MOST_WORDS]


def legal_name(text: str) -> str:
    """The nearest legal word name: `My Girl 2` -> `my-girl`."""
    name = re.sub(r"[^a-z0-9_-]+", "-", text.lower())
    name = re.sub(r"^[^a-z]+|[^a-z]+$", "", name)
    return name or "myword"


def describe_words(dataset: Dataset, words: Sequence[WordConfig], *, everywhere: bool = False) -> tuple[WordRow, ...]:
    """Counts and tags of `words` in this dataset; `everywhere`: a template writes them, captions need not."""
    find = WordFinder([word.name for word in words])
    total = sum(picture.repeats for picture in dataset.pictures)
    overall = {same_tag(item.tag): item.share for item in tag_shares(dataset.captions())}
    mentions = {picture.key: find(picture.caption) for picture in dataset.pictures}
    by_name = {word.name.lower(): word.name for word in words}
    rows = []
    for word in words:
        mine = [picture for picture in dataset.pictures if word.name in mentions[picture.key]]
        if everywhere and not mine:
            mine = [p for p in dataset.pictures if len(words) == 1 or by_name.get(legal_name(p.concept)) == word.name]
        shared = sum(len(mentions[picture.key]) > 1 for picture in mine)
        mine_captions = [picture.caption for picture in mine]
        style = bool(mine) and shared >= 0.5 * len(mine) and _varied_company(word.name, mine_captions, find)
        core = [] if style or not mine else core_tags(mine_captions, words=list(by_name.values()))
        absorbed = {item.tag for item in core}
        shares = tag_shares(mine_captions) if mine else []
        kept = [item for item in shares if item.tag not in absorbed and not find(item.tag)]
        rows.append(
            WordRow(
                word=word,
                pictures=len(mine),
                draws_share=sum(picture.repeats for picture in mine) / total if total else 0.0,
                style=style,
                absorbed=tuple(core),
                kept=tuple(kept[:8]),
                lift={item.tag: item.share / overall[same_tag(item.tag)] for item in shares},
            )
        )
    return tuple(rows)


def _varied_company(name: str, captions: Sequence[str], find: WordFinder) -> bool:
    """Whether the words beside `name` change: then it is the style of the picture, not who is in it."""
    company = Counter(other for caption in captions for other in find(caption) if other != name)
    return len(company) > 2 and max(company.values()) < 0.9 * len(captions)


def _with_start(row: WordRow) -> WordRow:
    """With an init text of the absorbed tags, and some random rows behind."""
    core = row.absorbed[:CORE_TAGS_IN_INIT]
    text = init_text(core, std=0.1, random_vectors=2, lead="") if core else ""
    word = WordConfig(name=row.word.name, init_text=text, vectors=6 if core else VECTORS, prune=bool(core))
    return WordRow(word, row.pictures, row.draws_share, row.style, row.absorbed, row.kept, row.lift)


def fitting_resolution(dataset: Dataset) -> int:
    """The training size that most pictures have: 64 px pictures are trained at 64, photographs at 512."""
    if not dataset.pictures:
        return 512
    sides = sorted(round((picture.width_px * picture.height_px) ** 0.5) for picture in dataset.pictures)
    typical = sides[len(sides) // 2]
    return next((size for size in (512, 448, 384, 320, 256, 192, 128) if typical >= size), 64)


def draws_of(run: Run, rows: Sequence[WordRow]) -> dict[str, float]:
    """How often each word is drawn in a run, on average."""
    pictures = run.schedule.max_steps * run.schedule.batch_size * run.schedule.accumulation
    return {row.word.name: row.draws_share * pictures for row in rows}


def steps_for_draws(rows: Sequence[WordRow], draws: int, *, batch: int) -> int:
    """Steps after which the word in the middle was drawn so often; rounded to 50, between 100 and 20 000."""
    shares = sorted(row.draws_share for row in rows if row.draws_share > 0)
    share = shares[len(shares) // 2] if shares else 1.0
    steps = draws / (share * max(batch, 1))
    return int(min(20_000, max(100, round(steps / 50) * 50)))


def word_problems(run: Run, rows: Sequence[WordRow], *, taken: Collection[str] = ()) -> list[str]:
    """What to look at among the words: those that come too rarely, and names that stand for something already."""
    found: list[str] = []
    rare = {name: draws for name, draws in draws_of(run, rows).items() if draws < ADVISED_DRAWS / 2}
    if rare:
        least = min(rare.values())
        which = " for the rarest" if len(rare) > 1 else ""
        text = f"{_listed(list(rare))}: only {least:.0f} draws in this run{which}; {ADVISED_DRAWS} are advised."
        found.append(f"{text} Train longer, or add pictures.")
    lower = {name.lower() for name in taken}
    known = [row.word.name for row in rows if row.word.name.lower() in lower]
    if known:
        text = f"{_listed(known)}: in use already, by an embedding or another file."
        found.append(f"{text} Fine where this run replaces it, else rename.")
    return found


def _listed(names: Sequence[str], most: int = 4) -> str:
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def never_apart(dataset: Dataset, names: Sequence[str]) -> list[tuple[str, str, int]]:
    """Pairs of words that only occur together: nothing can tell a run which is which."""
    find = WordFinder(names)
    sets: dict[str, set[str]] = {name: set() for name in names}
    for picture in dataset.pictures:
        for name in find(picture.caption):
            sets[name].add(picture.key)
    pairs = []
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            if sets[first] and sets[first] == sets[second]:
                pairs.append((first, second, len(sets[first])))
    return pairs
