"""`python dev.py faults`: trials drawn from a seed, hostile files, and what held, as a table.

Exit status: 0 where everything held, else 1.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "reliability.md"
HOSTILE_PER_FAULT = 10
PLACES = {"standalone": "faults", "web UI": "faults-webui"}
"""Of the tables in the document."""


def main() -> int:
    """Parse and run."""
    parser = argparse.ArgumentParser(prog="dev.py faults", description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100, help="trials (default 100); ten times as many hostile files")
    parser.add_argument("--seed", type=int, default=12)
    parser.add_argument("--first", type=int, default=0, help="number of the first trial, to go on with a campaign")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="repeat one trial, and keep its folder")
    parser.add_argument("--kind", default="", help="only kinds whose name holds this")
    parser.add_argument(
        "--backend",
        choices=("auto", "standalone", "webui"),
        default="auto",
        help="auto (default): a real web UI ($PIVOTAL_WEBUI or ~/stable-diffusion-webui) where there is one",
    )
    parser.add_argument("--hostile", type=int, metavar="COUNT", help="so many hostile files; 0 for none")
    parser.add_argument("--jobs", type=int, default=1, help="trials at once")
    parser.add_argument("--every", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, help="append each result as a line of JSON")
    parser.add_argument("--docs", action="store_true", help="write the tables into docs/reliability.md")
    parsed = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # before torch: a forked process has no threads to lose
        os.environ[name] = "1"
    from tests.faults.campaign import find_backend

    parsed.backend = find_backend(parsed.backend)
    good = run_trials(parsed)
    hostile = HOSTILE_PER_FAULT * parsed.count if parsed.hostile is None else parsed.hostile
    if hostile and parsed.only is None and parsed.every == 1:
        good &= run_hostile(hostile, seed=parsed.seed, docs=parsed.docs)
    return 0 if good else 1


def run_trials(parsed: argparse.Namespace) -> bool:
    """The campaign; True where everything held."""
    from tests.faults.table import faults_table, put, read_lines

    with tempfile.TemporaryDirectory() as folder:
        results = parsed.results or Path(folder) / "results.jsonl"
        started = time.monotonic()
        if parsed.jobs > 1:
            _share_out(parsed, results)
        else:
            _one_after_the_other(parsed, results)
        rows = [row for row in read_lines(results) if row["backend"] == parsed.backend]
    bad = [row for row in rows if row["why"]]
    if not rows or parsed.every > 1:
        return not bad
    table = faults_table(rows)
    seconds = sum(row["seconds"] for row in rows)
    print(f"\n{table}\n\n{len(rows)} trials, {len(bad)} with something that did not hold; {seconds:.0f} s of trials,"
          f" {time.monotonic() - started:.0f} s now")  # fmt: skip
    if parsed.docs:
        text = f"{len(rows):,} faults from seed {parsed.seed}, {len(bad)} with something that did not hold."
        put(DOCUMENT, PLACES[parsed.backend], f"{text}\n\n{table}")
    return not bad


def _one_after_the_other(parsed: argparse.Namespace, results: Path) -> None:
    from tests.faults.campaign import kinds_like, run_campaign, write_line
    from tests.faults.trial import Result

    def told(result: Result) -> None:
        write_line(results, result)
        if result.why or parsed.only is not None:
            print(f"{result.number} {result.kind} ({result.variant}) {result.as_dict()['settings']}", flush=True)
            print("".join(f"    {why}\n" for why in result.why), end="", flush=True)
        elif parsed.every == 1 and result.number % 50 == 49:
            print(f"{result.number + 1} trials", flush=True)

    numbers = range(parsed.first, parsed.first + parsed.count, parsed.every)
    chosen = (
        [parsed.only]
        if parsed.only is not None
        else [number for number in numbers if kinds_like(parsed.kind, number, backend=parsed.backend)]
    )
    run_campaign(chosen, seed=parsed.seed, told=told, keep=parsed.only is not None, backend=parsed.backend)


def _share_out(parsed: argparse.Namespace, results: Path) -> None:
    """One process a job, each with its own checkpoint, taking turns."""
    backend = "standalone" if parsed.backend == "standalone" else "webui"
    command = [
        sys.executable,
        "-m",
        "tests.faults",
        "--backend",
        backend,
        "--seed",
        str(parsed.seed),
        "--kind",
        parsed.kind,
    ]
    command += ["--results", str(results), "--every", str(parsed.jobs), "--hostile", "0"]
    processes = [
        subprocess.Popen([*command, "--first", str(parsed.first + job), "--count", str(parsed.count - job)])
        for job in range(parsed.jobs)
    ]
    for process in processes:
        process.wait()


def run_hostile(count: int, *, seed: int, docs: bool) -> bool:
    """Hostile files; True where none did what no file may."""
    from tests.faults.hostile import make_sorts, read_hostile, summary
    from tests.faults.samples import make_samples
    from tests.faults.table import hostile_table, put

    report = read_hostile(count, seed=seed, sorts=make_sorts(make_samples()))
    table = hostile_table(report.counts, Counter(finding.sort for finding in report.findings))
    print(f"\n{table}\n\n{summary(report)}")
    if docs:
        put(DOCUMENT, "hostile", f"{count:,} files from seed {seed}.\n\n{table}")
    return report.good


if __name__ == "__main__":
    sys.exit(main())
