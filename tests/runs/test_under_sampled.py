"""Words that come too rarely: one rule for lint, plan and pre-flight, and fixes that suffice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lib_pivotal.config import EmbeddingConfig, Run
from lib_pivotal.data.lint_warnings import LintWarning
from lib_pivotal.data.records import Picture
from lib_pivotal.runs.fixes import apply_fix
from lib_pivotal.runs.presets import ADVISED_SAMPLES
from lib_pivotal.runs.under_sampled import samples_by_embedding, starvation


def _pictures(**counts: int) -> list[Picture]:
    return [Picture(f"{name}/{n}.png", Path("x"), name, 64, 64, name) for name, c in counts.items() for n in range(c)]


def _run(*names: str, steps: int) -> Run:
    run = Run(embeddings=tuple(EmbeddingConfig(name) for name in names))
    return replace(run, schedule=replace(run.schedule, max_steps=steps, batch_size=4, accumulation=1))


def _found(run: Run, pictures: list[Picture], held: tuple[str, ...] = ()) -> list[LintWarning]:
    return starvation(run, pictures, {p.key: (p.caption,) for p in pictures}, held_out=held)


@pytest.mark.parametrize(
    ("draws", "severity"),
    [(ADVISED_SAMPLES // 2 - 4, "warning"), (ADVISED_SAMPLES // 2, "info"), (ADVISED_SAMPLES, "")],
)
def test_half_of_what_is_advised_is_the_bar(draws: int, severity: str) -> None:
    found = _found(_run("aoi", steps=draws // 4), _pictures(aoi=8))
    assert [warning.severity for warning in found] == ([severity] if severity else [])
    assert all(f"{draws}" in warning.text and f"{ADVISED_SAMPLES} are advised" in warning.text for warning in found)


def test_an_embedding_without_pictures_is_not_meant() -> None:
    assert _found(_run("aoi", "nobody", steps=1000), _pictures(aoi=8)) == []


def test_pictures_that_are_held_out_are_not_drawn() -> None:
    pictures = _pictures(aoi=4, hana=4)
    embeddings = {p.key: (p.caption,) for p in pictures}
    run = _run("aoi", "hana", steps=150)
    assert samples_by_embedding(run, pictures, embeddings) == {"aoi": 300, "hana": 300}
    held = samples_by_embedding(run, pictures, embeddings, held_out={"aoi/0.png", "aoi/1.png"})
    assert held == pytest.approx({"aoi": 200, "hana": 400})


@pytest.mark.parametrize("number", range(3))
def test_each_remedy_brings_all_embeddings_to_what_is_advised(number: int) -> None:
    run, pictures = _run("aoi", "hana", steps=500), _pictures(aoi=12, hana=3)
    fixes = _found(run, pictures)[0].fixes
    assert [fix.id for fix in fixes] == ["set", "draw_weights", "set"]
    apply_first_fixes = apply_fix(run, fixes[number])
    draws = samples_by_embedding(apply_first_fixes, pictures, {p.key: (p.caption,) for p in pictures})
    assert min(draws.values()) >= 0.99 * ADVISED_SAMPLES and _found(apply_first_fixes, pictures) == []
