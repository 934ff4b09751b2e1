"""`python dev.py evidence [--seeds N] [--out DIR]`: the claims of pivotal tuning, measured on the avatars.

Writes evidence.json, docs/evidence.md and docs/evidence.png. Finished jobs are kept, so that it can be interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

from examples.avatars.characters import CHARACTERS
from examples.evidence_jobs import CHARACTERS_OF_FIGURE, PICTURES_PER_WORD, SINGLE_WORDS
from examples.evidence_text import markdown
from lib_pivotal.evaluation.parts_grid import draw_grid

EVERY_SEED = ("pivotal", "lora_only", "random_init")
DOCS = Path(__file__).parent.parent / "docs"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python dev.py evidence", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("out/evidence"))
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time, one thread each")
    parser.add_argument("--gather", action="store_true", help="run nothing; write the page from what is there")
    parser.add_argument("--docs", action="store_true", help="also write docs/evidence.md and its picture")
    parsed = parser.parse_args(arguments)
    todo = [(job, seed) for seed in range(parsed.seeds) for job in EVERY_SEED]
    todo += [("sixteen_words", 0), *((f"one_word_{index}", 0) for index in range(SINGLE_WORDS))]
    todo = [] if parsed.gather else todo
    with ThreadPoolExecutor(parsed.jobs) as pool:
        failed = [name for name, status in pool.map(lambda pair: run_job(*pair, parsed.out), todo) if status]
    if failed:
        print(f"failed: {', '.join(failed)}; their logs lie beside the results", file=sys.stderr)
        return 1
    evidence = gather(parsed.out, seeds=parsed.seeds)
    (parsed.out / "evidence.json").write_text(json.dumps(evidence, indent=2) + "\n", encoding="utf-8")
    figure(parsed.out).save(parsed.out / "evidence.png")
    text = markdown(evidence)
    (parsed.out / "evidence.md").write_text(text, encoding="utf-8")
    if parsed.docs:
        (DOCS / "evidence.md").write_text(text, encoding="utf-8")
        (DOCS / "evidence.json").write_text(json.dumps(evidence, indent=2) + "\n", encoding="utf-8")
        figure(parsed.out).save(DOCS / "evidence.png")
    print(text)
    return 0


def run_job(job: str, seed: int, out: Path) -> tuple[str, int]:
    """One job in a process of its own with one thread; nothing to do where its result is there."""
    name = f"{job}-{seed}"
    folder = out / name
    if (folder / "result.json").exists():
        return name, 0
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{name} ...", flush=True)
    with (folder / "log.txt").open("w") as log:
        status = subprocess.call(
            [sys.executable, "-m", "examples.evidence_jobs", job, str(seed), str(out)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    print(f"{name}: {'done' if status == 0 else 'FAILED'}", flush=True)
    return name, status


def gather(out: Path, *, seeds: int) -> dict[str, Any]:
    """Means and spreads over the seeds, one figure a claim; what was not run is None."""

    def results(job: str) -> list[dict[str, Any]]:
        paths = [out / f"{job}-{seed}" / "result.json" for seed in range(seeds)]
        return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]

    pivotal, lora, chance = results("pivotal"), results("lora_only"), results("random_init")
    sixteen, singles = results("sixteen_words"), [r for i in range(SINGLE_WORDS) for r in results(f"one_word_{i}")]
    names = list(CHARACTERS)[:SINGLE_WORDS]
    together = None
    if sixteen and singles:
        together = {
            "whole": sixteen[0]["identity"]["whole"],
            "same_words": statistics.mean(sixteen[0]["by_word"]["whole"][name] for name in names),
            "one_word_each": statistics.mean(r["identity"]["whole"] for r in singles),
        }
    return {
        "identity": {
            "pivotal": mean_of([r["identity"] for r in pivotal]),
            "lora_only": mean_of([r["identity"] for r in lora]),
            "base": statistics.mean(r["base"] for r in pivotal),
        },
        "spread": {
            "pivotal": spread_of([r["identity"] for r in pivotal]),
            "lora_only": spread_of([r["identity"] for r in lora]),
        },
        "seeds": len(pivotal),
        "seconds": sum(r["seconds"] for r in [*pivotal, *lora, *chance, *sixteen, *singles]),
        "transfer": {
            "pivotal": mean_of([r["transfer"] for r in pivotal]),
            "lora_only": mean_of([r["transfer"] for r in lora]),
        },
        "renaming_is_exact": all(r["renaming_is_exact"] for r in pivotal),
        "over_steps": {
            "init_text": mean_of([r["over_steps"] for r in pivotal]),
            "random": mean_of([r["over_steps"] for r in chance]) if chance else None,
        },
        "drift": {
            "pivotal": statistics.mean(r["drift"] for r in pivotal),
            "lora_only": statistics.mean(r["drift"] for r in lora),
        },
        "sixteen_words": together,
    }


def mean_of(records: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean by key."""
    return {key: statistics.mean(record[key] for record in records) for key in records[0]}


def spread_of(records: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    """Smallest and largest by key."""
    return {key: [min(r[key] for r in records), max(r[key] for r in records)] for key in records[0]}


def figure(out: Path) -> Image.Image:
    """The article's figure, twice: pivotal tuning above, the LoRA alone below."""
    blocks = []
    for job, title, rows in (
        ("pivotal", "pivotal tuning", ("whole", "unet", "te", "words", "base")),
        ("lora_only", "LoRA alone, plain trigger word", ("whole", "unet", "te")),
    ):
        labels = {"whole": "whole", "unet": "U-Net only", "te": "text encoder only", "words": "words only"}
        names = list(CHARACTERS)[:CHARACTERS_OF_FIGURE]
        made = {
            labels.get(row, "traits as prompt"): [
                Image.open(out / f"{job}-0" / f"{row}-{number * PICTURES_PER_WORD + i:03}.png")
                for number in range(len(names))
                for i in range(2)
            ]
            for row in rows
        }
        blocks.append(draw_grid(made, [n if i == 0 else "" for n in names for i in range(2)], title=title, cell_px=96))
    sheet = Image.new("RGB", (max(b.width for b in blocks), sum(b.height + 12 for b in blocks)), "white")
    top = 0
    for block in blocks:
        sheet.paste(block, (0, top))
        top += block.height + 12
    return sheet


if __name__ == "__main__":
    sys.exit(main())
