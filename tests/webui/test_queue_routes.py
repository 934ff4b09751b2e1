"""Routes of the queue, over a real manager and a tiny real checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import write_pictures
from tests.webui.test_api import API, settings, wait_for


def listed(client: Any) -> dict[str, Any]:
    return dict(client.get(f"{API}/queue").json())


def states(client: Any) -> dict[str, str]:
    return {entry["name"]: entry["state"] for entry in listed(client)["runs"]}


def post(client: Any, path: str, body: Any = None) -> Any:
    return client.post(f"{API}/queue{path}", json={} if body is None else body)


def test_a_queue_from_the_first_run_to_the_last(client: Any, pictures: Path) -> None:
    assert listed(client) == {"paused": False, "notice": "", "runs": [], "sweeps": []}
    assert post(client, "/pause").json()["paused"]
    for name in "abc":
        answer = post(client, "", settings(pictures, name=name))
        assert answer.status_code == 200, answer.text
    assert answer.json() == {"ids": [3], "names": ["c"]}
    moved = post(client, "/3/move", {"to": 1}).json()
    assert [entry["name"] for entry in moved["runs"]] == ["c", "a", "b"]
    assert [entry["position"] for entry in moved["runs"]] == [1, 2, 3]
    assert len(post(client, "/1/remove").json()["runs"]) == 2
    assert not post(client, "/resume").json()["paused"]
    wait_for(lambda: states(client) == {"c": "done", "b": "done"})
    for entry in listed(client)["runs"]:
        assert (entry["step"], entry["max_steps"], entry["reason"]) == (2, 2, "")
        assert client.get(f"{API}/runs/{entry['run_id']}").status_code in (200, 404)  # only the last is shown
    assert post(client, "/clear").json()["runs"] == []


def test_the_running_one_is_skipped(client: Any, pictures: Path) -> None:
    endless = settings(pictures, name="endless", schedule={"max_steps": 100_000, "batch_size": 1})
    post(client, "", endless)
    post(client, "", settings(pictures, name="after"))
    wait_for(lambda: listed(client)["runs"][0]["step"] >= 1)
    assert listed(client)["runs"][0]["max_steps"] == 100_000
    assert post(client, "/1/remove").status_code == 400
    assert post(client, "/1/skip").status_code == 200
    wait_for(lambda: states(client) == {"endless": "skipped", "after": "done"})
    assert len(client.get(f"{API}/runs/resumable").json()) == 1


def test_a_sweep(client: Any, pictures: Path) -> None:
    post(client, "/pause")
    swept = settings(pictures, name="s") | {"sweep": {"network.unet_rank": [1, 2], "seed": [0, 1]}}
    names = ["s-unet_rank-1-seed-0", "s-unet_rank-1-seed-1", "s-unet_rank-2-seed-0", "s-unet_rank-2-seed-1"]
    assert post(client, "", swept).json()["names"] == names
    (sweep,) = listed(client)["sweeps"]
    assert sweep["settings"] == {"network.unet_rank": [1, 2], "seed": [0, 1]} and sweep["grid"] == ""
    wrong = {"network.unet_rnk": [1]}, {"network.unet_rank": 1}, {"network.unet_rank": [-1]}, [1]
    for one in wrong:
        answer = post(client, "", settings(pictures, name="t") | {"sweep": one})
        assert answer.status_code == 422 and answer.json()["detail"]["faults"], answer.text
    assert len(listed(client)["runs"]) == 4


def test_refused_with_a_sentence(client: Any, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    post(client, "/pause")
    post(client, "", settings(pictures))
    again = post(client, "", settings(pictures))
    assert again.status_code == 400 and "in the queue writes a file of this name" in again.json()["detail"]
    assert post(client, "", settings(pictures) | {"overwrite": True}).status_code == 200
    assert post(client, "", settings(pictures) | {"overwrite": "yes"}).status_code == 422
    assert post(client, "", settings(pictures, schedule={"max_steps": -1})).status_code == 422
    outside = write_pictures(tmp_path_factory.mktemp("outside"), {"aoi_1": "aoi"})
    for body in (
        settings(outside, name="o"),
        settings(pictures, name="o") | {"sweep": {"data.folder": [str(outside)]}},
    ):
        assert post(client, "", body).status_code == 403
    for path, body in (("/9/move", {"to": 1}), ("/9/remove", {}), ("/9/skip", {})):
        assert post(client, path, body).status_code == 404
    assert post(client, "/1/move", {"to": 0}).status_code == 422
    assert post(client, "/one/skip").status_code == 422


def test_a_finished_run_is_made_longer(client: Any, pictures: Path) -> None:
    kept = settings(pictures, saving={"state_every_steps": 1, "dtype": "fp32"})
    run_id = client.post(f"{API}/runs", json=kept).json()["id"]
    wait_for(lambda: client.get(f"{API}/runs/{run_id}").json()["status"] == "finished")
    wait_for(lambda: client.get(f"{API}/runs/finished").json() == [run_id])
    for steps in (1, 2):
        answer = client.post(f"{API}/runs/{run_id}/continue", json={"max_steps": steps})
        assert answer.status_code == 400 and "has 2 steps already" in answer.json()["detail"]
    assert client.post(f"{API}/runs/{run_id}/continue", json={"max_steps": 4}).status_code == 200
    wait_for(lambda: client.get(f"{API}/runs/{run_id}").json()["status"] == "finished")
    view = client.get(f"{API}/runs/{run_id}").json()
    assert (view["step"], view["loss"]["steps"]) == (4, [3, 4])
