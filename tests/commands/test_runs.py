"""Runs: one rule and one sentence on the page, in the API and on the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lib_pivotal.config import Run, run_from_dict
from lib_pivotal.errors import PivotalError
from lib_pivotal.training.state_files import new_run_folder, states_folder
from lib_pivotal.ui.page_controller import PageController
from lib_pivotal.ui.tab import build_tab
from tests.commands.fronts import detail, refusal
from tests.ui.browser import Browser
from tests.webui.test_api_paths import Site


def test_a_run_needs_a_folder(site: Site, controller: PageController, line: Any, tmp_path: Path) -> None:
    told = "Give the folder that holds the pictures"
    plain = site.run(data={"folder": ""})
    assert told in refusal(lambda: controller.start(run_from_dict(plain), []))
    assert told in detail(site, "/runs", plain) and told in detail(site, "/runs/preflight", plain)
    (tmp_path / "run.json").write_text(json.dumps(plain), encoding="utf-8")
    for verb in ("train", "preflight"):
        assert told in line(verb, tmp_path / "run.json", "--checkpoint", tmp_path / "absent")
    assert site.manager.current is None


def test_a_run_begins_from_a_file_of_the_lora_folder(
    site: Site, controller: PageController, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def begin(run: Run, **_: Any) -> Any:
        seen.append(run.start.init_file)
        raise PivotalError("seen")

    monkeypatch.setattr(site.manager, "start", begin)
    named = [
        site.run(start={"init_file": name}) for name in ("one", "one.safetensors", str(site.lora("one")), "absent")
    ]
    for plain in named[:3]:
        assert detail(site, "/runs", plain) == "seen"
        assert refusal(lambda run=plain: controller.start(run_from_dict(run), [])) == "seen"
    assert set(seen) == {str(site.lora("one").absolute())}
    assert "outside of the folders" in detail(site, "/runs", named[3])
    outside = site.run(start={"init_file": str(site.outside / "aoi_1.png")})
    assert "outside of the folders" in detail(site, "/runs", outside)


def test_a_finished_run_is_not_offered(site: Site, controller: PageController) -> None:
    from lib_pivotal.training.state import save_state

    for name, reason in (("one", "finished"), ("two", "stopped")):
        folder = site.backend.runs_folder() / name
        save_state(new_run_folder(states_folder(folder, name)), 10, {})
        (folder / f"{name}.events.jsonl").write_text(json.dumps({"event": "RunEnded", "reason": reason}) + "\n")
    assert controller.interrupted() == ["two"] == site.client.get("/pivotal/v1/runs/resumable").json()


def test_class_pictures_have_the_runs_own_clip_skip(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def begin(run: Run) -> Any:
        made.append(run.clip_skip)
        raise PivotalError("seen")

    monkeypatch.setattr(site.backend, "adjusted", lambda run: replace(run, clip_skip=5))
    monkeypatch.setattr(site.manager, "make_class_pictures", begin)
    browser = Browser(build_tab(site.manager))
    browser.set("pivotal_clip_skip", 2)
    browser.press("pivotal_class_pictures")
    assert detail(site, "/runs/class_pictures", site.run(clip_skip=2)) == "seen"
    assert made == [2, 2]


def test_a_step_is_kept_by_page_and_api(site: Site, controller: PageController) -> None:
    from lib_pivotal.runs.view import RunView

    site.manager._view = view = RunView("x", "gekidol", max_steps=10, folder=site.data)
    step = {"step": 5, "bundle": str(site.lora("one"))}
    view.snapshot = lambda: {"name": "gekidol", "pictures": [step]}  # type: ignore[method-assign]
    target = site.lora("gekidol-000005")
    assert site.post("/runs/current/keep", {"step": 5}).json() == {"file": str(target)}
    assert "gekidol-000005" in controller.keep(5) and target.read_bytes() == site.lora("one").read_bytes()
    told = refusal(lambda: controller.keep(6))
    assert detail(site, "/runs/x/keep", {"step": 6}) == told
    assert site.post("/runs/nobody/keep", {"step": 5}).status_code == 404
