"""Logs: whole lines, one table, and a failing listener that stops nothing."""

import csv
import json
from pathlib import Path

from PIL import Image

from lib_pivotal.training.events import FileSaved, PicturesMade, StepDone
from lib_pivotal.training.logs import CsvLog, JsonLinesLog, default_logs, event_record, fan_out


def step(number, loss=0.5):
    return StepDone(
        number, 10, "joint", {"loss": loss}, {"unet": 1e-4}, {"unet": 0.3}, {"aoi": 0.4}, {"aoi": 3}, 0.1, 1.0
    )


def test_json_lines_hold_every_event(tmp_path):
    log = JsonLinesLog(tmp_path / "deep" / "events.jsonl")
    log(step(1))
    log(step(2, float("nan")))
    log(FileSaved(2, "bundle", Path("x.safetensors")))
    lines = [json.loads(line) for line in (tmp_path / "deep" / "events.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["StepDone", "StepDone", "FileSaved"]
    assert lines[1]["losses"]["loss"] is None and lines[2]["path"] == "x.safetensors"


def test_pictures_stay_out_of_the_record():
    assert "grid" not in event_record(PicturesMade(1, Image.new("RGB", (2, 2))))


def test_csv_is_one_table_also_when_resumed(tmp_path):
    path = tmp_path / "steps.csv"
    CsvLog(path)(step(1))
    again = CsvLog(path)
    again(step(2))
    again(FileSaved(2, "bundle", Path("x")))
    rows = list(csv.DictReader(path.open()))
    assert [row["step"] for row in rows] == ["1", "2"]
    assert rows[1]["rate unet"] == "0.0001" and rows[1]["norm aoi"] == "0.4"


def test_default_logs_write_into_the_folder(tmp_path):
    for log in default_logs(tmp_path, "run"):
        log(step(1))
    assert (tmp_path / "run.events.jsonl").exists() and (tmp_path / "run.steps.csv").exists()


def test_a_failing_listener_is_named_and_stops_nothing(caplog):
    heard = []

    def broken(event):
        raise OSError("disk full")

    fan_out([broken, heard.append])(step(1))
    assert len(heard) == 1 and "listener failed" in caplog.text
