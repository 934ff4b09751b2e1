"""From the scores of single runs to docs/evidence.json: means and ranges over the seeds, and figures for the claims."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

from examples.avatars.characters import CHARACTERS
from examples.evidence_jobs import (
    CHARACTERS_OF_FIGURE,
    LOOK_AT,
    MAIN_STEPS,
    PICTURES_PER_EMBEDDING,
    SINGLE_EMBEDDINGS,
    TRIALS,
    folder_of,
)
from examples.evidence_losses import share

ROWS = ("whole", "unet", "te", "words", "half")
RETRO_ROWS = ("whole", "half", "words")
MARKS = (0.25, 0.5, 0.75)
"""Identity scores to which the steps are counted."""
DESCRIBABLE_MARK = 0.5
MEASURES = ("identity", "describable", "all_four")

Record = dict[str, Any]


def gather(out: Path, *, seeds: int, renders: Mapping[str, Any]) -> Record:
    """Everything that the page says; what was not run is None. `renders`: the scores of true renders."""
    runs = {
        job: [found for seed in range(seeds) if (found := result(out, job, seed))]
        for job in ("pivotal", "lora_only", "random_init", "sixteen_words")
    }
    pivotal, lora, chance = runs["pivotal"], runs["lora_only"], runs["random_init"]
    evidence: Record = {
        "identity": {
            "pivotal": over_seeds(pivotal, "identity", ROWS),
            "lora_only": over_seeds(lora, "identity", ROWS),
            "base": over_seeds(pivotal, "identity", ["base"])["base"],
            "renders": renders["identity"],
        },
        "seeds": len(pivotal),
        "seconds_of_training": round(sum(run["seconds"] for job in runs.values() for run in job)),
        "pictures_per_word": PICTURES_PER_EMBEDDING,
    }
    evidence["spread"] = {
        "pivotal": ranges(pivotal, "identity", ROWS),
        "lora_only": ranges(lora, "identity", ROWS),
        **ranges(pivotal, "identity", ["base"]),
    }
    evidence["traits"] = {
        measure: {
            "pivotal": over_seeds(pivotal, measure, ROWS),
            "pivotal_spread": ranges(pivotal, measure, ROWS),
            "random_init": over_seeds(chance, measure, ROWS),
            "lora_only": over_seeds(lora, measure, ROWS),
            **over_seeds(pivotal, measure, ["base", "nothing"]),
            "renders": renders[measure],
        }
        for measure in ("describable", "all_four")
    }
    evidence["transfer"] = {
        measure: {
            "pivotal": over_seeds(pivotal, measure, RETRO_ROWS, prefix="retro-"),
            "pivotal_spread": ranges(pivotal, measure, RETRO_ROWS, prefix="retro-"),
            "lora_only": over_seeds(lora, measure, RETRO_ROWS, prefix="retro-"),
            "lora_only_spread": ranges(lora, measure, RETRO_ROWS, prefix="retro-"),
            **over_seeds(pivotal, measure, ["base", "nothing"], prefix="retro-"),
        }
        for measure in MEASURES
    }
    evidence["guidance_4"] = {
        "seeds": {
            name: sum("strong-whole" in run["rows"] for run in job)
            for name, job in (("pivotal", pivotal), ("lora_only", lora))
        },
        **{
            name: {
                **over_seeds(job, "identity", ROWS, prefix="strong-"),
                **{f"retro_{k}": v for k, v in over_seeds(job, "identity", RETRO_ROWS, prefix="retro-strong-").items()},
            }
            for name, job in (("pivotal", pivotal), ("lora_only", lora))
        },
    }
    evidence["losses"] = {row: mean(run["losses"][row] for run in pivotal) for row in pivotal[0]["losses"]}
    evidence["renaming_is_exact"] = all(run["renaming_is_exact"] for run in pivotal)
    evidence["over_steps"] = {
        name: {measure: curve(job, measure) for measure in MEASURES[:2]} if job else None
        for name, job in (("init_text", pivotal), ("random", chance))
    }
    evidence["steps_to"] = {
        name: {
            **{str(mark): [steps_to(curve([run], "identity"), mark) for run in job] for mark in MARKS},
            "describable": [steps_to(curve([run], "describable"), DESCRIBABLE_MARK) for run in job],
        }
        for name, job in (("init_text", pivotal), ("random", chance))
    }
    evidence["drift"] = {
        name: mean(r["drift"] for r in job) for name, job in (("pivotal", pivotal), ("lora_only", lora))
    }
    evidence["sixteen_words"] = together(out, runs["sixteen_words"])
    evidence["tried"] = {name: tried(found) for name in TRIALS if (found := result(out, name, 0))}
    return evidence


def result(out: Path, job: str, seed: int) -> Record | None:
    """A job's facts with its scores, or None where it has not run."""
    folder = folder_of(job, seed, out)
    if not (folder / "result.json").exists():
        return None
    found: Record = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return found


def over_seeds(runs: Sequence[Record], measure: str, rows: Sequence[str], *, prefix: str = "") -> dict[str, float]:
    """Mean by row of a measure; rows that a run has not are left out."""
    values = _values(runs, measure, rows, prefix)
    return {row: mean(found) for row, found in values.items()}


def ranges(runs: Sequence[Record], measure: str, rows: Sequence[str], *, prefix: str = "") -> dict[str, list[float]]:
    """Smallest and largest by row."""
    values = _values(runs, measure, rows, prefix)
    return {row: [min(found), max(found)] for row, found in values.items()}


def _values(runs: Sequence[Record], measure: str, rows: Sequence[str], prefix: str) -> dict[str, list[float]]:
    found = {row: [run["rows"][prefix + row][measure] for run in runs if prefix + row in run["rows"]] for row in rows}
    return {row: values for row, values in found.items() if values}


def curve(runs: Sequence[Record], measure: str) -> dict[str, float]:
    """Mean of the whole at the steps that were looked at, and at the end."""
    points = {str(step): mean(run["rows"][f"step-{step:06}-whole"][measure] for run in runs) for step in LOOK_AT}
    return points | {str(MAIN_STEPS): mean(run["rows"]["whole"][measure] for run in runs)}


def steps_to(points: Mapping[str, float], mark: float) -> float | None:
    """The step at which a curve first reaches `mark`, straight lines between its points; None where it never does."""
    found = [(0.0, 0.0), *((float(step), value) for step, value in points.items())]
    for (before, low), (after, high) in pairwise(found):
        if high >= mark:
            return round(before + (after - before) * (mark - low) / (high - low), 1)
    return None


def together(out: Path, sixteen: Sequence[Record]) -> Record | None:
    """Claim 7, from the seed that was run."""
    alone = {
        name: result(out, f"one_word_{index}", 0) for index, name in enumerate(list(CHARACTERS)[:SINGLE_EMBEDDINGS])
    }
    singles = {name: run["rows"]["whole"]["identity"] for name, run in alone.items() if run}
    if not sixteen or not singles:
        return None
    by_embedding = sixteen[0]["rows"]["whole"]["by_word"]
    return {
        "whole": mean(by_embedding.values()),
        "least": min(by_embedding.values()),
        "same_words": mean(by_embedding[name] for name in singles),
        "one_word_each": mean(singles.values()),
        "by_word": {name: [by_embedding[name], score] for name, score in singles.items()},
    }


def tried(found: Record) -> Record:
    """A trial's line in the table."""
    rows, losses = found["rows"], found["losses"]
    line = {row: rows[row]["identity"] for row in ("whole", "unet", "words") if row in rows}
    line |= {
        f"retro_{row}": rows[f"retro-{row}"]["identity"] for row in ("whole", "half", "words") if f"retro-{row}" in rows
    }
    line["words_describable"] = rows["words"]["describable"]
    line["words_loss"] = losses["words"]
    if "whole" in losses:
        line["words_share"] = share(losses, "words")
    return line


FIGURE_NAMES = list(CHARACTERS)[:CHARACTERS_OF_FIGURE]
