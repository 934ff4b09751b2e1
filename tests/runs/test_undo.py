"""Taking changes back: at once exactly, later without touching what was changed by hand since."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_pivotal.config import DataConfig, EmbeddingConfig, Run, ScheduleConfig
from lib_pivotal.data.lint_warnings import Fix
from lib_pivotal.runs.fixes import apply_fix
from lib_pivotal.runs.undo import KEPT, UndoStep, remembered, taken_back

RUN = Run(
    name="x",
    embeddings=(
        EmbeddingConfig("aoi", keep_tags=("hat",)),
        EmbeddingConfig("hana", vectors=7),
        EmbeddingConfig("hana-red", form_of="hana"),
    ),
    data=DataConfig(folder="d"),
    schedule=ScheduleConfig(max_steps=900),
)
FIXES = (
    Fix("set", "", {"path": "schedule.max_steps", "value": 4000}),
    Fix("set", "", {"path": "data.duplicates", "value": "skip_near"}),
    Fix("remove_word", "", {"embedding": "hana"}),
    Fix("remove_word", "", {"embedding": "aoi"}),
    Fix("absorb", "", {"embedding": "aoi", "tags": ["hat", "blue hair"]}),
    Fix("draw_weights", "", {"weights": {"aoi": 3.0, "hana-red": 2.5}}),
    Fix("vectors", "", {"vectors": {"hana-red": 3}}),
)


def _change(before: Run, after: Run, label: str = "it") -> UndoStep:
    found = UndoStep.between(label, before, after)
    assert found is not None
    return UndoStep.from_dict(json.loads(json.dumps(found.as_dict())))


@pytest.mark.parametrize("fix", FIXES, ids=str)
def test_each_remedy_is_taken_back_exactly(fix: Fix) -> None:
    after = apply_fix(RUN, fix)
    assert after != RUN and taken_back(after, _change(RUN, after)) == RUN


@settings(deadline=None)  # the first example reads modules
@given(st.lists(st.sampled_from(FIXES), max_size=6))
def test_several_are_taken_back_one_by_one(asked: list[Fix]) -> None:
    runs, changes = [RUN], []
    for fix in asked:
        if fix.arguments.get("embedding") not in (None, *(embedding.name for embedding in runs[-1].embeddings)):
            continue
        if fix.id in ("vectors", "draw_weights") and len(runs[-1].embeddings) < 3:
            continue
        after = apply_fix(runs[-1], fix)
        if (change := UndoStep.between("it", runs[-1], after)) is not None:
            runs.append(after)
            changes.append(change)
    run = runs.pop()
    for change in reversed(changes):
        run = taken_back(run, change)
        assert run == runs.pop()


def test_what_was_changed_by_hand_since_stays() -> None:
    after = apply_fix(RUN, Fix("remove_word", "", {"embedding": "hana"}))
    change = _change(RUN, after)
    embeddings = (replace(after.embeddings[0], vectors=11), *after.embeddings[1:], EmbeddingConfig("umi"))
    later = replace(after, embeddings=embeddings, schedule=replace(after.schedule, max_steps=55))
    back = taken_back(later, change)
    assert [embedding.name for embedding in back.embeddings] == ["aoi", "hana", "hana-red", "umi"]
    assert (
        back.embeddings[0].vectors == 11
        and back.embeddings[1] == RUN.embeddings[1]
        and back.embeddings[2].form_of == "hana"
    )
    assert back.schedule.max_steps == 55


def test_an_embedding_that_somebody_added_again_is_left_alone() -> None:
    after = apply_fix(RUN, Fix("remove_word", "", {"embedding": "hana"}))
    later = replace(after, embeddings=(*after.embeddings, EmbeddingConfig("hana", vectors=2)))
    back = taken_back(later, _change(RUN, after))
    assert [(embedding.name, embedding.vectors) for embedding in back.embeddings if embedding.name == "hana"] == [
        ("hana", 2)
    ]


def test_embeddings_that_a_change_brought_go_again() -> None:
    after = replace(RUN, embeddings=(*RUN.embeddings, EmbeddingConfig("umi")))
    later = replace(after, embeddings=(replace(after.embeddings[0], vectors=9), *after.embeddings[1:]))
    assert [embedding.name for embedding in taken_back(later, _change(RUN, after)).embeddings] == [
        "aoi",
        "hana",
        "hana-red",
    ]


def test_no_difference_is_no_change_and_only_the_last_are_kept() -> None:
    assert UndoStep.between("it", RUN, RUN) is None
    changes: list[dict[str, object]] = []
    for number in range(KEPT + 3):
        steps = replace(RUN, schedule=replace(RUN.schedule, max_steps=1000 + number))
        changes = remembered(changes, UndoStep.between(str(number), RUN, steps))
    assert [one["label"] for one in changes] == [str(number) for number in range(3, KEPT + 3)]
    assert remembered(changes, None) == changes


def test_a_run_with_a_fault_comes_back_with_it() -> None:
    faulty = replace(RUN, schedule=replace(RUN.schedule, max_steps=50, warmup_steps=50))
    after = apply_fix(faulty, FIXES[0])
    assert taken_back(after, _change(faulty, after)) == faulty
