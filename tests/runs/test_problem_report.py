"""A report of a run whose files hold all that nobody should see."""

import json
import zipfile
from pathlib import Path

import pytest

from lib_pivotal.errors import HostError
from lib_pivotal.runs import scrubbing
from lib_pivotal.runs.problem_report import ReportSource, newest_run, report_texts, versions, write_report

PLANTED = ("marlene", "otto", "/srv/", "C:\\\\", "hf_abcdefghijklmnop", "word123", "secret folder")


@pytest.fixture
def run_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(scrubbing, "_user", lambda: "marlene")
    folder = tmp_path / "runs" / "20260101-aoi"
    folder.mkdir(parents=True)
    data, start = {"folder": "/srv/secret folder/pictures"}, {"init_file": "C:\\Users\\otto\\a.pt"}
    settings = {"name": "aoi", "data": data, "start": start}
    (folder / "aoi.run.json").write_text(json.dumps(settings, indent=1))
    events = [
        {"event": "RunStarted", "name": "aoi", "max_steps": 9},
        {"event": "Notice", "message": "token=hf_abcdefghijklmnop for marlene at /srv/secret folder/pictures/1.png"},
        {"event": "RunEnded", "reason": "failed", "bundle": "/srv/lora/aoi.safetensors", "message": "no number"},
    ]
    (folder / "aoi.events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    log = "INFO password: word123\nTraceback (most recent call last):\n"
    log += '  File "/srv/ext/lib_pivotal/training/loop.py", line 3\n'
    (folder / "aoi.log").write_text(log + "ValueError: no number in /srv/x/aoi.png\n")
    return folder


def test_everything_is_in_it_but_what_was_planted(run_folder, tmp_path):
    source = ReportSource(run_folder, {"runs": tmp_path / "runs"}, {"web UI": "1.10.1", "checkpoint": "/srv/m/a.ckpt"})
    path = write_report(source, tmp_path / "new" / "report.zip")
    with zipfile.ZipFile(path) as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
    assert set(texts) == {"README.txt", "versions.json", "run.json", "events.jsonl", "log.txt", "traceback.txt"}
    for name, text in texts.items():
        assert not [word for word in (*PLANTED, str(tmp_path)) if word.lower() in text.lower()], name
    assert json.loads(texts["run.json"])["data"]["folder"] == "<folder>/pictures"
    assert [json.loads(line)["event"] for line in texts["events.jsonl"].splitlines()][-1] == "RunEnded"
    assert 'File "<folder>/lib_pivotal/training/loop.py", line 3' in texts["traceback.txt"]
    assert texts["traceback.txt"].splitlines()[-1] == "ValueError: no number in <folder>/aoi.png"
    assert json.loads(texts["versions.json"])["web UI"] == "1.10.1"


def test_without_a_run_there_are_versions(tmp_path):
    texts = report_texts(ReportSource(None, {}, {}))
    assert set(texts) == {"README.txt", "versions.json"}
    assert {"python", "pivotal", "torch", "gpu"} <= json.loads(texts["versions.json"]).keys()
    assert "bitsandbytes-that-is-not-there" not in versions({})


def test_only_the_end_of_a_long_log(run_folder):
    events = run_folder / "aoi.events.jsonl"
    events.write_text(
        events.read_text() + "".join(json.dumps({"event": "StepDone", "step": n}) + "\n" for n in range(20000))
    )
    lines = report_texts(ReportSource(run_folder, {}, {}))["events.jsonl"].splitlines()
    assert 1000 < len(lines) < 10000 and json.loads(lines[0])["step"] and json.loads(lines[-1])["step"] == 19999


def test_the_newest_run(run_folder, tmp_path):
    assert newest_run(tmp_path / "runs") == newest_run(run_folder) == run_folder
    assert newest_run(tmp_path / "nothing") is None


def test_what_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="cannot be"):
        write_report(ReportSource(None, {}, {}), Path(tmp_path / "file" / "report.zip"))
