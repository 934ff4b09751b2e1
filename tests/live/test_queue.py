"""A queue in a real web UI: filled by the API, the web UI killed in the middle, and gone on with after a restart."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from examples import experiment
from examples.avatars import make
from lib_pivotal.config import Run, run_to_dict
from tests.live.conftest import ROOT, Family, Installation, TinyCheckpoints, WebUI, lay_out_data, started

pytestmark = [pytest.mark.webui, pytest.mark.slow]
STEPS = 8


@pytest.fixture
def run(tmp_path: Path) -> Run:
    characters, styles = make.choose_embeddings(2)
    setup = experiment.Setup(tuple(characters[:2]), tuple(styles), seed=0)
    setup = replace(setup, steps=STEPS, preview_every=0, pictures=8, batch_size=2, vectors=2)
    made = experiment.make_run(setup, experiment.write_dataset(setup, tmp_path / "pictures"), "first")
    return replace(made, saving=replace(made.saving, state_every_steps=1, keep_states=2, dtype="fp32"))


@pytest.fixture
def data(tiny_checkpoints: TinyCheckpoints, checkpoint: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    lay_out_data(folder, checkpoint)
    tiny_checkpoints.lay_out_families(folder)
    (folder / "extensions" / "sd-webui-pivotal").symlink_to(ROOT, target_is_directory=True)
    return folder


def entry(webui: WebUI, name: str) -> dict[str, Any]:
    return next(one for one in webui.call("/pivotal/v1/queue")["runs"] if one["name"] == name)


def wait_for(webui: WebUI, name: str, *, state: str = "", step: int = 0, timeout_s: float = 600) -> dict[str, Any]:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = entry(webui, name)
        if found["state"] == state or (step and found["step"] >= step):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{found}\n{webui.log_text()[-3000:]}")


def test_a_queue_survives_the_web_ui(installation: Installation, data: Path, family: Family, run: Run) -> None:
    with started(installation, data) as webui:
        webui.use(family.checkpoint.stem)
        for name in ("first", "second"):
            webui.call("/pivotal/v1/queue", run_to_dict(replace(run, name=name)))
        began = wait_for(webui, "first", step=2)
        assert began["state"] == "running" and entry(webui, "second")["state"] == "waiting"
        webui.process.kill()
    with started(installation, data) as webui:
        webui.use(family.checkpoint.stem)
        told = webui.call("/pivotal/v1/queue")
        assert told["paused"] and "first was training" in told["notice"]
        assert [one["state"] for one in told["runs"]] == ["interrupted", "waiting"]
        time.sleep(3)
        assert webui.call("/pivotal/v1/queue") == told, "nothing begins by itself"
        webui.call("/pivotal/v1/queue/resume", {})
        wait_for(webui, "second", state="done")
        ended = entry(webui, "first")
        assert ended["state"] == "done" and ended["run_id"] == began["run_id"]
        entry_steps = ended["step"]
        assert entry_steps == ended["max_steps"] >= STEPS
    runs = data / "pivotal_runs"
    (folder,) = (path for path in runs.iterdir() if path.name.endswith("-first"))
    rows = (folder / "first.steps.csv").read_text().splitlines()[1:]
    assert [int(row.split(",")[0]) for row in rows] == list(range(1, entry_steps + 1)), "it did not start over"
    assert {"first", "second"} <= {path.stem for path in (data / "models" / "Lora").glob("*.safetensors")}
