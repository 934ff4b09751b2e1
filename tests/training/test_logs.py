"""Logs: whole lines, one table, and a failing listener that stops nothing."""

import csv
import json
from pathlib import Path

from PIL import Image

from lib_pivotal.training.events import FileSaved, Notice, PicturesMade, RunEnded, RunStarted, StepDone
from lib_pivotal.training.logs import CsvLog, JsonLinesLog, after_start, default_logs, event_record, fan_out
from tests.disk import small_files_only


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


def started(first_step):
    return RunStarted("run", first_step, 10, ("aoi",), 1, 0)


def rows_of(path):
    return [row["step"] for row in csv.DictReader(path.open())]


def test_steps_that_come_again_after_a_resume_stand_once(tmp_path):
    path = tmp_path / "steps.csv"
    first = CsvLog(path)
    for number in range(1, 8):
        first(step(number))
    again = CsvLog(path)
    again(started(4))
    for number in (5, 6, 7, 8):
        again(step(number))
    assert rows_of(path) == ["1", "2", "3", "4", "5", "6", "7", "8"]


def test_a_new_run_begins_a_new_table(tmp_path):
    path = tmp_path / "steps.csv"
    CsvLog(path)(step(1))
    again = CsvLog(path)
    again(started(0))
    again(step(1, 0.25))
    assert [row["loss"] for row in csv.DictReader(path.open())] == ["0.25"]


def test_half_a_line_of_a_killed_process_spoils_no_other(tmp_path):
    path = tmp_path / "steps.csv"
    log = CsvLog(path)
    log(step(1))
    log(step(2))
    path.write_bytes(path.read_bytes()[:-9])
    again = CsvLog(path)
    again(started(1))
    again(step(2))
    assert rows_of(path) == ["1", "2"]
    lines = tmp_path / "events.jsonl"
    JsonLinesLog(lines)(step(1))
    lines.write_bytes(lines.read_bytes()[:-9])
    JsonLinesLog(lines)(step(2))
    assert json.loads(lines.read_text().splitlines()[-1])["step"] == 2


def test_what_a_full_disk_did_not_take_is_written_later(tmp_path):
    path, heard = tmp_path / "steps.csv", []
    tell = fan_out([CsvLog(path), heard.append])
    tell(step(1))
    with small_files_only(path.stat().st_size + 20):
        tell(step(2))
        tell(step(3))
        assert rows_of(path) == ["1"]
    tell(step(4))
    assert rows_of(path) == ["1", "2", "3", "4"]
    told = [event.message for event in heard if isinstance(event, Notice)]
    assert len(told) == 1 and told[0].startswith("steps.csv cannot be written (")


def test_a_run_that_never_started_leaves_nothing_in_its_folder():
    heard = []
    listener = after_start(heard.append)
    listener(Notice("error", 0, "cannot be continued"))
    listener(RunEnded("failed", 0, 0.0, None, "cannot be continued"))
    assert not heard
    listener = after_start(heard.append)
    events = [Notice("info", 0, "first"), started(3), step(4)]
    for event in events:
        listener(event)
    assert heard == events
