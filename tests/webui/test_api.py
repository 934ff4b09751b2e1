"""Routes under /pivotal/v1, over a real manager and a tiny real checkpoint."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.webui.fake.install import FakeWebUI, installed

API = "/pivotal/v1"


def settings(pictures: Path, **changes: Any) -> dict[str, Any]:
    return {
        "name": "two",
        "words": [{"name": "aoi", "vectors": 2}],
        "network": {"unet_rank": 2, "unet_lr": 1e-3},
        "data": {"folder": str(pictures), "resolution_px": 64},
        "schedule": {"max_steps": 2, "batch_size": 1},
        "saving": {"state_every_steps": 0, "dtype": "fp32"},
        **changes,
    }


def status(client: Any, run_id: str) -> str:
    return str(client.get(f"{API}/runs/{run_id}").json()["status"])


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def test_a_run(client: Any, pictures: Path) -> None:
    answer = client.post(f"{API}/runs", json=settings(pictures))
    assert answer.status_code == 200, answer.text
    run_id = answer.json()["id"]
    assert Path(answer.json()["folder"]).is_dir()
    wait_for(lambda: status(client, run_id) == "finished")
    assert client.get(f"{API}/runs/resumable").json() == []
    assert client.get(f"{API}/runs/nobody").status_code == 404
    assert client.post(f"{API}/runs/nobody/continue").status_code == 404


def test_commands(client: Any, pictures: Path) -> None:
    endless = settings(pictures, schedule={"max_steps": 100_000, "batch_size": 1})
    run_id = client.post(f"{API}/runs", json=endless).json()["id"]
    wait_for(lambda: client.get(f"{API}/runs/{run_id}").json()["step"] >= 1)
    assert client.post(f"{API}/runs", json=endless).status_code == 400
    assert client.post(f"{API}/runs/{run_id}/pause").status_code == 200
    wait_for(lambda: status(client, run_id) == "paused")
    assert client.post(f"{API}/runs/{run_id}/resume").status_code == 200
    assert client.post(f"{API}/runs/{run_id}/checkpoint").status_code == 200
    assert client.post(f"{API}/runs/nobody/stop").status_code == 404
    live = client.post(f"{API}/live", json={"on": True}).json()
    assert live == {"on": True, "name": "pivotal-live"}
    client.post(f"{API}/live", json={"on": False})
    assert client.post(f"{API}/runs/{run_id}/stop").status_code == 200
    wait_for(lambda: status(client, run_id) == "stopped")


def test_faults_are_told_by_field(client: Any, pictures: Path) -> None:
    answer = client.post(f"{API}/runs", json=settings(pictures, schedule={"max_steps": -1, "batch_size": "x"}))
    assert answer.status_code == 422
    fields = {fault["field"] for fault in answer.json()["detail"]["faults"]}
    assert {"schedule.max_steps", "schedule.batch_size"} <= fields
    assert client.post(f"{API}/runs/preflight", json={"nonsense": 1}).status_code == 422


def test_preflight(client: Any, pictures: Path) -> None:
    answer = client.post(f"{API}/runs/preflight", json=settings(pictures))
    assert answer.status_code == 200, answer.text
    assert answer.json()["total_s"] > 0 and answer.json()["faults"] == []


def test_a_dataset(client: Any, pictures: Path) -> None:
    scan = client.post(f"{API}/scan", json={"folder": str(pictures)}).json()
    assert (scan["pictures"], set(scan["concepts"])) == (2, {"pictures"})
    plan = client.post(f"{API}/plan", json={"folder": str(pictures)})
    assert plan.status_code == 200, plan.text
    plan = client.post(f"{API}/plan", json={"folder": str(pictures), "run": settings(pictures)}).json()
    assert plan
    preview = client.post(f"{API}/captions/preview", json={"folder": str(pictures), "run": settings(pictures)})
    assert preview.status_code == 200, preview.text
    written = client.post(
        f"{API}/captions/write", json={"folder": str(pictures), "run": settings(pictures), "digest": "no"}
    )
    assert written.status_code in (200, 400)
    assert client.post(f"{API}/captions/take_back", json={"folder": str(pictures)}).status_code in (200, 400)
    remedy = client.post(f"{API}/plan/remedy", json={"run": settings(pictures), "remedy": {"nonsense": 1}})
    assert remedy.status_code in (400, 422)
    missing = client.post(f"{API}/scan", json={"folder": str(pictures / "gone")})
    assert missing.status_code in (400, 422) and "gone" in missing.text


def test_taggers(client: Any, pictures: Path) -> None:
    found = client.get(f"{API}/captions").json()
    assert [one["name"] for one in found] == ["deepbooru", "blip"] and all(one["missing"] for one in found)
    answer = client.post(f"{API}/captions", json={"folder": str(pictures)})
    assert answer.status_code == 400


def test_settings_of_another_trainer(fake_webui: FakeWebUI, client: Any) -> None:
    text = 'pretrained_model_name_or_path = "x"\nnetwork_dim = 8\nmax_train_steps = 10\n'
    answer = client.post(f"{API}/import", json={"text": text, "name": "config.toml"})
    assert answer.status_code == 200, answer.text
    path = fake_webui.data / "config.toml"
    path.write_text(text)
    by_file = client.post(f"{API}/import", json={"file": str(path)})
    assert by_file.status_code == 200 and by_file.json()["run"] == answer.json()["run"]
    assert client.post(f"{API}/import", json={"text": "{", "name": "x.json"}).status_code in (400, 422)


def test_class_pictures_need_a_class(client: Any, pictures: Path) -> None:
    answer = client.post(f"{API}/runs/class_pictures", json=settings(pictures))
    assert answer.status_code in (400, 422), answer.text


def test_the_web_uis_login(tmp_path: Path) -> None:
    with installed(tmp_path, api_auth="me:secret,you:other") as webui:
        webui.load_extension()
        app = FastAPI()
        webui.script_callbacks.app_started_callback(None, app)
        with TestClient(app) as made:
            client: Any = made
            assert client.get(f"{API}/bundles").status_code == 401
            assert client.get(f"{API}/bundles", auth=("me", "wrong")).status_code == 401
            assert client.get(f"{API}/bundles", auth=("nobody", "secret")).status_code == 401
            for user in (("me", "secret"), ("you", "other")):
                assert client.get(f"{API}/bundles", auth=user).status_code == 200
            assert client.post(f"{API}/runs", json={}).status_code == 401
