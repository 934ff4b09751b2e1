"""`python dev.py evidence [--seeds N] [--out DIR]`: the claims of pivotal tuning, measured on the avatars.

Each job (a run and its pictures) has a folder of its own under --out and is not repeated where it is done, so that the
whole can be interrupted. Scores are taken from the stored pictures each time; evidence.json, evidence.md and
evidence.png are written from them, with --docs into docs/.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from PIL import Image

from examples.avatars.characters import CHARACTERS
from examples.avatars.scores import Scorer, load_scorer
from examples.evidence_gather import gather
from examples.evidence_jobs import CHARACTERS_OF_FIGURE, CLAIMS, SHEETS, TRIALS, folder_of
from examples.evidence_scores import score_renders, score_sheets, shown
from examples.evidence_text import markdown
from lib_pivotal.evaluation.parts_grid import draw_grid

EVERY_SEED = ("pivotal", "lora_only", "random_init")
DOCS = Path(__file__).parent.parent / "docs"
NAMES = list(CHARACTERS)[:CHARACTERS_OF_FIGURE]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python dev.py evidence", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="of the runs with four characters; the others have one")
    parser.add_argument("--out", type=Path, default=Path("out/evidence"))
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time, one thread each")
    parser.add_argument("--trials", action="store_true", help="also what else was tried, one seed each")
    parser.add_argument(
        "--gather", action="store_true", help="run nothing; score and write the page from what is there"
    )
    parser.add_argument("--docs", action="store_true", help="also write docs/evidence.md, .json and .png")
    parsed = parser.parse_args(arguments)
    wanted = jobs(parsed.seeds, trials=True)
    todo = [] if parsed.gather else jobs(parsed.seeds, trials=parsed.trials)
    with ThreadPoolExecutor(parsed.jobs) as pool:
        failed = [name for name, status in pool.map(lambda pair: run_job(*pair, parsed.out), todo) if status]
    if failed:
        print(f"failed: {', '.join(failed)}; their logs lie beside the results", file=sys.stderr)
        return 1
    torch.set_num_threads(1)
    scorer = load_scorer()
    for job, seed in wanted:
        score_job(scorer, folder_of(job, seed, parsed.out), job, seed)
    evidence = gather(parsed.out, seeds=parsed.seeds, renders=score_renders(scorer, NAMES))
    text, picture = markdown(evidence), figure(parsed.out)
    for folder in (parsed.out, *([DOCS] if parsed.docs else [])):
        (folder / "evidence.json").write_text(json.dumps(evidence, indent=2) + "\n", encoding="utf-8")
        (folder / "evidence.md").write_text(text, encoding="utf-8")
        picture.quantize(128, kmeans=2, dither=Image.Dither.NONE).save(folder / "evidence.png", optimize=True)
    print(text)
    return 0


def jobs(seeds: int, *, trials: bool) -> list[tuple[str, int]]:
    """Jobs with their seeds, in the order in which they are run."""
    once = [name for name in CLAIMS if name not in EVERY_SEED]
    found = [(job, seed) for seed in range(seeds) for job in EVERY_SEED]
    return [*found, *((job, 0) for job in once), *((job, 0) for job in TRIALS if trials)]


def run_job(job: str, seed: int, out: Path) -> tuple[str, int]:
    """One job in a process of its own with one thread; nothing to do where it is done."""
    folder = folder_of(job, seed, out)
    name = folder.name
    if (folder / "made.json").exists():
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


def score_job(scorer: Scorer, folder: Path, job: str, seed: int) -> None:
    """Write result.json: what the job measured, and the scores of its sheets; nothing where it is not done."""
    if not (folder / "made.json").exists():
        return
    made = json.loads((folder / "made.json").read_text(encoding="utf-8"))
    names = (CLAIMS | TRIALS)[job].setup(seed).names
    found = {**made, "rows": score_sheets(scorer, folder / SHEETS, names)}
    (folder / "result.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def figure(out: Path) -> Image.Image:
    """The article's figure, twice: pivotal tuning above, the LoRA alone below; and both on the second checkpoint."""
    labels = {
        "whole": "full",
        "unet": "U-Net only",
        "te": "text encoder only",
        "words": "embeddings only",
        "base": "traits as prompt",
        "half": "half of the U-Net's",
    }
    blocks = []
    for job, prefix, title, rows in (
        ("pivotal", "", "pivotal tuning", ("whole", "unet", "te", "words", "base")),
        ("lora_only", "", "LoRA alone, plain trigger word", ("whole", "unet", "te")),
        ("pivotal", "retro-", "pivotal tuning, on the second checkpoint", ("whole", "half", "words", "base")),
        ("lora_only", "retro-", "LoRA alone, on the second checkpoint", ("whole", "half")),
    ):
        folder = folder_of(job, 0, out) / SHEETS
        made = {labels[row]: shown(folder, prefix + row, embeddings=len(NAMES), each=2) for row in rows}
        blocks.append(draw_grid(made, [n if i == 0 else "" for n in NAMES for i in range(2)], title=title, cell_px=64))
    sheet = Image.new("RGB", (max(b.width for b in blocks), sum(b.height + 12 for b in blocks)), "white")
    top = 0
    for block in blocks:
        sheet.paste(block, (0, top))
        top += block.height + 12
    return sheet


if __name__ == "__main__":
    sys.exit(main())
