"""Embeddings that come too rarely in a run, and their fixes: sampling all alike, sampling them more often, more
steps."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from lib_pivotal.config import Run
from lib_pivotal.data.balance import with_embedding_weights
from lib_pivotal.data.lint_warnings import Fix, LintWarning, listed
from lib_pivotal.data.records import Picture
from lib_pivotal.runs.presets import ADVISED_SAMPLES
from lib_pivotal.training.pruned_captions import sampling_rates

MOST_STEPS = 100_000
MOST_WEIGHT = 100.0
_ROUNDS = 40


def samples_by_embedding(
    run: Run, pictures: Sequence[Picture], embeddings_of: Mapping[str, Sequence[str]], *, held_out: Collection[str] = ()
) -> dict[str, float]:
    """How often each embedding of the run is drawn in it, on average.

    `pictures` are all of the run, as its balance counts them; those whose keys are `held_out` are never drawn.
    """
    embeddings = [embeddings_of[picture.key] for picture in pictures]
    return _samples(run, _rates(run, pictures, embeddings, held_out), embeddings)


def _rates(
    run: Run, pictures: Sequence[Picture], embeddings: Sequence[Sequence[str]], held_out: Collection[str]
) -> list[float]:
    rates = sampling_rates(run, pictures, embeddings)
    return [0.0 if picture.key in held_out else rate for picture, rate in zip(pictures, rates, strict=True)]


def _samples(run: Run, rates: Sequence[float], embeddings: Sequence[Sequence[str]]) -> dict[str, float]:
    total = sum(rates)
    shares = dict.fromkeys((embedding.name for embedding in run.embeddings), 0.0)
    for rate, names in zip(rates, embeddings, strict=True):
        for name in names:
            if name in shares and total > 0:
                shares[name] += rate / total
    schedule = run.schedule
    drawn = schedule.total_steps * schedule.batch_size * schedule.accumulation
    return {name: share * drawn for name, share in shares.items()}


def starvation(
    run: Run, pictures: Sequence[Picture], embeddings_of: Mapping[str, Sequence[str]], *, held_out: Collection[str] = ()
) -> list[LintWarning]:
    """One warning for embeddings below half of what is advised (a warning), one for those below it; see
    `samples_by_embedding`.

    Embeddings without a picture are not meant: the lint says that of them.
    """
    every = samples_by_embedding(run, pictures, embeddings_of, held_out=held_out)
    samples = {name: count for name, count in every.items() if count > 0}
    starved = {name: count for name, count in samples.items() if count < ADVISED_SAMPLES / 2}
    few = {name: count for name, count in samples.items() if ADVISED_SAMPLES / 2 <= count < 0.995 * ADVISED_SAMPLES}
    fixes = _fixes(run, pictures, embeddings_of, samples, held_out) if starved or few else ()
    found = []
    for embeddings, severity, end in (
        (starved, "warning", "an embedding rarely learns from so few"),
        (few, "info", ""),
    ):
        if not embeddings:
            continue
        least = min(embeddings.values())
        shown = listed(f"{name} {count:.0f}" for name, count in sorted(embeddings.items(), key=lambda item: item[1]))
        text = f"{shown}: samples in this run; {ADVISED_SAMPLES} are advised" + (f", {end}." if end else ".")
        if len(embeddings) > 1:
            text = f"{len(embeddings)} embeddings, {least:.0f} samples for the rarest. {text}"
        keys = tuple(p.key for p in pictures if any(name in embeddings for name in embeddings_of[p.key]))
        found.append(LintWarning("few_draws", severity, text, keys, tuple(embeddings), fixes))  # type: ignore[arg-type]
    return found


def _fixes(
    run: Run,
    pictures: Sequence[Picture],
    embeddings_of: Mapping[str, Sequence[str]],
    samples: Mapping[str, float],
    held_out: Collection[str],
) -> tuple[Fix, ...]:
    """What brings every embedding to the advised samples comes first, the cheapest before others."""
    found: list[Fix] = []
    if run.data.balance != "embeddings" and len(samples) > 1:
        even = replace(run, data=replace(run.data, balance="embeddings"))
        evened = samples_by_embedding(even, pictures, embeddings_of, held_out=held_out)
        if min(evened[name] for name in samples) >= ADVISED_SAMPLES:
            fix = Fix("set", "Balance by embeddings", {"path": "data.balance", "value": "embeddings"})
            found.append(fix)
    weights = _weights(run, pictures, embeddings_of, samples, held_out)
    if weights:
        shown = listed(f"{name} ×{weight:g}" for name, weight in weights.items())
        found.append(Fix("draw_weights", f"Sample them more often: {shown}", {"weights": weights}))
    steps = math.ceil(run.schedule.max_steps * ADVISED_SAMPLES / min(samples.values()) / 50) * 50
    if steps <= MOST_STEPS:
        found.append(Fix("set", f"Train {steps} steps", {"path": "schedule.max_steps", "value": max(steps, 1)}))
    return tuple(found)


def _weights(
    run: Run,
    pictures: Sequence[Picture],
    embeddings_of: Mapping[str, Sequence[str]],
    samples: Mapping[str, float],
    held_out: Collection[str],
) -> dict[str, float]:
    """Sampling weights that bring the starved embeddings to the advised samples without starving another; empty if none
    do."""
    embeddings = [embeddings_of[picture.key] for picture in pictures]
    plain = replace(run, embeddings=tuple(replace(embedding, sampling_weight=1.0) for embedding in run.embeddings))
    base: dict[tuple[str, ...], float] = {}  # pictures of the same embeddings are one: weights move them together
    for rate, names in zip(_rates(plain, pictures, embeddings, held_out), embeddings, strict=True):
        base[tuple(names)] = base.get(tuple(names), 0.0) + rate
    weights = {embedding.name: embedding.sampling_weight for embedding in run.embeddings}
    changed = {name for name, count in samples.items() if count < ADVISED_SAMPLES}
    for _ in range(_ROUNDS):
        now = _samples(run, with_embedding_weights(list(base.values()), list(base), weights), list(base))
        short = [name for name in changed if now[name] < ADVISED_SAMPLES]
        if not short:
            break
        for name in short:
            weights[name] *= 1.02 * ADVISED_SAMPLES / now[name]
    rounded = {name: math.ceil(weights[name] * 10) / 10 for name in sorted(changed)}
    if not rounded or max(rounded.values()) > MOST_WEIGHT:
        return {}
    tried = {embedding.name: rounded.get(embedding.name, embedding.sampling_weight) for embedding in run.embeddings}
    after = _samples(run, with_embedding_weights(list(base.values()), list(base), tried), list(base))
    return rounded if all(after[name] >= 0.99 * ADVISED_SAMPLES for name in samples) else {}
