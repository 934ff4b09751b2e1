"""Words that come too rarely: one rule for lint, plan and pre-flight, and remedies that suffice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lib_pivotal.config import EmbeddingConfig, Run
from lib_pivotal.data.findings import Finding
from lib_pivotal.data.records import Picture
from lib_pivotal.runs.fixes import apply_remedy
from lib_pivotal.runs.presets import ADVISED_DRAWS
from lib_pivotal.runs.under_sampled import embedding_draws, starvation


def _pictures(**counts: int) -> list[Picture]:
    return [Picture(f"{name}/{n}.png", Path("x"), name, 64, 64, name) for name, c in counts.items() for n in range(c)]


def _run(*names: str, steps: int) -> Run:
    run = Run(embeddings=tuple(EmbeddingConfig(name) for name in names))
    return replace(run, schedule=replace(run.schedule, max_steps=steps, batch_size=4, accumulation=1))


def _found(run: Run, pictures: list[Picture], held: tuple[str, ...] = ()) -> list[Finding]:
    return starvation(run, pictures, {p.key: (p.caption,) for p in pictures}, held_out=held)


@pytest.mark.parametrize(
    ("draws", "severity"), [(ADVISED_DRAWS // 2 - 4, "warning"), (ADVISED_DRAWS // 2, "info"), (ADVISED_DRAWS, "")]
)
def test_half_of_what_is_advised_is_the_bar(draws: int, severity: str) -> None:
    found = _found(_run("aoi", steps=draws // 4), _pictures(aoi=8))
    assert [finding.severity for finding in found] == ([severity] if severity else [])
    assert all(f"{draws}" in finding.text and f"{ADVISED_DRAWS} are advised" in finding.text for finding in found)


def test_a_embedding_without_pictures_is_not_meant() -> None:
    assert _found(_run("aoi", "nobody", steps=1000), _pictures(aoi=8)) == []


def test_pictures_that_are_held_out_are_not_drawn() -> None:
    pictures = _pictures(aoi=4, hana=4)
    embeddings = {p.key: (p.caption,) for p in pictures}
    run = _run("aoi", "hana", steps=150)
    assert embedding_draws(run, pictures, embeddings) == {"aoi": 300, "hana": 300}
    held = embedding_draws(run, pictures, embeddings, held_out={"aoi/0.png", "aoi/1.png"})
    assert held == pytest.approx({"aoi": 200, "hana": 400})


@pytest.mark.parametrize("number", range(3))
def test_each_remedy_brings_all_embeddings_to_what_is_advised(number: int) -> None:
    run, pictures = _run("aoi", "hana", steps=500), _pictures(aoi=12, hana=3)
    remedies = _found(run, pictures)[0].remedies
    assert [remedy.id for remedy in remedies] == ["set", "draw_weights", "set"]
    mended = apply_remedy(run, remedies[number])
    draws = embedding_draws(mended, pictures, {p.key: (p.caption,) for p in pictures})
    assert min(draws.values()) >= 0.99 * ADVISED_DRAWS and _found(mended, pictures) == []
