"""Routes about LoRA files: for programs, and for the page's own script."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.webui.fake.install import FakeWebUI
from tests.webui.files import write_lora


@pytest.fixture
def client(fake_webui: FakeWebUI) -> Iterator[Any]:
    fake_webui.load_extension()
    app = FastAPI()
    fake_webui.script_callbacks.app_started_callback(None, app)
    write_lora(fake_webui, "one", {"hana": 1}, parts=("unet",))
    with TestClient(app) as made:
        yield made


def test_the_list(client: Any) -> None:
    for path in ("/pivotal/v1/bundles", "/pivotal/internal/loras"):
        [found] = client.get(path).json()
        assert (found["name"], found["words"][0]["name"], found["parts"]) == ("one", "hana", ["unet"])


def test_the_pages_route_is_behind_its_login(client: Any) -> None:
    app = client.app
    app.auth, app.tokens = {"me": "secret"}, {"known": "me"}
    assert client.get("/pivotal/internal/loras").status_code == 401
    assert client.get("/pivotal/internal/loras", cookies={"access-token": "other"}).status_code == 401
    assert client.get("/pivotal/internal/loras", cookies={"access-token": "known"}).status_code == 200


def test_work(fake_webui: FakeWebUI, client: Any) -> None:
    answer = client.post("/pivotal/v1/bundles/rename", json={"name": "one", "renames": {"hana": "kira"}})
    assert answer.json() == {"written": [str(fake_webui.lora_folder / "one.safetensors")]}
    found = client.post("/pivotal/v1/bundles/verify", json={"name": "one"}).json()
    assert found["sound"] is True and isinstance(found["problems"], list)
    split = client.post("/pivotal/v1/bundles/split", json={"name": "one"}).json()
    assert len(split["written"]) == 2


@pytest.mark.parametrize(
    ("verb", "body", "status", "said"),
    [
        ("burn", {}, 404, "no such work: burn"),
        ("rename", {"name": "one"}, 422, "it takes name, renames"),
        ("rename", {"name": "one", "renames": {"hana": 1}}, 422, "text"),
        ("delete", {"name": "one", "words": ["hana", 3]}, 422, "text"),
        ("delete", {"name": 5, "words": []}, 422, "text"),
        ("delete", {"name": "nobody", "words": ["hana"]}, 400, "no LoRA file named 'nobody'"),
    ],
)
def test_refused(client: Any, verb: str, body: Any, status: int, said: str) -> None:
    answer = client.post(f"/pivotal/v1/bundles/{verb}", json=body)
    assert answer.status_code == status and said in answer.json()["detail"]


def test_who_may_see(fake_webui: FakeWebUI) -> None:
    from lib_pivotal.webui.bundle_routes import may_see

    request: Any = SimpleNamespace(cookies={"access-token-unsecure": "known"})
    assert may_see(SimpleNamespace(), request)
    assert may_see(SimpleNamespace(auth={"a": "b"}, tokens={"known": "a"}), request)
    assert not may_see(SimpleNamespace(auth={"a": "b"}, tokens={}), request)
