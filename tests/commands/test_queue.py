"""The queue: one rule and one sentence on the page, in the API and on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lib_pivotal.commands import queue as commands
from lib_pivotal.commands.queue import AddRequest, QueuePlace
from lib_pivotal.config import run_from_dict
from lib_pivotal.errors import FileNameError
from tests.commands.fronts import detail, refusal
from tests.webui.test_api_paths import Site


@pytest.fixture
def place(site: Site) -> Any:
    found = QueuePlace.of_manager(site.manager)
    commands.pause(found)
    yield found
    site.manager.queue.close()


def test_one_sentence_for_a_run_that_cannot_be_added(site: Site, place: QueuePlace, line: Any, tmp_path: Path) -> None:
    told = "Give the folder that holds the pictures"
    plain = site.run(data={"folder": ""})
    (tmp_path / "run.json").write_text(json.dumps(plain), encoding="utf-8")
    assert told in refusal(lambda: commands.add(place, AddRequest(run_from_dict(plain))))
    assert told in detail(site, "/queue", plain)
    assert told in line("queue", "add", tmp_path / "queue", tmp_path / "run.json")
    assert not place.file.look().runs


def test_the_command_line_fills_the_queue_that_the_process_serves(
    site: Site, place: QueuePlace, line: Any, tmp_path: Path
) -> None:
    (tmp_path / "x.json").write_text(json.dumps(site.run(name="typed")), encoding="utf-8")
    process = site.data / "process"  # holds lora/ and runs/
    assert line("queue", "add", process, tmp_path / "x.json") == "1  typed\n"
    shown = site.client.get("/pivotal/v1/queue").json()
    assert [entry["name"] for entry in shown["runs"]] == ["typed"]
    assert json.loads(line("queue", "list", process, "--json"))["runs"] == shown["runs"]
    assert "another program serves this queue" in line("queue", "resume", process)


def test_a_name_in_the_lora_folder_stays_a_name(
    site: Site, place: QueuePlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (entry,) = commands.add(place, AddRequest(run_from_dict(site.run(start={"init_file": "one"}))))
    assert entry.settings["start"]["init_file"] == "one"


def test_a_sweep_is_added_whole_or_not_at_all(site: Site, place: QueuePlace) -> None:
    run = run_from_dict(site.run(name="s"))
    taken = place.lora_folder / "s-seed-2.safetensors"
    taken.write_bytes(b"x")
    request = AddRequest(run, sweep=[commands.Axis("seed", (1, 2))])
    with pytest.raises(FileNameError, match="s-seed-2"):
        commands.add(place, request)
    assert not place.file.look().runs and not place.file.look().sweeps
    taken.unlink()
    assert [entry.name for entry in commands.add(place, request)] == ["s-seed-1", "s-seed-2"]
    assert {entry.checkpoint for entry in place.file.look().runs} == {"avatars.safetensors [aaf9a020]"}
