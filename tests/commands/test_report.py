"""Reports of a page's runs, and of a folder."""

import json
import zipfile

import pytest

from lib_pivotal.commands.report import report, report_on
from lib_pivotal.errors import FileNameError, HostError
from lib_pivotal.runs.manager import RunManager
from lib_pivotal.runs.view import RunView
from tests.ui.conftest import EmptyBackend


def run_in(folder, name):
    folder.mkdir(parents=True)
    (folder / f"{name}.run.json").write_text(json.dumps({"name": name}))
    (folder / f"{name}.events.jsonl").write_text('{"event": "Preparing"}\n')
    return folder


def name_in(path):
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("run.json"))["name"]


@pytest.fixture
def manager(tmp_path):
    return RunManager(EmptyBackend(tmp_path / "process"))


def test_on_the_run_that_was_last(manager):
    folder = manager.backend.runs_folder()
    run_in(folder / "1", "old")
    current = run_in(folder / "2", "current")
    run_in(folder / "3", "newest")
    path = report(manager, program={"web UI": "1.10.1"})
    assert name_in(path) == "newest" and path.parent == folder / "reports"
    with zipfile.ZipFile(path) as archive:
        told = json.loads(archive.read("versions.json"))
    assert told["web UI"] == "1.10.1" and told["checkpoint"].startswith("avatars")
    manager._view = RunView("2", "current", max_steps=1, folder=current)
    assert name_in(report(manager)) == "current"


def test_before_the_first_run(manager):
    with zipfile.ZipFile(report(manager)) as archive:
        assert "run.json" not in archive.namelist()


def test_on_a_folder(tmp_path):
    out = tmp_path / "report.zip"
    with pytest.raises(HostError, match="no run is there"):
        report_on(tmp_path, out)
    run_in(tmp_path / "runs" / "1", "aoi")
    assert name_in(report_on(tmp_path / "runs", out)) == "aoi"
    with pytest.raises(FileNameError, match="already"):
        report_on(tmp_path / "runs", out)
    report_on(tmp_path / "runs" / "1", out, overwrite=True)
