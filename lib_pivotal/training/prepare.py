"""Before a run's first step: pictures found and pruned, latents made, words begun."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lib_pivotal.config import Run, WordConfig
from lib_pivotal.data.asymmetry import mirror_warnings
from lib_pivotal.data.buckets import Buckets, crop_report
from lib_pivotal.data.captions import WordFinder
from lib_pivotal.data.dataset import Dataset, Picture, scan
from lib_pivotal.data.focus import with_focus
from lib_pivotal.data.latents import LatentCache
from lib_pivotal.data.masks import MaskScale
from lib_pivotal.data.pruning import Wording
from lib_pivotal.data.records import Problem
from lib_pivotal.data.tags import init_text
from lib_pivotal.errors import ConfigError, DataError, Fault
from lib_pivotal.ports import Host
from lib_pivotal.training import assemble
from lib_pivotal.training.wording import draw_rates, make_wording

HELD_OUT_SHARE = 0.1
HELD_OUT_MOST = 4


@dataclass(frozen=True)
class Prepared:
    """Pictures to train on and to hold out, with captions as they will be trained; words with their init text."""

    pictures: tuple[Picture, ...]
    held_out: tuple[Picture, ...]
    words: tuple[WordConfig, ...]
    pruned_tags: dict[str, tuple[str, ...]]
    dataset: Dataset
    draw_rates: Mapping[str, float] = field(default_factory=dict)
    """Draws an epoch by key, of held-out pictures too; empty: as repeats say."""


def prepare_pictures(run: Run) -> Prepared:
    """Scan the folder, prune the captions of words that ask for it, and hold pictures out if a score needs them.

    Raises:
        ConfigError: no folder, or no picture mentions a word.
        DataError: nothing in the folder can be used.
    """
    if not run.data.folder:
        raise ConfigError([Fault("data.folder", "", "is empty", "Give the folder that holds the pictures.")])
    dataset = scan(run.data.folder, minimum_px=min(32, run.data.resolution_px))
    if not dataset.pictures:
        reasons = "; ".join(problem.message for problem in dataset.problems[:3])
        raise DataError(f"{run.data.folder}: no picture can be used. {reasons}")
    wording = make_wording(run, dataset)
    _check_words_occur(run.words, wording)
    words, pictures = begun_words(run, wording), wording.captions()
    pruned = {
        name: tuple(tag.tag for tag in word.tags if tag.fate != "kept")
        for name, word in wording.words.items()
        if word.use.prune
    }
    rates = draw_rates(run, pictures, [wording.words_of[picture.key] for picture in pictures])
    trained, held_out = _hold_out(run, pictures)
    return Prepared(
        tuple(trained),
        tuple(held_out),
        words,
        pruned,
        dataset,
        draw_rates={picture.key: rate for picture, rate in zip(pictures, rates, strict=True)},
    )


def mirrored(run: Run, pictures: Sequence[Picture]) -> frozenset[str]:
    """Keys of the pictures that are mirrored half of the time: those of no word that is against it."""
    against = [word.name for word in run.words if not word.mirror]
    find = WordFinder(against)
    return frozenset(p.key for p in pictures if run.data.flip and not (against and find(p.caption)))


def picture_remarks(run: Run, prepared: Prepared) -> list[Problem]:
    """What is to be known of how the pictures are trained: what is cut off, and what should not be mirrored."""
    trained = [*prepared.pictures, *prepared.held_out]
    found = [_crop_remark(assemble.make_buckets(run), trained)]
    keys = mirrored(run, trained)
    names = [word.name for word in run.words]
    find = WordFinder(names)
    told: dict[str, list[tuple[str, str]]] = {}
    for picture in prepared.dataset.pictures:
        if picture.key in keys:
            for name in find(picture.caption):
                told.setdefault(name, []).append((picture.key, picture.caption))
    return [remark for remark in found if remark is not None] + mirror_warnings(told)


def _crop_remark(buckets: Buckets, pictures: Sequence[Picture]) -> Problem | None:
    placed = [(picture, buckets.assign(picture.width_px, picture.height_px)) for picture in pictures]
    report = crop_report([placement for _, placement in placed])
    parts = [f"{report['pictures']} pictures in {report['buckets']} size(s)"]
    if report["most_cropped"] > 0:
        parts.append(f"{report['mean_cropped']:.0%} is cut off on average, {report['most_cropped']:.0%} at most")
    if report["upscaled"]:
        parts.append(f"{report['upscaled']} are enlarged")
    if report["bordered"]:
        parts.append(f"{report['bordered']} are shown whole with a border, as cutting would take too much of them")
    keys = tuple(picture.key for picture, placement in placed if placement.upscaled or not placement.covers)
    return Problem("info", "buckets", "; ".join(parts) + ".", keys) if len(parts) > 1 else None


def make_latents(
    run: Run,
    host: Host,
    pictures: Sequence[Picture],
    *,
    spill: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> tuple[LatentCache, list[str]]:
    """Encode pictures once through the host's autoencoder; returns the cache and what went wrong, in words.

    What is beyond the memory that latents may have goes to `spill`, if the run has no folder for latents.
    """
    data = run.data
    scale: MaskScale | None = None if data.masks == "none" else data.masks  # type: ignore[assignment]
    cache = LatentCache(
        host.codec,
        assemble.make_buckets(run),
        folder=Path(data.cache_folder) if data.cache_folder else None,
        spill=spill,
        memory_bytes=run.memory.latents_mb * 2**20 or None,
        flip=mirrored(run, pictures),
        crops=data.crops,
        scale=data.scale_augmentation,
        transparency=data.transparency,  # type: ignore[arg-type]
        masks=scale,
        mask_normalise=data.mask_normalise,
        mask_minimum=data.mask_minimum,
        mask_temperature=data.mask_temperature,
        inpainting=host.info.inpainting,
        device=host.device,
        seed=run.seed,
    )
    found = with_focus(pictures) if data.crop == "face" else list(pictures)
    problems = cache.build(found, progress=progress, should_stop=should_stop)
    return cache, [problem.message for problem in problems]


def begun_words(run: Run, wording: Wording) -> tuple[WordConfig, ...]:
    """The run's words; one that absorbs tags and has no init text begins with them."""
    words = []
    for word in run.words:
        if word.prune and not word.init_text and not word.init_file:
            std = run.words_common.initial_std or 0.1
            core = wording.words[word.name].belonging
            word = replace(word, init_text=init_text(core, std=std, random_vectors=word.vectors))
        words.append(word)
    return tuple(words)


def _check_words_occur(words: Sequence[WordConfig], wording: Wording) -> None:
    """A word that no caption mentions, and no template writes, would learn nothing, silently."""
    faults = [
        Fault(
            f"words.{index}.name",
            word.name,
            "no caption mentions this word, so it would learn nothing",
            "Write it into the captions, say which pictures it applies to, or use a template with {word}.",
        )
        for index, word in enumerate(words)
        if not wording.words[word.name].keys
    ]
    if faults:
        raise ConfigError(faults)


def _hold_out(run: Run, pictures: Sequence[Picture]) -> tuple[list[Picture], list[Picture]]:
    """Every tenth picture of a word, at most four a word, when the separation score is on."""
    if run.saving.separation_every_steps == 0:
        return list(pictures), []
    find = WordFinder([word.name for word in run.words])
    by_word: dict[str, list[Picture]] = {}
    for picture in pictures:
        for name in find(picture.caption)[:1]:
            by_word.setdefault(name, []).append(picture)
    held = {
        picture.key
        for mine in by_word.values()
        for picture in mine[:: math.ceil(1 / HELD_OUT_SHARE)][: HELD_OUT_MOST if len(mine) > HELD_OUT_MOST else 0]
    }
    return [p for p in pictures if p.key not in held], [p for p in pictures if p.key in held]
