"""Below a run: where its logs are, and the report."""

from pathlib import Path

from lib_pivotal.ui.logs_panel import logs_html


def test_folder_and_board(snapshot_of_run, tmp_path):
    assert logs_html(None) == logs_html(snapshot_of_run(folder=str(tmp_path))) == ""
    (tmp_path / "aoi.events.jsonl").write_text("")
    assert "logdir" not in logs_html(snapshot_of_run(folder=str(tmp_path)))
    (tmp_path / "aoi.tensorboard").mkdir()
    html = logs_html(snapshot_of_run(folder=str(tmp_path)))
    assert f'data-copy="{tmp_path}"' in html
    assert f'data-copy="tensorboard --logdir &quot;{tmp_path}/aoi.tensorboard&quot;"' in html


def test_the_button_makes_a_zip(browser):
    shown = browser.press("pivotal_report")
    assert "Look through it" in shown["pivotal_report_said"]
    assert shown["pivotal_report_file"]["visible"]
    assert Path(shown["pivotal_report_file"]["value"]["name"]).suffix == ".zip"
