"""The plan of a run: what is drawn how often, at which size, how long captions are, and what is wrong, before it runs.

Needs pictures and settings, no model. The command line, the web API and the page show the same `RunPlan.as_dict()`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from lib_pivotal.config import Run
from lib_pivotal.data.buckets import Placement
from lib_pivotal.data.crops import PHRASES
from lib_pivotal.data.lint import Length, caption_length
from lib_pivotal.data.lint_warnings import RANK, LintWarning, grouped, worst_first
from lib_pivotal.data.pruning import PrunedCaptions
from lib_pivotal.data.records import Dataset, Level, Picture
from lib_pivotal.data.tokens import CHUNK, TokenCounter
from lib_pivotal.prompts import PromptReading
from lib_pivotal.runs import linting
from lib_pivotal.training import assemble
from lib_pivotal.training.epochs import settled
from lib_pivotal.training.pruned_captions import (
    embedding_of_concepts,
    hold_out,
    make_pruned_captions,
    samples_by_repeats,
    sampling_rates,
)
from lib_pivotal.training.scanning import cut_as


@dataclass(frozen=True)
class EmbeddingPlan:
    """One embedding in the run: `samples` and `share` of all samples are expected values; `absorbed` tags leave its
    captions."""

    name: str
    pictures: int
    samples: float
    share: float
    style: bool
    vectors: int
    init_text: str
    absorbed: tuple[str, ...]
    form_of: str = ""


@dataclass(frozen=True)
class PicturePlan:
    """One picture in the run: where it is trained (px), the share of it that is cut off, and its caption's length.

    `samples` is expected, 0 for one that is held out for the separation score; `trained` is its caption as pruned,
    before it is varied; `length` is that of the longest caption that it can get.
    """

    key: str
    samples: float
    embeddings: tuple[str, ...]
    width_px: int
    height_px: int
    cropped: float
    upscaled: bool
    bordered: bool
    length: Length
    trained: str
    held_out: bool = False

    @property
    def tokens(self) -> int:
        """Places of its longest caption."""
        return self.length.places

    @property
    def behind(self) -> tuple[str, ...]:
        """What of that is cut off, or stands in another chunk than the beginning."""
        return self.length.behind

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        plain = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "length"}
        return _rounded({**plain, "tokens": self.tokens, "behind": self.behind})


@dataclass(frozen=True)
class BucketPlan:
    """A training size (px): its pictures, their samples, and the shares cut off on average and at most."""

    width_px: int
    height_px: int
    pictures: int
    samples: float
    mean_cropped: float
    most_cropped: float


@dataclass(frozen=True)
class RunPlan:
    """What a run will do with a dataset. Samples are pictures shown, of all steps, micro-batches and processes."""

    folder: str
    steps: int
    batch_size: int
    accumulation: int
    samples: int
    samples_per_epoch: float
    embeddings: tuple[EmbeddingPlan, ...]
    pictures: tuple[PicturePlan, ...]
    buckets: tuple[BucketPlan, ...]
    warnings: tuple[LintWarning, ...]
    tokens_counted: bool
    """By the checkpoint's tokenizer; else estimated."""

    @property
    def epochs(self) -> float:
        """How often each picture comes round."""
        return self.samples / self.samples_per_epoch if self.samples_per_epoch else 0.0

    @property
    def steps_per_epoch(self) -> float:
        """Optimiser steps an epoch."""
        return self.steps / self.epochs if self.epochs else 0.0

    @property
    def tokens_most(self) -> int:
        """Of the longest caption."""
        return max((picture.tokens for picture in self.pictures), default=0)

    def at_least(self, severity: Level) -> tuple[LintWarning, ...]:
        """The warnings that are so bad or worse."""
        return tuple(warning for warning in self.warnings if RANK[warning.severity] <= RANK[severity])

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "folder": self.folder,
            "steps": self.steps,
            "batch_size": self.batch_size,
            "accumulation": self.accumulation,
            "samples": self.samples,
            "samples_per_epoch": round(self.samples_per_epoch, 3),
            "epochs": round(self.epochs, 3),
            "steps_per_epoch": round(self.steps_per_epoch, 3),
            "embeddings": [_rounded(asdict(embedding)) for embedding in self.embeddings],
            "buckets": [_rounded(asdict(bucket)) for bucket in self.buckets],
            "tokens": {
                "most": self.tokens_most,
                "over_a_chunk": sum(picture.tokens > CHUNK for picture in self.pictures),
                "counted": self.tokens_counted,
            },
            "warnings": [warning.as_dict() for warning in self.warnings],
            "groups": [group.as_dict() for group in grouped(self.warnings)],
            "pictures": [picture.as_dict() for picture in self.pictures],
        }


def make_plan(
    dataset: Dataset,
    run: Run,
    *,
    wording: PrunedCaptions | None = None,
    prompts: PromptReading | None = None,
) -> RunPlan:
    """The plan of `run` on a scanned dataset.

    `wording` is that of just this run, where the caller has it already; `prompts` how the checkpoint reads captions,
    else their lengths are estimated. A run without embeddings, or with embeddings that no picture has, has a plan too:
    warnings say so. Its steps are those that are trained, also where the run's length is in epochs.

    Raises:
        ConfigError: what must fit into the run's length does not fit into the length that its epochs give.
    """
    run = settled(run, dataset.pictures)
    dataset = cut_as(run.data, dataset)
    wording = wording or make_pruned_captions(run, dataset)
    trained, held = hold_out(run, wording.captions(), find=wording.find)
    pictures = [*trained, *held]
    samples_per_epoch, rates = _rates(run, trained, wording, held_out=bool(held))
    schedule = run.schedule
    total = schedule.total_steps * schedule.batch_size * schedule.accumulation
    drawn = {key: total * rate / samples_per_epoch if samples_per_epoch else 0.0 for key, rate in rates.items()}
    placed = _placements(run, pictures)
    lengths = wording.once(
        "lengths", _of_lengths(run, prompts), lambda: _lengths(run, dataset, wording.captions(), prompts)
    )
    found = linting.lint_warnings(run, dataset, wording, trained=trained, placed=placed, lengths=lengths)
    of_picture = [
        _picture(picture, placed[picture.key], lengths[picture.key], wording, drawn.get(picture.key))
        for picture in pictures
    ]
    order = {picture.key: place for place, picture in enumerate(dataset.pictures)}
    return RunPlan(
        folder=str(dataset.folder),
        steps=schedule.total_steps,
        batch_size=schedule.batch_size,
        accumulation=schedule.accumulation,
        samples=total,
        samples_per_epoch=samples_per_epoch,
        embeddings=_embeddings(run, wording, drawn, total),
        pictures=tuple(sorted(of_picture, key=lambda picture: order[picture.key])),
        buckets=_buckets(of_picture),
        warnings=worst_first(found),
        tokens_counted=prompts is not None,
    )


def _rates(
    run: Run, trained: Sequence[Picture], wording: PrunedCaptions, *, held_out: bool
) -> tuple[float, dict[str, float]]:
    """Samples an epoch of all and of each, as `BatchSource` has them: weights make it as long as there are pictures."""
    embeddings = [wording.embeddings_of[picture.key] for picture in wording.named]
    all_rates = sampling_rates(run, wording.named, embeddings)
    by_key = {picture.key: rate for picture, rate in zip(wording.named, all_rates, strict=True)}
    rates = {picture.key: by_key[picture.key] for picture in trained}
    total = sum(rates.values())
    if (samples_by_repeats(run) and not held_out) or total <= 0:
        return total, rates
    return float(len(trained)), {key: rate * len(trained) / total for key, rate in rates.items()}


def _placements(run: Run, pictures: Sequence[Picture]) -> dict[str, Placement]:
    buckets = assemble.make_buckets(run.data)
    known: dict[tuple[int, int], Placement] = {}
    found = {}
    for picture in pictures:
        size = (picture.width_px, picture.height_px)
        if size not in known:
            known[size] = buckets.assign(*size)
        found[picture.key] = known[size]
    return found


def _of_lengths(run: Run, prompts: PromptReading | None) -> tuple[object, ...]:
    """What decides how long captions are, beside the wording."""
    data = run.data
    vectors = tuple((embedding.name, embedding.vectors) for embedding in run.embeddings)
    texts = (data.prefix, data.suffix, data.templates, data.keep_separator, data.keep_first, data.caption_fields)
    drawn = (data.wildcards, data.word_lists, data.wildcard_folder, data.scale_augmentation)
    return vectors, texts, drawn, data.parts, data.max_tags, data.max_tokens, data.emphasis, prompts


def _lengths(
    run: Run, dataset: Dataset, pictures: Sequence[Picture], prompts: PromptReading | None
) -> dict[str, Length]:
    """Of the longest caption that each picture can get; dropout shortens it."""
    counter = TokenCounter({embedding.name: embedding.vectors for embedding in run.embeddings}, prompts)
    chains = assemble.make_captions(run, embedding_of_concepts(run.embeddings, dataset), pictures=pictures)
    counted: dict[str, int] = {}

    def places(text: str) -> int:
        if text not in counted:
            counted[text] = counter(text)
        return counted[text]

    phrases = [phrase for some in PHRASES.values() for phrase in some] if run.data.scale_augmentation else [""]
    front = max(phrases, key=places)  # far and near pictures' captions begin with one
    return {
        picture.key: caption_length(
            picture.key, front + chains.longest(picture, places), counter, max_tokens=run.data.max_tokens
        )
        for picture in pictures
    }


def _picture(
    picture: Picture, placement: Placement, length: Length, wording: PrunedCaptions, samples: float | None
) -> PicturePlan:
    return PicturePlan(
        key=picture.key,
        samples=samples or 0.0,
        embeddings=tuple(name for name in wording.embeddings_of[picture.key] if name in wording.embeddings),
        width_px=placement.bucket.width_px,
        height_px=placement.bucket.height_px,
        cropped=placement.cropped,
        upscaled=placement.upscaled,
        bordered=not placement.covers,
        length=length,
        trained=picture.caption,
        held_out=samples is None,
    )


def _embeddings(run: Run, wording: PrunedCaptions, drawn: Mapping[str, float], total: int) -> tuple[EmbeddingPlan, ...]:
    found = []
    for embedding in run.embeddings:
        tags = wording.embeddings[embedding.name]
        samples = sum(drawn.get(key, 0.0) for key in tags.keys)
        found.append(
            EmbeddingPlan(
                name=embedding.name,
                pictures=len(tags.keys),
                samples=samples,
                share=samples / total if total else 0.0,
                style=tags.style,
                vectors=embedding.vectors,
                init_text=embedding.init_text,
                absorbed=tuple(tag.tag for tag in tags.tags if tag.fate != "kept"),
                form_of=embedding.form_of,
            )
        )
    return tuple(found)


def _buckets(pictures: Sequence[PicturePlan]) -> tuple[BucketPlan, ...]:
    """The fullest first."""
    groups: dict[tuple[int, int], list[PicturePlan]] = defaultdict(list)
    for picture in pictures:
        groups[picture.width_px, picture.height_px].append(picture)
    found = [
        BucketPlan(
            width_px=size[0],
            height_px=size[1],
            pictures=len(group),
            samples=sum(picture.samples for picture in group),
            mean_cropped=sum(picture.cropped for picture in group) / len(group),
            most_cropped=max(picture.cropped for picture in group),
        )
        for size, group in groups.items()
    ]
    return tuple(sorted(found, key=lambda bucket: (-bucket.pictures, bucket.width_px, bucket.height_px)))


def _rounded(plain: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in plain.items()}
