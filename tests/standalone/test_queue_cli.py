"""The queue on the command line: filled, put in order, served, and killed in the middle of a run."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib_pivotal.standalone.cli import main

SAID = Callable[..., tuple[int, str, str]]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> SAID:
    """Status, output and errors of the command."""

    def call(*arguments: object) -> tuple[int, str, str]:
        status = main(["queue", *(str(argument) for argument in arguments)])
        found = capsys.readouterr()
        return status, found.out, found.err

    return call


@pytest.fixture
def write(two_embeddings_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes a run.json."""

    def make(name: str, *, steps: int = 2, folder: Path | None = None) -> Path:
        plain = {
            "name": name,
            "embeddings": [{"name": "aoi"}, {"name": "hana"}],
            "network": {"unet_rank": 2},
            "data": {"folder": str(folder or two_embeddings_folder), "resolution_px": 64},
            "schedule": {"max_steps": steps, "batch_size": 1},
            "saving": {"state_every_steps": 2, "dtype": "fp32"},
        }
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(plain))
        return path

    return make


def listed(said: SAID, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(said("list", folder, "--json")[1])
    return found


def states(said: SAID, folder: Path) -> dict[str, str]:
    return {entry["name"]: entry["state"] for entry in listed(said, folder)["runs"]}


def test_filled_and_put_in_order(said: SAID, write: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "queue"
    assert said("list", folder) == (0, "the queue is empty\n", "")
    for name in "abc":
        assert said("add", folder, write(name))[0] == 0
    assert said("move", folder, 3, 1)[0] == 0 and said("remove", folder, 2)[0] == 0
    assert list(states(said, folder)) == ["c", "a"]
    said("pause", folder)
    assert said("list", folder)[1].splitlines() == [
        "paused",
        "  3  waiting      c  0 of 2 steps",
        "  1  waiting      a  0 of 2 steps",
    ]
    status, _, told = said("run", folder, "--checkpoint", tmp_path / "absent")
    assert status == 2 and "The queue is paused" in told
    assert said("resume", folder)[0] == 0 and not listed(said, folder)["paused"]


def test_skip_and_clear(said: SAID, write: Callable[..., Path], tmp_path: Path) -> None:
    folder, run = tmp_path / "queue", write("a")
    status, added, _ = said("add", folder, run, "--sweep", "network.unet_lr=1e-4,3e-4")
    first, second = (line.split()[0] for line in added.splitlines())
    status, text, _ = said("skip", folder, first)
    assert status == 0 and "skipped" in text
    found = listed(said, folder)
    assert [entry["state"] for entry in found["runs"]] == ["skipped", "waiting"]
    assert found["sweeps"][0]["grid"] == ""  # one still waits
    assert said("skip", folder, second)[0] == 0
    assert Path(listed(said, folder)["sweeps"][0]["grid"]).is_file()  # drawn though nobody serves the queue
    status, _, errors = said("skip", folder, first)
    assert status == 2 and "skipped already" in errors
    assert said("clear", folder)[:2] == (0, "the queue is empty\n")


def test_refused_with_a_sentence(said: SAID, write: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "queue"
    said("add", folder, write("a"))
    for arguments, sentence in (
        (("add", folder, write("a")), "in the queue writes a file of this name"),
        (("add", folder, write("b"), "--sweep", "network.unet_rnk=1,2"), "no setting of a run"),
        (("remove", folder, 9), "no run 9"),
        (("move", folder, 9, 1), "no run 9"),
    ):
        status, _, told = said(*arguments)
        assert status == 2 and sentence in told
    assert states(said, folder) == {"a": "waiting"}


def test_paths_hold_from_anywhere(
    said: SAID, write: Callable[..., Path], two_embeddings_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(two_embeddings_folder.parent)
    said("add", tmp_path / "queue", write("a", folder=Path(two_embeddings_folder.name)))
    kept = json.loads((tmp_path / "queue" / "runs" / "queue.json").read_text())
    assert kept["runs"][0]["settings"]["data"]["folder"] == str(two_embeddings_folder)


def test_served_until_nothing_waits(said: SAID, write: Callable[..., Path], checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "queue"
    said("add", folder, write("a"), "--sweep", "network.unet_rank=1,2")
    said("add", folder, write("bad", folder=tmp_path / "nowhere"))
    said("add", folder, write("b"))
    status, out, _ = said("run", folder, "--checkpoint", checkpoint, "--device", "cpu")
    assert status == 1, "one has failed"
    assert states(said, folder) == {"a-unet_rank-1": "done", "a-unet_rank-2": "done", "bad": "failed", "b": "done"}
    assert "b: done" in out and "bad: failed" in out and "does not exist" in out
    assert {path.stem for path in (folder / "lora").glob("*.safetensors")} == {"a-unet_rank-1", "a-unet_rank-2", "b"}
    assert Path(listed(said, folder)["sweeps"][0]["grid"]).is_file()
    assert said("run", folder, "--checkpoint", checkpoint)[0] == 0, "nothing waits, and the failure was told"


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_ended_in_the_middle_of_a_run(
    said: SAID, write: Callable[..., Path], checkpoint: Path, forks: Any, tmp_path: Path, end: int
) -> None:
    folder = tmp_path / "queue"
    said("add", folder, write("long", steps=40))
    said("add", folder, write("after"))
    arguments = ["queue", "run", str(folder), "--checkpoint", str(checkpoint), "--device", "cpu"]
    process = forks.start("lib_pivotal.standalone.cli:main", arguments, output=tmp_path / "told.txt")
    deadline = time.monotonic() + 240
    while not list(folder.glob("runs/*/long.state/run-*/state-*.safetensors")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(end)
    status = process.wait()
    assert end == signal.SIGKILL or status == 130, process.told()
    assert states(said, folder) == {"long": "interrupted", "after": "waiting"}
    status, _, told = said("run", folder, "--checkpoint", checkpoint)
    assert status == 2 and "long was" in told and "Resume continues" in told
    said("resume", folder)
    assert said("run", folder, "--checkpoint", checkpoint, "--device", "cpu")[0] == 0
    assert states(said, folder) == {"long": "done", "after": "done"}
    (began,) = folder.glob("runs/*-long")
    rows = (began / "long.steps.csv").read_text().splitlines()[1:]
    assert [int(row.split(",")[0]) for row in rows] == list(range(1, 41)), "each step once: it did not start over"
