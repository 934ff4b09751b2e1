"""A small share of the campaign of faults and of the hostile files, with a seed of its own; the whole is
`python dev.py faults --count 1000`, whose table is in docs/reliability.md."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lib_pivotal.errors import BundleError
from tests.faults import hostile
from tests.faults.hostile import Sort, make_sorts, read_hostile, summary
from tests.faults.kinds import KINDS
from tests.faults.mutations import MARKER, evil_pickle
from tests.faults.samples import make_samples
from tests.faults.table import read_lines

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="trials are forked processes"),
]


def test_a_fault_of_each_kind(tmp_path):
    """In a process of its own: a forked one must have no threads to lose, and this one may have some."""
    results = tmp_path / "results.jsonl"
    command = [sys.executable, "-m", "tests.faults", "--count", str(len(KINDS)), "--seed", "2", "--hostile", "0"]
    command += ["--backend", "standalone"]
    done = subprocess.run([*command, "--results", str(results)], cwd=ROOT, capture_output=True, text=True, timeout=600)
    rows = read_lines(results)
    assert done.returncode == 0 and not [row for row in rows if row["why"]], done.stdout[-4000:] + done.stderr[-2000:]
    assert len(rows) == sum(kind.available() for kind in KINDS)
    assert all(row["held"][key] for row in rows for key in ("ended", "weights", "inside"))


def test_hostile_files():
    report = read_hostile(300, seed=3, sorts=make_sorts(make_samples()))
    assert report.good, summary(report)
    assert sum(count.files for count in report.counts.values()) == 300


# ---- a campaign that finds nothing must be able to find something ----


def opens_outside(path, out):
    (out.parent.parent / "escaped").write_text("x")


def trusts(path, out):
    import pickle

    pickle.loads(evil("os"))


def evil(module):
    import random

    found = (evil_pickle(random.Random(number)) for number in range(10_000))
    return next(pickled for pickled in found if pickled.startswith(b"c" + module.encode()) and b"system" in pickled)


def crashes(path, out):
    raise KeyError("x")


def dies(path, out):
    os.kill(os.getpid(), signal.SIGKILL)


def hangs(path, out):
    time.sleep(60)


def starves(path, out):
    return bytearray(8 * 2**30)


def answers(path, out):
    (out / "made").write_text("x")


def refuses(path, out):
    raise BundleError("no")


@pytest.mark.parametrize(
    ("reader", "told"),
    [
        (opens_outside, "escaped"),
        (trusts, "os.system"),
        (trusts, "its code was executed"),
        (crashes, "KeyError"),
        (dies, "the process died"),
        (hangs, "more than"),
        (starves, "MemoryError"),
        (answers, ""),
        (refuses, ""),
    ],
)
def test_what_no_file_may_do_is_found(reader, told, monkeypatch):
    monkeypatch.setattr(hostile, "LONGEST_S", 0.5)
    sort = Sort("x", ((".json", b'{"a": 1}'),), (reader,))
    report = read_hostile(2, seed=1, sorts=(sort,))
    found = [finding.what for finding in report.findings]
    assert {finding.number for finding in report.findings} == ({0, 1} if told else set())
    assert not told or sum(told in what for what in found) == 2, found
    assert report.counts["x"].files == 2 and MARKER not in os.listdir()
