"""From a scanned folder to a table of embeddings: which embeddings the pictures train, how they begin, how often they
come."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from lib_pivotal.config import EmbeddingConfig, Run
from lib_pivotal.data.captions import legal_name as legal_name
from lib_pivotal.data.init_texts import VECTORS, begin
from lib_pivotal.data.pruning import PrunedCaptions, TagDecision
from lib_pivotal.data.records import Dataset
from lib_pivotal.data.sources.kgrid_files import KgridFiles, read_kgrid_files
from lib_pivotal.data.tags import CLOTHES, NARUGO_FEATURES, NOT_CORE, TagShare, difficulty, same_tag
from lib_pivotal.data.tokens import estimated_ids
from lib_pivotal.embedding_names import check_embedding_name
from lib_pivotal.prompts import PromptReading
from lib_pivotal.runs.folder_embeddings import embeddings_of_folders
from lib_pivotal.training.pruned_captions import embedding_use, make_pruned_captions, sampling_rates
from lib_pivotal.training.scanning import cut_as

MOST_EMBEDDINGS = 60
LEAD_TAGS = 2
"""An embedding of one's own stands among the first so many tags of its captions."""
UNEVEN = 2.0
"""Embeddings of which one is drawn so many times as often as another are balanced."""

ORDINARY = frozenset(
    "masterpiece absurdres highres lowres realistic photo photograph painting sketch nsfw safe general cat dog animal "
    "woman man person character a an the of and with in on".split()
)


SIZES_PX = (1024, 896, 768, 640, 512, 448, 384, 320, 256, 192, 128)
"""Training sizes that are proposed."""


@dataclass(frozen=True)
class EmbeddingRow:
    """An embedding: its settings, and what the pictures say about it.

    `sampling_share` is its part of all samples; `style` marks embeddings that stand beside other words; `absorbed` are
    the tags that it stands for (or would, if its captions are not pruned), `kept` frequent tags that stay in the
    captions; `lift` tells how much more frequent a tag is with this embedding than in all. `keys` are its pictures,
    `tags` all of its tags with what happens to each.
    """

    embedding: EmbeddingConfig
    pictures: int
    sampling_share: float
    style: bool = False
    absorbed: tuple[TagShare, ...] = ()
    kept: tuple[TagShare, ...] = ()
    lift: Mapping[str, float] | None = None
    keys: tuple[str, ...] = field(default=(), repr=False)
    tags: tuple[TagDecision, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Proposal:
    """What a folder suggests: embeddings, a training size, and how to draw."""

    rows: tuple[EmbeddingRow, ...]
    resolution_px: int
    balance: str = "repeats"
    remarks: tuple[str, ...] = ()


def propose(
    dataset: Dataset, run: Run | None = None, *, largest_px: int = 512, prompts: PromptReading | None = None
) -> Proposal:
    """Embeddings that captions, folders and kgrid's files name, each with init text, vectors, counts and tags.

    `run` holds the rules for tags and captions that the user has set; its own embeddings do not matter. `largest_px` is
    the size that the checkpoint draws best; `prompts` counts how many vectors an init text takes, else it is estimated.
    """
    run = run or Run()
    dataset = cut_as(run.data, dataset)
    files = read_kgrid_files(dataset.folder)
    named = [EmbeddingConfig(name=name, vectors=VECTORS) for name in embeddings_in_captions(dataset)]
    embeddings, remarks = embeddings_of_folders(dataset, named, files=files, limit=MOST_EMBEDDINGS)
    run = replace(run, embeddings=tuple(embeddings))
    wording = make_pruned_captions(run, dataset)
    rows = rows_of(run, dataset, wording)
    ids = prompts.token_ids if prompts is not None else estimated_ids
    started = tuple(_with_start(row, run, files, lambda tag: len(ids(tag))) for row in rows)
    run = replace(run, embeddings=started)
    wording = wording.revised([embedding_use(embedding) for embedding in started]) or make_pruned_captions(run, dataset)
    rows = rows_of(run, dataset, wording)
    return Proposal(
        rows, fitting_resolution(dataset, largest_px=largest_px), fitting_balance(dataset, rows), tuple(remarks)
    )


def embeddings_in_captions(dataset: Dataset) -> list[str]:
    """Tags that look like embeddings of one's own: legal, made up, and in front in nearly all captions that have
    them."""
    counts: Counter[str] = Counter()
    leading: Counter[str] = Counter()
    may_be_embedding = cache(_may_be_embedding)
    for picture in dataset.pictures:
        for position, tag in enumerate(dict.fromkeys(picture.cut.tags(picture.caption))):
            if may_be_embedding(tag):
                counts[tag.lower()] += 1
                leading[tag.lower()] += position < LEAD_TAGS
    for concept, keys in dataset.concepts.items():  # a folder's name that its captions hold anywhere
        name = concept.lower()
        if not check_embedding_name(name) and counts[name] >= 0.5 * len(keys):
            leading[name] = counts[name]
    least = 1 if len(dataset) < 8 else 2
    found = [name for name, count in counts.items() if count >= least and leading[name] >= 0.8 * count]
    return sorted(found, key=lambda name: (-counts[name], name))[:MOST_EMBEDDINGS]


def _may_be_embedding(tag: str) -> bool:
    name = tag.lower()
    parts = set(re.split(r"[_-]", name))
    ordinary = any(not parts.isdisjoint(known) for known in (NOT_CORE, CLOTHES, NARUGO_FEATURES, ORDINARY))
    return len(name) > 2 and not ordinary and not check_embedding_name(name)


def describe_embeddings(dataset: Dataset, run: Run) -> tuple[EmbeddingRow, ...]:
    """The run's embeddings with what the pictures say of them."""
    return rows_of(run, dataset, make_pruned_captions(run, dataset))


def rows_of(run: Run, dataset: Dataset, wording: PrunedCaptions) -> tuple[EmbeddingRow, ...]:
    """The same from captions that are read already."""
    embeddings_of = wording.embeddings_of
    rates = sampling_rates(run, dataset.pictures, [embeddings_of[picture.key] for picture in dataset.pictures])
    by_key = {picture.key: rate for picture, rate in zip(dataset.pictures, rates, strict=True)}
    total = sum(rates)
    rows = []
    for embedding in run.embeddings:
        found = wording.embeddings[embedding.name]
        kept = [TagShare(tag.tag, tag.share) for tag in found.tags if not tag.belongs]
        rows.append(
            EmbeddingRow(
                embedding=embedding,
                pictures=len(found.keys),
                sampling_share=sum(by_key[key] for key in found.keys) / total if total else 0.0,
                style=found.style,
                absorbed=found.belonging,
                kept=tuple(kept[:8]),
                lift={tag.tag: tag.lift for tag in found.tags},
                keys=found.keys,
                tags=found.tags,
            )
        )
    return tuple(rows)


def _with_start(row: EmbeddingRow, run: Run, files: KgridFiles, count: Callable[[str], int]) -> EmbeddingConfig:
    """With an init text of what it stands for and some random rows behind, and vectors enough to hold both.

    kgrid's own lists come before ours: `emb_init` begins the vectors, `core_tag` says what is absorbed.
    """
    embedding = row.embedding
    given = files.core.get(embedding.name)
    core = {same_tag(item.tag) for item in row.absorbed}
    if given is not None and not row.style:
        dropped, kept = (tuple(same_tag(tag) for tag in tags) for tags in (given.dropped, given.kept))
        embedding = replace(
            embedding,
            prune_tags=tuple(tag for tag in dropped if tag not in core),
            keep_tags=tuple(tag for tag in kept if tag in core),
        )
        core = (core | set(dropped)) - set(embedding.keep_tags)
    begins = files.initial.get(embedding.name)
    if begins is None:
        least = 1 if run.data.core_rule == "kgrid" else 0
        begins = tuple(same_tag(item.tag) for item in row.absorbed if difficulty(item.tag) >= least)
    text, vectors = begin(begins, count, most=run.data.most_vectors, random=run.data.random_vectors)
    return replace(embedding, init_text=text, vectors=vectors if text else VECTORS, prune=bool(core) and not row.style)


def fitting_balance(dataset: Dataset, rows: Sequence[EmbeddingRow]) -> str:
    """Folders that say how often they count are taken at their word; else uneven embeddings are drawn alike."""
    shares = [row.sampling_share for row in rows if row.sampling_share > 0 and not row.style]
    plain = all(picture.repeats == 1 for picture in dataset.pictures)
    return "embeddings" if plain and shares and max(shares) > UNEVEN * min(shares) else "repeats"


def fitting_resolution(dataset: Dataset, *, largest_px: int = 512) -> int:
    """The training size that most pictures have: 64 px pictures are trained at 64, photographs at `largest_px`."""
    if not dataset.pictures:
        return largest_px
    sides = sorted(round((picture.width_px * picture.height_px) ** 0.5) for picture in dataset.pictures)
    typical = sides[len(sides) // 2]
    return next((size for size in SIZES_PX if typical >= size <= largest_px), 64)


def samples_of(run: Run, rows: Sequence[EmbeddingRow]) -> dict[str, float]:
    """How often each embedding is drawn in a run, on average."""
    pictures = run.schedule.total_steps * run.schedule.batch_size * run.schedule.accumulation
    return {row.embedding.name: row.sampling_share * pictures for row in rows}


def steps_for_samples(rows: Sequence[EmbeddingRow], samples: int, *, batch: int) -> int:
    """Steps after which the embedding in the middle was drawn so often; rounded to 50, between 100 and 20 000."""
    shares = sorted(row.sampling_share for row in rows if row.sampling_share > 0)
    share = shares[len(shares) // 2] if shares else 1.0
    steps = samples / (share * max(batch, 1))
    return int(min(20_000, max(100, round(steps / 50) * 50)))
