"""A snapshot as HTML: every state has its words, and what others wrote is escaped."""

from pathlib import Path

import pytest
from PIL import Image

from lib_pivotal.ui import run_html


def with_pictures(snapshot_of_run, tmp_path, steps, columns=("aoi", "hana, smile")):
    pictures = []
    for step in steps:
        rows = {}
        for label in ("whole", "U-Net only", "text encoder only", "words only"):
            files = []
            for number in range(len(columns)):
                path = tmp_path / f"{step}-{label}-{number}.png"
                Image.new("RGB", (8, 8), "green").save(path)
                files.append(str(path))
            rows[label] = tuple(files)
        pictures.append({"step": step, "columns": tuple(columns), "rows": rows, "grid": "", "bundle": ""})
    return snapshot_of_run(pictures=pictures)


def test_before_the_first_run_everything_has_a_text():
    assert "No run yet" in run_html.progress(None)
    assert "idle" in run_html.head(None, checkpoint="") and "no checkpoint" in run_html.head(None, checkpoint="")
    assert run_html.curves(None) == run_html.notices(None) == run_html.outcome(None) == ""
    assert "side by side" in run_html.rows(None)


@pytest.mark.parametrize("status", run_html.WORDS_OF_STATUS)
def test_every_status_has_embeddings(snapshot_of_run, status):
    ended = {"reason": status, "step": 30, "seconds": 9.0, "bundle": None, "message": "x"}
    shown = run_html.progress(snapshot_of_run(status=status, ended=ended if status in ("finished", "failed") else None))
    assert run_html.WORDS_OF_STATUS[status] in shown


def test_progress_says_step_rate_time_and_phase(snapshot_of_run):
    text = run_html.progress(snapshot_of_run())
    facts = ("step 30 of 120", "0:22 left", "4.0 steps/s", "embeddings and network", "25.00%")
    assert all(part in text for part in facts)


def test_slow_steps_are_told_in_seconds(snapshot_of_run):
    assert "2.5 s a step" in run_html.progress(snapshot_of_run(step_seconds=2.5))


def test_rows_grow_by_step(snapshot_of_run, tmp_path):
    html = run_html.rows(with_pictures(snapshot_of_run, tmp_path, [0, 10, 20]), column="hana, smile", picked=10)
    assert html.count("<img") == 12 and html.count("data-step") == 3
    assert 'chosen" data-column="hana, smile"' in html and 'chosen" data-step="10"' in html


def test_many_steps_are_thinned_to_what_one_can_see(snapshot_of_run, tmp_path):
    shown = run_html.thinned(with_pictures(snapshot_of_run, tmp_path, range(100))["pictures"])
    assert len(shown) == run_html.SHOWN_STEPS and (shown[0]["step"], shown[-1]["step"]) == (0, 99)


def test_a_picture_that_is_gone_leaves_its_place(snapshot_of_run, tmp_path):
    snapshot = with_pictures(snapshot_of_run, tmp_path, [5])
    Path(snapshot["pictures"][0]["rows"]["whole"][0]).unlink()
    assert run_html.rows(snapshot).count("<img") == 3


def test_a_picked_step_shows_all_prompts(snapshot_of_run, tmp_path):
    snapshot = with_pictures(snapshot_of_run, tmp_path, [5])
    assert run_html.picked_step(snapshot, 5).count("<img") == 8
    assert run_html.picked_step(snapshot, 6) == ""


def test_a_failure_is_told_in_words(snapshot_of_run):
    ended = {"reason": "failed", "step": 12, "seconds": 1.0, "bundle": None, "message": "the loss is <nan>\nlower it"}
    html = run_html.outcome(snapshot_of_run(status="failed", ended=ended))
    assert "failed at step 12" in html and "&lt;nan&gt;<br>lower it" in html and "bad" in html


def test_the_end_offers_prompts(snapshot_of_run, tmp_path):
    path = tmp_path / "gekidol.safetensors"
    path.write_bytes(b"x" * 2_000_000)
    ended = {"reason": "finished", "step": 120, "seconds": 60.0, "bundle": str(path), "message": ""}
    html = run_html.outcome(snapshot_of_run(status="finished", ended=ended))
    assert "2.0 MB · 2 embeddings" in html and 'data-copy="&lt;lora:gekidol:1&gt; aoi"' in html


def measured(te):
    """What a snapshot holds of separation, with the text encoder's share."""

    def curve(*values):
        return {"steps": [10, 20], "values": list(values)}

    explained = {"unet": curve(1.0, 0.9), "te": curve(0.2, te), "words": curve(0.2, 0.3)}
    return {"shares": {"aoi": curve(0.5, 0.62), "<hana>": curve(0.3, 0.12)}, "explained": explained}


def test_parts_have_a_chart_under_the_names_of_the_rows(snapshot_of_run):
    html = run_html.curves(snapshot_of_run(**measured(te=0.4)))
    assert "What each part explains" in html and "Separation: share in the embeddings" in html
    assert all(f"{name} <b>" in html for name in ("U-Net only", "text encoder only", "embeddings only"))
    untrained = run_html.curves(snapshot_of_run(**measured(te=0.3)))
    assert "U-Net only" in untrained and "text encoder only" not in untrained
    assert "What each part explains" not in run_html.curves(snapshot_of_run())


def test_at_the_end_what_sits_where_is_said_once(snapshot_of_run, tmp_path):
    advice = "&lt;hana&gt; (12%): the network has learnt what the embedding should."
    assert advice in run_html.curves(snapshot_of_run(**measured(te=0.4)))
    ended = {
        "reason": "finished",
        "step": 120,
        "seconds": 9.0,
        "bundle": str(tmp_path / "a.safetensors"),
        "message": "",
    }
    snapshot = snapshot_of_run(status="finished", ended=ended, **measured(te=0.4))
    html = run_html.outcome(snapshot)
    assert "aoi: 62% of what was learnt is in the embedding." in html and advice in html
    assert "pivotal-said" not in run_html.curves(snapshot)
    assert "pivotal-said" not in run_html.outcome(snapshot_of_run(status="finished", ended=ended))


def test_notices_come_newest_first_and_escaped(snapshot_of_run):
    said = [{"level": "info", "step": 1, "message": "a"}, {"level": "warning", "step": 2, "message": "<b>"}]
    html = run_html.notices(snapshot_of_run(notices=said))
    assert html.index("&lt;b&gt;") < html.index(">a<")


def test_an_old_error_is_shown_below_the_last_lines(snapshot_of_run):
    said = [{"level": "error", "step": 1, "message": "fault"}]
    said += [{"level": "info", "step": n, "message": f"line {n}"} for n in range(2, 40)]
    html = run_html.notices(snapshot_of_run(notices=said))
    assert html.index("line 39") < html.index("line 28") < html.index("fault") and "line 27" not in html


@pytest.mark.parametrize(("seconds", "text"), [(7, "0:07"), (160, "2:40"), (3723, "1:02:03"), (59.6, "1:00")])
def test_clock(seconds, text):
    assert run_html.clock(seconds) == text


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, "25% · step 30 of 120"),
        ({"status": "paused"}, "25% paused · step 30 of 120"),
        ({"status": "preparing", "step": 0}, "getting ready"),
        ({"status": "finished"}, "finished"),
    ],
)
def test_the_browser_tabs_title(snapshot_of_run, changes, wanted):
    assert run_html.tab_title(snapshot_of_run(**changes)) == wanted


def test_a_notification_says_how_it_ended(snapshot_of_run):
    ended = {"reason": "finished", "step": 120, "seconds": 61.0, "bundle": None, "message": ""}
    assert run_html.ended_line(snapshot_of_run()) == "gekidol is in progress."
    assert run_html.ended_line(snapshot_of_run(ended=ended)) == "gekidol finished at step 120 after 1:01."
    failed = {**ended, "reason": "failed", "step": 7, "message": "no memory"}
    assert run_html.ended_line(snapshot_of_run(ended=failed)) == "gekidol failed at step 7: no memory"


def validated(*, names=("aoi", "hana"), overfits=True):
    curve = {"steps": [10, 20], "values": [0.4, 0.42]}
    return {
        "means": {"held_out": curve, "trained": curve},
        "held_out": dict.fromkeys(names, curve),
        "trained": dict.fromkeys(names, curve),
        "best_step": 10,
        "overfits": overfits,
        "said": "Overfitting since step 10." if overfits else "",
    }


def test_overfitting_is_marked_and_said(snapshot_of_run):
    html = run_html.curves(snapshot_of_run(validation=validated()))
    assert "overfits from here (step 10)" in html and "Overfitting since step 10." in html
    assert "Validation loss by embedding" in html
    fine = run_html.curves(snapshot_of_run(validation=validated(names=("aoi",), overfits=False)))
    assert "lowest (step 10)" in fine and "by embedding" not in fine and "verfit" not in fine


def test_an_early_end_is_told(snapshot_of_run, tmp_path):
    file = str(tmp_path / "a.safetensors")
    ended = {"reason": "finished", "step": 30, "seconds": 9.0, "bundle": file, "message": "ended after 30 of 120 steps"}
    html = run_html.outcome(snapshot_of_run(status="finished", ended=ended, validation=validated()))
    assert "ended after 30 of 120 steps" in html and "Overfitting since step 10." in html


def test_what_is_trained_is_said_while_it_trains(snapshot_of_run):
    facts = {"embeddings": ["aoi"], "said": "Trains 1 embedding <x>; not the U-Net."}
    assert "Trains 1 embedding &lt;x&gt;; not the U-Net." in run_html.progress(snapshot_of_run(facts=facts))
    assert "Trains" not in run_html.progress(snapshot_of_run(facts=facts, status="finished", ended=ENDED))
    assert "pivotal-said" not in run_html.progress(snapshot_of_run())


ENDED = {"reason": "finished", "step": 30, "seconds": 9.0, "bundle": None, "message": ""}
