"""What one of several processes meets, all act on: a stop, a pause, lack of memory, NaN, a death (gloo, real ones)."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lib_pivotal.bundle.reader import read_bundle, require
from lib_pivotal.config import write_run
from lib_pivotal.training.state_files import has_states
from tests.networks.battery import ROWS
from tests.training.runs import Recorder, assert_same, kind_run, make_run, tensors_of, train

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run_two(forks, two_embeddings_folder, tmp_path):
    run = make_run(two_embeddings_folder, max_steps=8, batch_size=4, saving={"state_every_steps": 2})
    write_run(tmp_path / "run.json", run)

    def start(fault, rank, *more, torchrun=False, out=tmp_path / "out"):
        """The ends of both, by rank; None for one that had none. Without torchrun nobody kills the survivor."""
        for old in out.glob("ended-*.json"):
            old.unlink()
        arguments = [str(tmp_path / "run.json"), str(out), fault, str(rank), *more]
        if torchrun:
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
            command += ["-m", "tests.training.two_processes", *arguments]
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
            subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, check=False, timeout=300)
        else:
            _two_by_hand(forks, arguments, tmp_path)
        return [
            json.loads(path.read_text()) if path.exists() else None
            for path in (out / "ended-0.json", out / "ended-1.json")
        ]

    start.out = tmp_path / "out"
    return start


def _two_by_hand(forks, arguments, folder):
    """What torchrun gives its processes, but for the watch that it keeps over them."""
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    processes = [
        forks.start(
            "tests.training.two_processes:main",
            arguments,
            output=folder / f"told-{rank}.txt",
            environment={**group, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    for process in processes:
        process.wait()


def free_port():
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_stop_of_one_stops_all_in_the_same_step(run_two, rank, tmp_path):
    ends = run_two("stop", rank)
    assert [(end["reason"], end["step"]) for end in ends] == [("stopped", 4)] * 2
    require(read_bundle(run_two.out / "two.safetensors"))
    again = run_two("none", 0, "resume")
    assert [(end["reason"], end["step"]) for end in again] == [("finished", 8)] * 2 and again[0]["steps"] == 4
    run_two("none", 0, out=tmp_path / "whole")
    assert_same(tensors_of(tmp_path / "whole" / "two.safetensors"), tensors_of(run_two.out / "two.safetensors"))


def test_a_pause_of_one_lets_all_wait(run_two):
    ends = run_two("pause", 1)
    assert [(end["reason"], end["step"]) for end in ends] == [("finished", 8)] * 2


def test_lack_of_memory_in_one_halves_all(run_two):
    ends = run_two("memory", 1)
    assert [(end["reason"], end["step"]) for end in ends] == [("finished", 8)] * 2
    assert sum("out of memory" in told for told in ends[0]["told"]) == 1


def test_one_that_has_no_memory_at_all_ends_all_with_advice(run_two):
    ends = run_two("no memory at all", 1)
    assert [(end["reason"], end["step"]) for end in ends] == [("failed", 3)] * 2
    assert all("gradient checkpointing" in end["message"] for end in ends)
    assert has_states(run_two.out / "two.state")


def test_a_nan_in_one_rolls_all_back(run_two):
    ends = run_two("nan", 1)
    assert [(end["reason"], end["step"]) for end in ends] == [("finished", 8)] * 2
    assert any("learning rates × 0.5" in told for told in ends[0]["told"])


def test_an_error_in_one_is_told_by_the_other(run_two):
    ends = run_two("raise", 1)
    assert [end["reason"] for end in ends] == ["failed"] * 2
    assert "a fault for the test" in ends[0]["message"] + ends[1]["message"]
    assert re.search("process 1 of this run has exited|is gone", ends[0]["message"])
    require(read_bundle(run_two.out / "two.safetensors"))


@pytest.mark.parametrize("torchrun", [True, False])
def test_a_death_of_one_ends_the_other_with_a_sentence(run_two, torchrun, tmp_path):
    started = time.time()
    ends = run_two("kill", 1, torchrun=torchrun)
    assert ends[1] is None and ends[0]["reason"] == "failed" and ends[0]["step"] == 3
    assert "gone" in ends[0]["message"] or "no sign of life" in ends[0]["message"]
    assert ends[0]["at"] - started < 120  # with the start; the survivor's own wait is below 30 s (test_liveness)
    assert set(require(read_bundle(run_two.out / "two.safetensors")).embeddings) == {"aoi", "hana"}
    again = run_two("none", 0, "resume")
    assert [(end["reason"], end["step"]) for end in again] == [("finished", 8)] * 2
    run_two("none", 0, out=tmp_path / "whole")
    assert_same(tensors_of(tmp_path / "whole" / "two.safetensors"), tensors_of(run_two.out / "two.safetensors"))


def test_a_death_of_the_one_that_writes_ends_the_other(run_two):
    ends = run_two("kill", 0)
    assert ends[0] is None and ends[1]["reason"] == "failed" and ends[1]["message"]


def test_sigterm_of_the_command_line_saves(forks, two_embeddings_folder, tmp_path):
    """As torchrun and service managers end a process; Ctrl-C alike."""
    write_run(tmp_path / "run.json", make_run(two_embeddings_folder, max_steps=100_000))
    for number in (signal.SIGTERM, signal.SIGINT):
        out = tmp_path / f"out{int(number)}"
        process = forks.start(
            "tests.training.two_processes:command_line",
            ["train", tmp_path / "run.json", "--checkpoint", "x", "--out", out],
            output=tmp_path / "told.txt",
        )
        deadline = time.monotonic() + 120
        while not (out / "two.steps.csv").exists():
            assert time.monotonic() < deadline and process.poll() is None, process.told()
            time.sleep(0.1)
        process.send_signal(number)
        assert process.wait(timeout=60) == 130
        assert has_states(out / "two.state") and (out / "two.safetensors").exists()
        assert '"RunEnded"' in (out / "two.events.jsonl").read_text().splitlines()[-1]


ONE_ROW_A_KIND = tuple({row.algorithm: name for name, row in reversed(ROWS.items())}.values())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ONE_ROW_A_KIND)
def test_two_processes_train_every_kind_as_one_does(kind, run_two, tiny_host, two_embeddings_folder, tmp_path):
    """The mean of the gradients is that of the whole batch, for every tensor; a sum has another order."""
    run = kind_run(two_embeddings_folder, kind, max_steps=3, batch_size=4)
    write_run(tmp_path / "run.json", run)
    assert [(end["reason"], end["step"]) for end in run_two("none", 0)] == [("finished", 3)] * 2
    found = tensors_of(run_two.out / "two.safetensors")
    expected = tensors_of(train(run, tiny_host, output_folder=tmp_path / "one", listener=Recorder()).bundle)
    assert found.keys() == expected.keys()
    if ROWS[kind].draws:
        return  # which ranks a pass trains is drawn in each process
    for key, tensor in expected.items():
        apart = (found[key].float() - tensor.float()).norm()
        assert apart <= 1e-3 * tensor.float().norm().clamp(min=1e-3), key
