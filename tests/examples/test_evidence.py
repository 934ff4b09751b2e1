"""The evidence's own arithmetic: sheets, scores, recipes as sound runs, goals and the page."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from examples import experiment
from examples.avatars.characters import CHARACTERS, character_avatar
from examples.avatars.scores import load_scorer
from examples.avatars.world import render
from examples.evidence_page import curve, draw_balance, draw_times, goals, markdown, reached, summary
from examples.evidence_recipes import DEFAULT, NAMES, ONE, RECIPES, SIXTEEN, base_setup, folder_of, obedience, scores
from examples.evidence_sheets import load_sheet, save_sheet
from lib_pivotal.config import check_consistency


def test_sheets_come_back_as_they_were(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (64, 64), (number, 2 * number, 255)) for number in range(6)]
    save_sheet(pictures, tmp_path / "new" / "row.png", per_line=3)
    lines = load_sheet(tmp_path / "new" / "row.png")
    assert [len(line) for line in lines] == [3, 3]
    assert [p.tobytes() for line in lines for p in line] == [p.tobytes() for p in pictures]


def test_sheets_are_scored_strictly_graded_and_for_obedience(tmp_path: Path) -> None:
    setup = base_setup(5)
    wanted = {name: experiment.wanted_avatars(name, 8, seed=5) for name in NAMES}
    right = [render(avatar) for name in NAMES for avatar in wanted[name]]
    save_sheet(right, tmp_path / "full-2.png", per_line=8)
    rng = random.Random(0)
    save_sheet([render(character_avatar("kalumi", rng)) for _ in right], tmp_path / "wrong.png", per_line=8)
    scorer = load_scorer()
    good, bad = (scores(scorer, tmp_path / name, setup) for name in ("full-2.png", "wrong.png"))
    assert good["identity"] > 0.9 and good["graded"] > 0.85 and good["obeys"] > 0.85
    assert bad["identity"] < 0.1 and bad["graded"] < 0.5 and bad["obeys"] < 0.5
    assert list(good["by_embedding"]) == list(NAMES)


def test_obedience_counts_what_was_asked_for_by_a_tag() -> None:
    avatar = character_avatar("akavell", random.Random(3))
    seen = {
        name: getattr(avatar, name) for name in ("expression", "shirt", "accessory", "background", "position", "scale")
    }
    assert obedience([seen], [avatar]) == 1
    other = "sky" if avatar.background != "sky" else "park"
    asked = 3 + sum(
        getattr(avatar, n) != v for n, v in (("accessory", "none"), ("position", "centre"), ("scale", "medium"))
    )
    assert obedience([seen | {"background": other}], [avatar]) == pytest.approx(1 - 1 / asked)


def test_prompts_ask_by_embedding_traits_or_not_at_all() -> None:
    asked = {by: experiment.identity_prompts("akavell", 3, seed=1, by=by) for by in ("word", "traits", "nothing")}  # type: ignore[arg-type]
    for embedding, traits, nothing in zip(*asked.values(), strict=True):
        varying = nothing.removeprefix("1girl, ")
        assert embedding == f"akavell, 1girl, {varying}"
        described = "black hair, short hair, blue eyes, fair skin, two-tone hair, cat ears, cape"
        assert traits == f"1girl, {described}, {varying}"


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_sound_runs_in_folders_of_their_own(name: str) -> None:
    recipe = RECIPES[name]
    run = experiment.make_run(base_setup(2, **recipe.changes), Path("pictures"), "bundle", more=recipe.more)
    assert not check_consistency(run)
    folders = {folder_of(other, seed, Path("out")) for other in RECIPES for seed in range(3)}
    assert len(folders) == 3 * len(RECIPES)


def _row(identity: float, graded: float = 0.9, names: tuple[str, ...] = NAMES) -> dict[str, Any]:
    each = {name: [identity, graded] for name in names}
    return {"identity": identity, "graded": graded, "obeys": 0.8, "by_embedding": each}


def _result(seed: int = 0, **rows: float) -> dict[str, Any]:
    found = {}
    for key, value in rows.items():
        place = "second" if key.startswith("second_") else "own"
        found[f"{place}/{key.removeprefix('second_').replace('_', '-')}"] = _row(value)
    return {"seed": seed, "steps": 1100, "seconds": 600.0, "saved": {}, "rows": found}


@pytest.fixture
def results() -> dict[str, list[dict[str, Any]]]:
    mine = dict.fromkeys(("full_2", "full_4", "full_7", "unet_2"), 0.97) | dict.fromkeys(("words_4", "words_7"), 0.3)
    runs = [_result(seed, **mine, half_2=0.82, words_2=0.36, second_half_2=0.6, second_words_2=0.3) for seed in (0, 1)]
    for run, at in zip(runs, (300.0, 500.0), strict=True):
        run["saved"] = {"400": at}
        run["rows"]["steps/000400-full-2"], run["rows"]["steps/000400-words-2"] = _row(0.8), _row(0.2)
        run["renaming_is_exact"] = True
    lora = _result(full_2=0.98, unet_2=0.3, half_2=0.0, second_full_2=0.2, second_full_4=0.25) | {"drift": 0.01}
    sixteen = {**_result(), "rows": {f"own/{row}-2": _row(0.3, names=tuple(CHARACTERS)) for row in ("full", "words")}}
    return {DEFAULT: runs, "lora": [lora], SIXTEEN: [sixteen], **{key: [_result(words_2=0.35)] for key in ONE}}


def test_goals_are_judged_by_the_means(results: dict[str, list[dict[str, Any]]]) -> None:
    found = {goal.text: goal for goal in goals(results)}
    assert found["full network: strict identity, at least 0.95"].holds is True
    assert found["embeddings only: strict identity, at least 0.35"].measured == "0.36"
    better = "the LoRA alone (its better figure of guidance 2 and 4)"
    assert found[f"second checkpoint: embeddings only beats {better}"].measured == "0.30 to 0.25"
    assert found[f"second checkpoint: embeddings with half of the network beats {better} by 0.2"].holds is True
    assert any(goal.text.startswith("16 embeddings") and goal.holds for goal in found.values())
    assert any(goal.text.startswith("an init text") and goal.holds is None for goal in found.values())
    for run in results[DEFAULT]:
        run["rows"]["own/full-2"]["identity"] = 0.9
    assert {g.text: g.holds for g in goals(results)}["full network: strict identity, at least 0.95"] is False


def test_a_curve_reaches_a_mark_between_its_points(results: dict[str, list[dict[str, Any]]]) -> None:
    points = curve(results[DEFAULT][0], "words", over="steps")
    assert points == [(400.0, 0.2), (1100.0, 0.36)]
    assert reached(points, 0.1) == pytest.approx(200) and reached(points, 0.28) == pytest.approx(750)
    assert reached(points, 0.5) is None
    assert curve(results[DEFAULT][0], "full")[0] == (300.0, 0.8)


def test_page_charts_and_figures_say_the_same(results: dict[str, list[dict[str, Any]]], tmp_path: Path) -> None:
    text = markdown(results, (0.3, 0.95))
    assert "0.97 [0.97, 0.97]" in text and "| never |" not in text.split("## Time to a result")[0]
    assert text.count("holds |") >= 8
    plain = json.loads(json.dumps(summary(results, (0.3, 0.95))))
    assert plain["recipes"][DEFAULT]["rows"]["own/words-2"]["identity"] == pytest.approx(0.36)
    for draw in (draw_balance, draw_times):
        draw(results, tmp_path / "chart.png")
        assert Image.open(tmp_path / "chart.png").width >= 800
