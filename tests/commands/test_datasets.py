"""Folders of pictures: scanned, planned, and fixed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lib_pivotal.commands import datasets
from lib_pivotal.commands.datasets import FolderRequest
from lib_pivotal.config import DataConfig, Run
from lib_pivotal.data.lint_warnings import Fix, LintWarning
from lib_pivotal.errors import ConfigError
from lib_pivotal.runs.presets import run_settings
from lib_pivotal.ui.page_controller import PageController
from tests.commands.fronts import detail, refusal
from tests.webui.test_api_paths import Site


def test_a_plan_and_its_remedy_go_through_json(two_embeddings_folder: Path) -> None:
    plain = {
        "words": [{"name": "aoi"}, {"name": "kaze"}],
        "schedule": {"max_steps": 3000},
        "data": {"resolution_px": 64},
    }
    request = FolderRequest(two_embeddings_folder, run_settings(plain))
    answer = json.loads(json.dumps(datasets.plan(request).as_dict()))
    warning = next(found for found in answer["warnings"] if found["kind"] == "word_never")
    fixed = datasets.fix(answer["run"], warning["fixes"][0])
    assert [embedding["name"] for embedding in fixed["embeddings"]] == ["aoi"]
    assert datasets.plan(request, fix=True).as_dict()["fixed"][0] == "Remove kaze"


def test_without_a_run_one_is_fitted(two_embeddings_folder: Path) -> None:
    planned = datasets.plan(FolderRequest(two_embeddings_folder))
    plan, answer = planned.plan, planned.as_dict()
    assert (
        [embedding["name"] for embedding in answer["run"]["embeddings"]]
        == [embedding.name for embedding in plan.embeddings]
        == ["aoi", "hana"]
    )
    assert answer["run"]["data"]["folder"] == str(two_embeddings_folder)


def test_settings_need_no_embeddings_but_no_faults() -> None:
    assert run_settings({}) == Run()
    with pytest.raises(ConfigError, match="max_steps"):
        run_settings({"schedule": {"max_steps": -1}})


def test_doubles_are_left_out_by_their_remedy(two_embeddings_folder: Path) -> None:
    first = sorted(two_embeddings_folder.rglob("*.png"))[0]
    copy = first.with_name("copy.png")
    copy.write_bytes(first.read_bytes())
    copy.with_suffix(".txt").write_bytes(first.with_suffix(".txt").read_bytes())
    plan = datasets.plan(FolderRequest(two_embeddings_folder)).plan
    assert "duplicate" in {f.kind for f in plan.at_least("warning")}
    fixed = datasets.plan(FolderRequest(two_embeddings_folder), fix=True)
    better = fixed.plan
    assert "Keep one" in fixed.as_dict()["fixed"] and len(better.pictures) < len(plan.pictures)
    assert "duplicate" not in {f.kind for f in better.at_least("warning")}


def test_fixes_are_applied_again_after_the_scan_that_they_ask_for() -> None:
    """As the page's Fix all: the first fix shows what the second is for."""
    scans: list[int] = []

    def finding(path: str, value: Any) -> LintWarning:
        fix = Fix("set", f"Set {path}", {"path": path, "value": value})
        return LintWarning(path, "warning", "", (), (), (fix,))

    def warnings(run: Run) -> list[LintWarning]:
        found = [finding("data.flip", True)] if not run.data.flip else []
        return found + ([finding("data.max_tokens", 75)] if scans and not run.data.max_tokens else [])

    run, done = datasets.fix_all(Run(), warnings, scan_again=lambda run: scans.append(1))
    assert done == ["Set data.flip", "Set data.max_tokens"] and run.data.flip and run.data.max_tokens == 75
    assert len(scans) == 2


def test_no_folder_is_not_the_one_that_the_process_runs_in(site: Site, controller: PageController, line: Any) -> None:
    told = "Give the folder that holds the pictures"
    assert told in refusal(lambda: controller.scan(" "))
    for path in ("/scan", "/plan", "/captions", "/captions/preview", "/captions/write", "/captions/take_back"):
        assert told in detail(site, path, {"folder": " "}), path
    for verb in ("scan", "plan", "captions"):
        assert told in line(verb, ""), verb


def test_what_is_planned_is_the_same(site: Site, line: Any) -> None:
    plain = site.post("/plan", {"folder": str(site.pictures), "mend": True}).json()
    own = json.loads(line("plan", site.pictures, "--fix", "--json"))
    assert plain["mended"] == own["mended"] and plain["draws"] == own["draws"]
    assert plain["run"]["data"]["folder"] == own["run"]["data"]["folder"] != DataConfig().folder
