"""The evidence's own arithmetic: sheets, scores of sheets, means over seeds, claims and the page."""

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
from examples.evidence_claims import claims
from examples.evidence_gather import gather, steps_to
from examples.evidence_jobs import CLAIMS, LOOK_AT, TRIALS, folder_of
from examples.evidence_losses import share
from examples.evidence_scores import score_sheets
from examples.evidence_sheets import load_sheet, save_sheet
from examples.evidence_text import markdown
from lib_pivotal.config import check_consistency

NAMES = list(CHARACTERS)[:4]


def test_sheets_come_back_as_they_were(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (64, 64), (number, 2 * number, 255)) for number in range(6)]
    save_sheet(pictures, tmp_path / "new" / "row.png", per_line=3)
    lines = load_sheet(tmp_path / "new" / "row.png")
    assert [len(line) for line in lines] == [3, 3]
    assert [p.tobytes() for line in lines for p in line] == [p.tobytes() for p in pictures]


def test_sheets_are_scored_by_row_and_embedding(tmp_path: Path) -> None:
    rng = random.Random(0)
    save_sheet(
        [render(character_avatar(name, rng)) for name in NAMES for _ in range(3)], tmp_path / "a.png", per_line=3
    )
    save_sheet([render(character_avatar(NAMES[0], rng)) for _ in range(12)], tmp_path / "b.png", per_line=3)
    scores = score_sheets(load_scorer(), tmp_path, NAMES)
    assert scores["a"]["identity"] > 0.8
    assert scores["b"]["by_word"][NAMES[0]] > 0.8
    assert max(scores["b"]["by_word"][name] for name in NAMES[1:]) < 0.2
    assert 0 <= scores["a"]["all_four"] <= scores["a"]["describable"] <= 1


def test_prompts_ask_by_embedding_traits_or_not_at_all() -> None:
    asked = {by: experiment.identity_prompts("akavell", 3, seed=1, by=by) for by in ("word", "traits", "nothing")}  # type: ignore[arg-type]
    for embedding, traits, nothing in zip(*asked.values(), strict=True):
        varying = nothing.removeprefix("1girl, ")
        assert embedding == f"akavell, 1girl, {varying}"
        assert traits == f"1girl, black hair, short hair, blue eyes, fair skin, {varying}"


@pytest.mark.parametrize("name", [*CLAIMS, *TRIALS])
def test_jobs_are_sound_runs_in_folders_of_their_own(name: str) -> None:
    run = experiment.make_run((CLAIMS | TRIALS)[name].setup(2), Path("pictures"), "bundle")
    assert not check_consistency(run)
    assert run.seed == 2
    assert len({folder_of(other, 2, Path()) for other in [*CLAIMS, *TRIALS]}) == len(CLAIMS) + len(TRIALS)


def test_steps_to_a_score_lie_on_the_lines_of_the_curve() -> None:
    assert steps_to({"100": 0.5, "200": 1.0}, 0.25) == 50
    assert steps_to({"100": 0.5, "200": 1.0}, 0.75) == 150
    assert steps_to({"100": 0.5}, 0.75) is None


def test_share_of_a_row() -> None:
    assert share({"base": 4.0, "words": 3.0, "whole": 2.0}, "words") == 0.5


def test_the_page_says_which_claims_hold(tmp_path: Path) -> None:
    store(tmp_path)
    evidence = gather(tmp_path, seeds=2, renders={"identity": 0.97, "describable": 0.8, "all_four": 0.4})
    json.dumps(evidence)
    assert evidence["identity"]["pivotal"]["whole"] == pytest.approx(0.85)
    assert evidence["spread"]["pivotal"]["whole"] == pytest.approx([0.8, 0.9])
    verdicts = [(claim.number, claim.holds) for claim in claims(evidence)]
    assert verdicts == [
        ("1", True),
        ("2", True),
        ("3", True),
        ("4", False),
        ("4", True),
        ("5", True),
        ("6", None),
        ("6", None),
        ("6", True),
        ("7", None),
    ]
    page = markdown(evidence)
    assert "| full network | 0.85 [0.80, 0.90] |" in page
    assert max(len(line) for line in page.splitlines() if not line.startswith("|")) <= 120


def store(out: Path) -> None:
    """Made-up results of two seeds, without the jobs of claim 7 and the random start."""
    good = {"whole": 0.85, "unet": 0.85, "te": 0.2, "words": 0.2, "half": 0.5}
    rows = {**good, **{f"step-{step:06}-whole": 0.1 for step in LOOK_AT}, "base": 0.01, "nothing": 0.0}
    rows |= {"retro-whole": 0.7, "retro-half": 0.4, "retro-words": 0.1}
    rows |= {"retro-base": 0.01, "retro-nothing": 0.0}
    plain = {"whole": 0.7, "unet": 0.2, "te": 0.0, "half": 0.1}
    plain |= {f"retro-{row}": 0.3 for row in ("whole", "half")}
    rows |= {f"strong-{row}": 0.3 for row in ("whole", "unet", "words")}
    rows |= {f"retro-strong-{row}": 0.3 for row in ("whole", "half", "words")}
    plain |= {"strong-whole": 0.8, "strong-unet": 0.2, "retro-strong-whole": 0.35}
    losses = {"base": 0.4, "nothing": 0.35, "whole": 0.05, "unet": 0.05, "te": 0.2, "words": 0.2, "half": 0.1}
    for seed, change in ((0, -0.05), (1, 0.05)):
        write(out, "pivotal", seed, rows, change, losses=losses, drift=0.001, renaming_is_exact=True)
        write(out, "lora_only", seed, plain, change, drift=0.01)


def write(out: Path, job: str, seed: int, rows: dict[str, float], change: float, **facts: Any) -> None:
    folder = folder_of(job, seed, out)
    folder.mkdir()
    scores = {
        row: {"identity": value + change, "describable": 0.5, "all_four": 0.1, "by_word": dict.fromkeys(NAMES, value)}
        for row, value in rows.items()
    }
    (folder / "result.json").write_text(json.dumps({"seconds": 60, "rows": scores, **facts}), encoding="utf-8")
