"""`kill -9` of `python -m lib_pivotal train` at random moments, and `--resume`: the file of the undisturbed run."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lib_pivotal.config import write_run
from lib_pivotal.training.state_files import has_states
from tests.training.runs import assert_same, make_run, tensors_of

ROOT = Path(__file__).parents[2]
KILLS = 4


def arguments_of(run_file, checkpoint, out, *more):
    return ["train", str(run_file), "--checkpoint", str(checkpoint), "--out", str(out), *more]


def ended(process):
    return process.wait(), process.told()


@pytest.mark.slow
def test_killed_at_random_moments_the_file_is_the_same(forks, checkpoint, two_embeddings_folder, tmp_path):
    def command(out, *more):
        arguments = arguments_of(run_file, checkpoint, out, *more)
        return forks.start("lib_pivotal.standalone.cli:main", arguments, output=tmp_path / "told.txt")

    run_file = tmp_path / "run.json"
    write_run(run_file, make_run(two_embeddings_folder, max_steps=60, saving={"state_every_steps": 1}))
    status, told = ended(command(tmp_path / "whole"))
    assert status == 0, told
    out, rng, kills = tmp_path / "out", random.Random(1), 0
    while kills < KILLS:
        process = command(out, *(["--resume"] if has_states(out / "two.state") else ["-f"]))
        before = _states(out)
        while process.poll() is None and _states(out) == before:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
            ended(process)
            continue
        pytest.fail(f"it ended before it was killed: {ended(process)}")
    status, told = ended(command(out, "--resume"))
    assert status == 0, told
    assert_same(tensors_of(tmp_path / "whole" / "two.safetensors"), tensors_of(out / "two.safetensors"))
    rows = (out / "two.steps.csv").read_text().splitlines()[1:]
    assert [int(row.split(",")[0]) for row in rows] == list(range(1, 61))


def _states(out):
    return {path.name for path in out.glob("two.state/run-*/state-*")}


def test_a_run_that_cannot_be_continued_says_so_and_touches_nothing(checkpoint, two_embeddings_folder, tmp_path):
    run_file = tmp_path / "run.json"
    write_run(run_file, make_run(two_embeddings_folder, max_steps=3))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "lib_pivotal", *arguments_of(run_file, checkpoint, out, "--resume")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    status, told = done.returncode, done.stderr
    assert status == 2 and "no saved state" in told and "Traceback" not in told and not out.exists()
