"""The queue as HTML: every state, its buttons, and nothing of a name that is taken as markup."""

from typing import Any

from PIL import Image

from lib_pivotal.ui.queue_html import queue_html


def entry(number: int, state: str, **more: Any) -> dict[str, Any]:
    plain = {"id": number, "name": f"run {number}", "state": state, "reason": "", "position": 0, "step": 0}
    return {**plain, "max_steps": 10, "run_id": "", "sweep": 0, **more}


def listed(*runs: Any, **more: Any) -> dict[str, Any]:
    return {"paused": False, "notice": "", "runs": list(runs), "sweeps": [], **more}


def test_nothing_is_nothing_and_a_notice_is_seen():
    assert queue_html(listed()) == ""
    assert "why it waits" in queue_html(listed(notice="why it waits"))


def test_buttons_are_those_that_do_something():
    html = queue_html(
        listed(
            entry(1, "done", step=10),
            entry(2, "running", step=3),
            entry(3, "waiting", position=1),
            entry(4, "waiting", position=2),
            entry(5, "interrupted"),
            entry(6, "failed", reason="<no folder>"),
        )
    )
    rows = html.split("<tr")[2:]
    wanted = (["remove"], ["skip"], ["up", "down", "remove"], ["up", "down", "remove"], ["remove"], ["remove"])
    for number, (row, verbs) in enumerate(zip(rows, wanted, strict=True), start=1):
        assert [f"{verb}:{number}" for verb in verbs] == [part.split('"')[0] for part in row.split('data-queue="')[1:]]
    assert "disabled>↑" in rows[2] and "disabled>↓" not in rows[2]
    assert "disabled>↓" in rows[3] and "disabled>↑" not in rows[3]
    assert "3 of 10" in rows[1] and "&lt;no folder&gt;" in rows[5]


def test_a_sweeps_picture(tmp_path):
    Image.new("RGB", (20, 10), "red").save(tmp_path / "s.png")
    sweep = {"id": 1, "name": "<s>", "settings": {"network.unet_lr": [1, 2]}, "grid": str(tmp_path / "s.png")}
    html = queue_html(listed(sweeps=[sweep]))
    assert 'src="data:image' in html and "network.unet_lr" in html and "<s>" not in html
    assert queue_html(listed(sweeps=[{**sweep, "grid": ""}])) == ""
