"""Fixes: pure, repeatable, named; and the warning is gone when the first one is applied."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lib_pivotal.config import DataConfig, EmbeddingConfig, Run, ScheduleConfig
from lib_pivotal.data.lint_warnings import Fix, LintWarning
from lib_pivotal.data.records import Dataset, DatasetProblem, Picture
from lib_pivotal.errors import ConfigError, DataError
from lib_pivotal.runs.fixes import apply_first_fixes, apply_fix
from lib_pivotal.runs.plan import make_plan

PLACES = ("park", "sky", "sea", "city")


def dataset(*captions: tuple[str, str], side: int = 512) -> Dataset:
    pictures = tuple(Picture(f"{c}/{n}.png", Path("x"), text, side, side, c) for n, (c, text) in enumerate(captions))
    concepts = {c: tuple(p.key for p in pictures if p.concept == c) for c, _ in captions}
    return Dataset(Path("d"), pictures, concepts, ())


def told(data: Dataset, code: str) -> Dataset:
    """With something that the scan says of the first two pictures."""
    keys = tuple(picture.key for picture in data.pictures[:2])
    return replace(data, problems=(DatasetProblem("warning", code, "the same", keys),))


def run_of(*embeddings: EmbeddingConfig | str, steps: int = 2000, **data: object) -> Run:
    made = tuple(EmbeddingConfig(embedding) if isinstance(embedding, str) else embedding for embedding in embeddings)
    return Run(embeddings=made, data=DataConfig(folder="d", **data), schedule=ScheduleConfig(max_steps=steps))  # type: ignore[arg-type]


AOI = [("aoi", f"aoi, {tag}") for tag in PLACES]
HANA = [("hana", f"hana, {tag}") for tag in PLACES]
BLUE = [("aoi", f"aoi, blue hair, {tag}") for tag in PLACES]
KIMONO = [("aoi", f"aoi, red kimono, {tag}") for tag in PLACES]
LONG = [("aoi", f"aoi, hana, {tag}, " + ", ".join(f"thing {n}" for n in range(12))) for tag in PLACES]

CASES = [
    ("word_never", dataset(*AOI, *HANA), run_of("aoi", "hana", "kaze")),
    ("word_never", dataset(*AOI, *((("kaze"), f"1girl, {tag}") for tag in PLACES)), run_of("aoi", "kaze")),
    ("word_always", dataset(*((c, f"ink, {t}") for c, t in AOI + HANA)), run_of("aoi", "hana", "ink")),
    ("words_never_apart", dataset(*((c, f"{t}, twin-x") for c, t in AOI), *HANA), run_of("aoi", "twin-x", "hana")),
    (
        "word_explained",
        dataset(*((c, f"ink, {t}") for c, t in AOI + HANA), ("others", "1girl, park"), ("others", "1girl, sky")),
        run_of("aoi", "hana", "ink"),
    ),
    ("no_word", dataset(*AOI, ("aoi", "1girl, park"), *HANA), run_of("aoi", "hana")),
    ("tags_describe_word", dataset(*BLUE, *HANA), run_of("aoi", "hana")),
    ("tags_describe_word", dataset(*KIMONO, *HANA), run_of(EmbeddingConfig("aoi", prune=True), "hana")),
    ("few_draws", dataset(*AOI, *HANA * 9), run_of("aoi", "hana", steps=500)),
    ("few_draws", dataset(*AOI, *HANA), run_of("aoi", "hana", steps=100)),
    ("few_draws", dataset(*AOI, *HANA * 9), run_of("aoi", "hana", steps=500, balance="embeddings", upscale=False)),
    ("small_pictures", dataset(*AOI, *HANA, side=256), run_of("aoi", "hana")),
    ("tokens", dataset(*LONG, *AOI, *HANA), run_of("aoi", "hana", max_tokens=30)),
    (
        "vectors_overrun",
        dataset(*((c, f"{t}, hana") for c, t in AOI), *AOI, *HANA),
        run_of(EmbeddingConfig("aoi", vectors=50), EmbeddingConfig("hana", vectors=40)),
    ),
    ("duplicate", told(dataset(*AOI, *HANA), "duplicate"), run_of("aoi", "hana")),
    ("near_double", told(dataset(*AOI, *HANA), "near_double"), run_of("aoi", "hana", duplicates="skip")),
    ("mirrored", dataset(*((c, f"{t}, eyepatch") for c, t in AOI), *HANA), run_of("aoi", "hana", flip=True)),
]


def _of_kind(data: Dataset, run: Run, kind: str) -> list[LintWarning]:
    return [warning for warning in make_plan(data, run).warnings if warning.kind == kind]


@pytest.mark.parametrize(("kind", "data", "run"), CASES, ids=[f"{kind}-{n}" for n, (kind, _, _) in enumerate(CASES)])
def test_each_remedy_of_a_finding_ends_it(kind: str, data: Dataset, run: Run) -> None:
    found = _of_kind(data, run, kind)
    if "upscale" in repr(run) and kind == "few_draws" and run.data.balance == "embeddings":
        assert found == []  # drawn alike, nobody starves
        return
    assert found and found[0].fix is not None
    for fix in found[0].fixes:
        again = Fix.from_dict(fix.as_dict())
        changed = apply_fix(run, again)
        assert changed != run and apply_fix(changed, again) == changed
        left = _of_kind(data, changed, kind)
        assert not [
            f for f in left if f.embeddings == found[0].embeddings and f.severity == found[0].severity
        ], fix.label


def test_what_is_no_remedy() -> None:
    run = run_of("aoi")
    with pytest.raises(DataError, match="'dance': is unknown. There are: set, remove_word"):
        apply_fix(run, Fix("dance", ""))
    with pytest.raises(DataError, match="a fix can set"):
        apply_fix(run, Fix("set", "", {"path": "saving.folder", "value": "/"}))
    with pytest.raises(DataError, match="not those of a plan"):
        apply_fix(run, Fix("absorb", "", {"embedding": "aoi", "tags": "blue hair"}))
    with pytest.raises(DataError, match="not those of a plan"):
        apply_fix(run, Fix("set", "", {}))
    with pytest.raises(ConfigError, match="is not an embedding of the run"):
        apply_fix(run, Fix("absorb", "", {"embedding": "hana"}))
    with pytest.raises(ConfigError, match="resolution_px"):
        apply_fix(run, Fix("set", "", {"path": "data.resolution_px", "value": 3}))
    for plain in (3, {}, {"id": 3}, {"id": "set", "arguments": 3}):
        with pytest.raises(DataError):
            Fix.from_dict(plain)


def test_a_half_filled_run_can_be_mended() -> None:
    run = run_of("aoi", "")
    assert apply_fix(run, Fix("absorb", "", {"embedding": "aoi"})).embeddings[0].prune


def test_absorb_and_keep_move_tags() -> None:
    run = run_of(EmbeddingConfig("aoi", keep_tags=("Blue_Hair", "hat")))
    absorbed = apply_fix(run, Fix("absorb", "", {"embedding": "aoi", "tags": ["blue hair"]}))
    assert (absorbed.embeddings[0].prune_tags, absorbed.embeddings[0].keep_tags) == (("blue hair",), ("hat",))
    kept = apply_fix(absorbed, Fix("keep", "", {"embedding": "aoi", "tags": ["blue hair"]}))
    assert (kept.embeddings[0].prune_tags, kept.embeddings[0].keep_tags) == ((), ("hat", "blue hair"))


def test_an_embedding_that_goes_leaves_nothing_behind() -> None:
    run = run_of("aoi", EmbeddingConfig("aoi-red", form_of="aoi"))
    left = apply_fix(run, Fix("remove_word", "", {"embedding": "aoi"}))
    assert [(embedding.name, embedding.form_of) for embedding in left.embeddings] == [("aoi-red", "")]


def test_mending_all() -> None:
    data = dataset(*BLUE, ("aoi", "1girl, park"), *HANA * 9)
    run = run_of("aoi", "hana", "kaze", steps=200)
    mend, labels = apply_first_fixes(run, lambda one: make_plan(data, one).at_least("warning"))
    assert len(labels) >= 4 and not make_plan(data, mend).at_least("warning")
    assert apply_first_fixes(mend, lambda one: make_plan(data, one).at_least("warning")) == (mend, [])


def test_several_at_once_are_those_one_by_one() -> None:
    run = run_of("aoi", "hana", "kaze")
    each = [
        Fix("absorb", "", {"embedding": "aoi", "tags": ["hat"]}),
        Fix("remove_word", "", {"embedding": "kaze"}),
        Fix("absorb", "", {"embedding": "kaze", "tags": ["hat"]}),  # gone by then: passed over
        Fix("set", "", {"path": "data.upscale", "value": False}),
    ]
    together = Fix("all", "", {"fixes": [fix.as_dict() for fix in each]})
    by_one = run
    for fix in (each[0], each[1], each[3]):
        by_one = apply_fix(by_one, fix)
    assert apply_fix(run, together) == by_one != run
    with pytest.raises(DataError, match="another one of its kind"):
        apply_fix(run, Fix("all", "", {"fixes": [together.as_dict()]}))
    with pytest.raises(DataError, match="not those of a plan"):
        apply_fix(run, Fix("all", "", {"fixes": 3}))
    with pytest.raises(ConfigError, match="is not an embedding of the run"):
        apply_fix(run, Fix("all", "", {"fixes": [{"id": "absorb", "arguments": {"embedding": "unheard"}}]}))
