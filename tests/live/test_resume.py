"""Runs that are continued in a real web UI: after `kill -9` at any moment, another checkpoint, a damaged state.

`$PIVOTAL_LIVE_KILLS` is the number of kills a family (7: more than twenty for all three).
"""

from __future__ import annotations

import os
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from examples import experiment
from examples.avatars import make
from lib_pivotal.config import Run, run_to_dict
from tests.live.conftest import (
    ROOT,
    Family,
    Installation,
    RequestFailedError,
    TinyCheckpoints,
    WebUI,
    lay_out_data,
    no_live_previews,
    started,
)
from tests.training.runs import contents

pytestmark = [pytest.mark.webui, pytest.mark.slow]
KILLS = int(os.environ.get("PIVOTAL_LIVE_KILLS", "7"))
STEPS = 40


@pytest.fixture(scope="module")
def run(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Run:
    characters, styles = make.choose_embeddings(2)
    setup = replace(
        experiment.Setup(tuple(characters[:2]), tuple(styles), seed=0),
        steps=STEPS,
        preview_every=0,
        pictures=8,
        batch_size=2,
        vectors=2,
    )
    pictures = experiment.write_dataset(setup, tmp_path_factory.mktemp("resume") / "pictures")
    made = experiment.make_run(setup, pictures, "killed")
    return replace(made, saving=replace(made.saving, state_every_steps=3, keep_states=2, dtype="fp32"))


@pytest.fixture(scope="module")
def data(
    family: Family, tiny_checkpoints: TinyCheckpoints, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Folders on which the web UI is started again and again."""
    folder = tmp_path_factory.mktemp("killed")
    lay_out_data(folder, checkpoint)
    tiny_checkpoints.lay_out_families(folder)
    (folder / "extensions" / "sd-webui-pivotal").symlink_to(ROOT, target_is_directory=True)
    return folder


def begin(webui: WebUI, family: Family) -> WebUI:
    no_live_previews(webui)
    webui.use(family.checkpoint.stem)
    return webui


def wait_for_end(webui: WebUI, run_id: str, timeout_s: float = 600) -> dict[str, Any]:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        view: dict[str, Any] = webui.call(f"/pivotal/v1/runs/{run_id}")
        if view["ended"]:
            return view
        time.sleep(0.1)
    raise AssertionError(f"the run does not end: {view}")


def wait_for_step(webui: WebUI, run_id: str, *, steps: int, timeout_s: float = 300) -> dict[str, Any]:
    """Until it has done so many steps since it was started or continued, or has ended; 0: at once."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        view: dict[str, Any] = webui.call(f"/pivotal/v1/runs/{run_id}")
        if view["ended"] or len(view["loss"]["steps"]) >= steps:
            return view
        time.sleep(0.02)
    raise AssertionError(f"the run does not get there: {view}")


def start(webui: WebUI, run: Run) -> str:
    return str(webui.call("/pivotal/v1/runs", {**run_to_dict(run), "overwrite": True})["id"])


def test_killed_at_any_moment_it_ends_the_same(
    installation: Installation, data: Path, family: Family, run: Run
) -> None:
    rng = random.Random(family.name)
    with started(installation, data) as webui:
        view = wait_for_end(begin(webui, family), start(webui, replace(run, name="undisturbed")))
        assert view["status"] == "finished", view["ended"]
        typical_s = view["step_seconds"]
        whole = load_file(view["ended"]["bundle"])
    run_id, kills, continued = "", 0, []
    while kills < KILLS:
        with started(installation, data) as webui:
            begin(webui, family)
            resumable = webui.call("/pivotal/v1/runs/resumable") if run_id else []
            if run_id in resumable:
                webui.call(f"/pivotal/v1/runs/{run_id}/continue", {})
            else:
                run_id = start(webui, run)
            wait_for_step(webui, run_id, steps=rng.randint(0, STEPS // 4))
            time.sleep(rng.uniform(0, 3 * typical_s))
            view = webui.call(f"/pivotal/v1/runs/{run_id}")
            if run_id in resumable and view["step"]:
                continued.append(view["step"])
            if view["ended"]:
                assert view["status"] == "finished", view["ended"]
                assert_equal(whole, load_file(view["ended"]["bundle"]))
                run_id = ""
            webui.process.kill()
            kills += 1
    with started(installation, data) as webui:
        begin(webui, family)
        if run_id in webui.call("/pivotal/v1/runs/resumable"):
            webui.call(f"/pivotal/v1/runs/{run_id}/continue", {})
        else:
            run_id = start(webui, run)
        view = wait_for_end(webui, run_id)
    assert view["status"] == "finished", view["ended"]
    assert_equal(whole, load_file(view["ended"]["bundle"]))
    rows = next(Path(view["folder"]).glob("*.steps.csv")).read_text().splitlines()[1:]
    assert [int(row.split(",")[0]) for row in rows] == list(range(1, run.schedule.total_steps + 1))
    assert continued, "no kill was followed by a run that was continued: give the steps more time"


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for key, tensor in first.items():
        assert torch.equal(tensor, second[key]), key


def test_what_cannot_be_continued_is_refused_and_untouched(
    installation: Installation, data: Path, family: Family, run: Run, tiny_checkpoints: TinyCheckpoints
) -> None:
    """With another checkpoint, with damaged states; and then, with the right ones, it is continued."""
    with started(installation, data) as webui:
        begin(webui, family)
        run_id = start(webui, replace(run, name="refused"))
        while webui.call(f"/pivotal/v1/runs/{run_id}")["step"] < 5:
            time.sleep(0.05)
        webui.call(f"/pivotal/v1/runs/{run_id}/stop", {})
        view = wait_for_end(webui, run_id)
        folder = Path(view["folder"])
        before = settled(folder)

        second = webui.second_checkpoint(family.checkpoint.stem)
        change_checkpoint(webui, Path(webui.data) / "models" / "Stable-diffusion" / second)
        refused(webui, run_id, "the checkpoint was")
        assert contents(folder) == before
        begin(webui, family)

        states = sorted(folder.glob("*.state/run-*/state-*.safetensors"))
        good = [state.read_bytes() for state in states]
        for state in states:
            state.write_bytes(b"damaged")
        damaged = contents(folder)
        refused(webui, run_id, "none of the saved states can be read")
        assert contents(folder) == damaged
        for state, content in zip(states, good, strict=True):
            state.write_bytes(content)

        webui.call(f"/pivotal/v1/runs/{run_id}/continue", {})
        again = wait_for_end(webui, run_id)
        assert again["status"] == "finished" and again["loss"]["steps"][0] == view["step"] + 1


def settled(folder: Path) -> dict[Path, tuple[int, str]]:
    """A run whose end was told may draw its plots still."""
    before: dict[Path, tuple[int, str]] = {}
    while (now := contents(folder)) != before:
        before = now
        time.sleep(1)
    return before


def change_checkpoint(webui: WebUI, path: Path) -> None:
    """A checkpoint with other weights, loaded."""
    from safetensors.torch import save_file

    tensors = load_file(path)
    tensors["model.diffusion_model.out.2.weight"] *= 0.9
    save_file(tensors, str(path))
    webui.call("/sdapi/v1/refresh-checkpoints", {})
    webui.use(path.stem)


def refused(webui: WebUI, run_id: str, told: str) -> None:
    """By the answer, or by the run's end where it takes the model to find out."""
    try:
        webui.call(f"/pivotal/v1/runs/{run_id}/continue", {})
    except RequestFailedError as error:
        assert told in str(error)
        return
    view = wait_for_end(webui, run_id)
    assert view["status"] == "failed" and told in view["ended"]["message"], view["ended"]
