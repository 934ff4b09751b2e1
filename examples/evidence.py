"""`python dev.py evidence [--only NAME ...] [--seeds N ...] [--out DIR]`: what sits in the embedding, measured.

Each recipe of `evidence_recipes` and each seed is a run in a folder of its own under --out and is not repeated where it
is done, so that the whole can be interrupted. Then evidence.json, evidence.md and the pictures are written, with --docs
into docs/.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from examples.evidence_page import write_page
from examples.evidence_recipes import RECIPES, run_apart

DOCS = Path(__file__).parent.parent / "docs"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is wanted, then write the page; the exit status."""
    parser = argparse.ArgumentParser(prog="python dev.py evidence", description=__doc__)
    parser.add_argument(
        "--only", nargs="*", choices=RECIPES, default=list(RECIPES), metavar="NAME", help="which recipes"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="the seeds, each a run of each recipe")
    parser.add_argument("--out", type=Path, default=Path("out/evidence"))
    parser.add_argument("--jobs", type=int, default=2, help="how many runs at a time, one thread each")
    parser.add_argument("--gather", action="store_true", help="run nothing; write the page from what is there")
    parser.add_argument("--docs", action="store_true", help="also write the page and its pictures into docs/")
    parsed = parser.parse_args(arguments)
    failed = [] if parsed.gather else run_apart(parsed.only, parsed.seeds, parsed.out, jobs=parsed.jobs)
    for said in failed:
        print(said, file=sys.stderr)
    for folder in (parsed.out, *([DOCS] if parsed.docs else [])):
        print(write_page(parsed.out, folder))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
