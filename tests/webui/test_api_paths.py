"""Names and paths that come by the API: the routes over a real manager, real files and FastAPI's own client.

Only what these routes ask of the web UI stands in for it here: its options, its folders, and its list of LoRA files.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from fastapi import FastAPI
from fastapi.testclient import TestClient
from safetensors.torch import save_file

from lib_pivotal.bundle.listing import list_bundle
from lib_pivotal.runs.manager import RunManager
from tests.conftest import write_pictures
from tests.hostile_names import EMPTY, HOSTILE
from tests.ui.conftest import EmptyBackend

STOOD_IN = ("resolution_patch", "catalog", "compat", "file_invalidation", "resolution", "jobs")
"""Modules of webui/ that need a whole web UI and have no part in this."""
TESTED = ("api", "bundle_routes", "bundle_work", "api_folders", "settings")


class Site:
    """A web UI's folders, its API, and what lies outside of them."""

    def __init__(self, root: Path) -> None:
        self.data = root / "data"
        self.outside = write_pictures(root / "private", {"aoi_1": "aoi, red", "aoi_2": "aoi, blue"})
        self.backend = EmptyBackend(self.data / "process")
        self.manager = RunManager(self.backend)
        self.pictures = write_pictures(self.data / "pictures", {"aoi_1": "aoi, red hair", "aoi_2": "aoi, park"})
        for stem, name in (("one", "aoi"), ("two", "hana")):
            save_file({f"bundle_emb.{name}.string_to_param.*": torch.ones(2, 768)}, self.lora(stem))
        self.options = SimpleNamespace(data={})
        self.cmd_opts = SimpleNamespace(api_auth=None, lora_dir=str(self.data / "process" / "lora"))
        self.client: Any = None

    def lora(self, stem: str) -> Path:
        return self.backend.lora_folder() / f"{stem}.safetensors"

    def find_on_disk(self, name: str) -> Any:
        path = next((path for path in self.backend.lora_folder().iterdir() if path.stem == name), None)
        return None if path is None else SimpleNamespace(filename=str(path), name=name)

    def run(self, **changes: Any) -> dict[str, Any]:
        data = {"folder": str(self.pictures), "resolution_px": 64}
        return {"name": "x", "embeddings": [{"name": "aoi"}], "data": data, "schedule": {"max_steps": 1}} | changes

    def post(self, path: str, body: Any = None) -> Any:
        content = json.dumps({} if body is None else body)  # spells half a surrogate pair, which the client would not
        return self.client.post(f"/pivotal/v1{path}", data=content, headers={"Content-Type": "application/json"})

    def tree(self) -> dict[str, bytes]:
        root = self.data.parent
        return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    made = Site(tmp_path)
    modules = ModuleType("modules")
    parts: dict[str, Any] = {
        "shared": SimpleNamespace(cmd_opts=made.cmd_opts, opts=made.options),
        "paths": SimpleNamespace(data_path=str(made.data), models_path=str(made.data / "models")),
        "call_queue": SimpleNamespace(queue_lock=contextlib.nullcontext()),
    }
    for name, part in parts.items():
        setattr(modules, name, part)
        monkeypatch.setitem(sys.modules, f"modules.{name}", part)
    monkeypatch.setitem(sys.modules, "modules", modules)
    package = importlib.import_module("lib_pivotal.webui")
    for name in (*STOOD_IN, *TESTED):
        monkeypatch.delitem(sys.modules, f"lib_pivotal.webui.{name}", raising=False)
    for name in STOOD_IN:
        stand_in: Any = ModuleType(f"lib_pivotal.webui.{name}")
        monkeypatch.setitem(sys.modules, stand_in.__name__, stand_in)
        monkeypatch.setattr(package, name, stand_in, raising=False)
    package.catalog.find_on_disk = made.find_on_disk
    package.file_invalidation.forget_lora_file = lambda path: None
    package.compat.loaded_model = lambda: None
    package.catalog.catalog = SimpleNamespace(look=lambda path: "")
    package.resolution.resolver = SimpleNamespace(patches=SimpleNamespace(applied=()))
    package.jobs.run_manager = lambda: made.manager
    with served(made):
        yield made
    assert made.manager.join(60)
    for name in TESTED:
        sys.modules.pop(f"lib_pivotal.webui.{name}", None)
        with contextlib.suppress(AttributeError):
            delattr(package, name)


@contextlib.contextmanager
def served(site: Site) -> Iterator[None]:
    app = FastAPI()
    importlib.import_module("lib_pivotal.webui.api").register(app, lambda: site.manager)
    with TestClient(app) as site.client:
        yield


# ---- names ----


@pytest.mark.parametrize(("name", "reason"), HOSTILE)
def test_a_run_of_a_hostile_name_is_refused_and_makes_nothing(site: Site, name: str, reason: str) -> None:
    before = site.tree()
    for path in ("/runs", "/runs/preflight", "/runs/class_pictures"):
        answer = site.post(path, site.run(name=name))
        assert answer.status_code == 422, answer.text
        assert [fault["field"] for fault in answer.json()["detail"]["faults"]] == ["name"]
        assert reason in answer.json()["detail"]["message"]
    assert site.tree() == before and site.manager.current is None


@pytest.mark.parametrize(("name", "reason"), HOSTILE)
def test_a_new_file_of_a_hostile_name(site: Site, name: str, reason: str) -> None:
    before = site.tree()
    bodies = {
        "join": {"names": ["one", "two"], "new_name": name},
        "rename": {"name": "one", "renames": {"aoi": "kaze"}, "new_name": name},
        "strip": {"name": "one", "parts": ["metadata"], "new_name": name},
        "delete": {"name": "one", "words": [], "new_name": name},
    }
    for verb, body in bodies.items():
        answer = site.post(f"/bundles/{verb}", body)
        assert answer.status_code == 400 and reason in answer.json()["detail"], answer.text
    for verb, field in (("verify", "name"), ("split", "name"), ("convert", "name")):
        body = {field: name} | ({"layout": "kohya"} if verb == "convert" else {})
        assert site.post(f"/bundles/{verb}", body).status_code == 400
    assert site.tree() == before


@pytest.mark.parametrize("name", EMPTY)
def test_a_new_file_without_a_name(site: Site, name: str) -> None:
    before = site.tree()
    assert site.post("/bundles/join", {"names": ["one", "two"], "new_name": name}).status_code == 400
    assert site.tree() == before


@pytest.mark.parametrize("layout", ["../../../evil", "/tmp/evil", "pickle", ""])
def test_a_layout_is_no_way_out(site: Site, layout: str) -> None:
    before = site.tree()
    for verb in ("convert", "split"):
        answer = site.post(f"/bundles/{verb}", {"name": "one", "layout": layout})
        assert answer.status_code == 400 and "there is no layout" in answer.text
    assert site.tree() == before


@pytest.mark.parametrize("run_id", [*(name for name, _ in HOSTILE if "\ud800" not in name), "x", "process", "presets"])
def test_run_ids_are_those_of_the_list(site: Site, run_id: str) -> None:
    (site.outside / "x.state").mkdir()
    (site.outside / "x.state" / "state-00000001.pt").write_bytes(b"x")
    (site.outside / "x.run.json").write_text(json.dumps(site.run()), encoding="utf-8")
    before = site.tree()
    quoted = urllib.parse.quote(run_id, safe="")
    for verb in ("continue", "stop", "save", "sample", "pause", "resume", "checkpoint"):
        assert site.post(f"/runs/{quoted}/{verb}").status_code in (404, 405)
    assert site.client.get(f"/pivotal/v1/runs/{quoted}").status_code in (404, 405)
    assert site.tree() == before and site.manager.current is None


# ---- nothing is written over ----


def test_a_run_does_not_take_anothers_file(site: Site) -> None:
    before = site.tree()
    answer = site.post("/runs", site.run(name="one"))
    assert answer.status_code == 400 and "one.safetensors: there is a file of this name" in answer.json()["detail"]
    assert "overwrite" in answer.json()["detail"] and site.tree() == before
    assert site.post("/runs", site.run(name="one", overwrite="yes")).status_code == 422
    assert site.tree() == before
    assert site.post("/runs", site.run(name="one", overwrite=True)).status_code == 200
    assert site.manager.join(60) and site.lora("one").read_bytes() == before["data/process/lora/one.safetensors"]


def test_work_on_files_takes_no_others_place(site: Site) -> None:
    before = site.tree()
    bodies = {
        "join": {"names": ["one", "two"], "new_name": "two"},
        "rename": {"name": "one", "renames": {"aoi": "kaze"}, "new_name": "two.safetensors"},
        "strip": {"name": "one", "parts": ["metadata"], "new_name": "two"},
    }
    for verb, body in bodies.items():
        answer = site.post(f"/bundles/{verb}", body)
        assert answer.status_code == 400 and "there is a file of this name" in answer.json()["detail"]
    assert site.tree() == before
    assert site.post("/bundles/join", {**bodies["join"], "overwrite": "true"}).status_code == 422
    answer = site.post("/bundles/join", {**bodies["join"], "overwrite": True})
    assert answer.json() == {"written": [str(site.lora("two"))]}
    assert {embedding.name for embedding in list_bundle(site.lora("two")).embeddings} == {"aoi", "hana"}


def test_a_file_is_changed_in_place_where_no_other_is_named(site: Site) -> None:
    assert site.post("/bundles/rename", {"name": "one", "renames": {"aoi": "kaze"}}).status_code == 200
    assert site.post("/bundles/rename", {"name": "one", "renames": {"kaze": "umi"}, "new_name": None}).is_success
    assert [embedding.name for embedding in list_bundle(site.lora("one")).embeddings] == ["umi"]


def test_exports_are_written_once(site: Site) -> None:
    body = {"name": "one"}
    first = site.post("/bundles/split", body)
    assert first.is_success and all(Path(path).is_relative_to(site.data) for path in first.json()["written"])
    again = site.post("/bundles/split", body)
    assert again.status_code == 400 and "aoi.safetensors: there is a file" in again.text
    assert site.post("/bundles/split", {**body, "overwrite": True}).is_success


@pytest.mark.parametrize(
    "body",
    [
        {"name": 1, "renames": {}},
        {"name": "one", "renames": ["aoi"]},
        {"name": "one", "renames": {"aoi": 1}},
        {"name": ["one"], "renames": {}},
        {"name": "one", "renames": {"aoi": "x"}, "new_name": ["y"]},
        {"name": None, "renames": {}},
    ],
)
def test_fields_of_other_kinds_are_told(site: Site, body: dict[str, Any]) -> None:
    answer = site.post("/bundles/rename", body)
    assert answer.status_code == 422 and "must be" in answer.json()["detail"]


# ---- folders ----


def requests_for(site: Site, folder: Path) -> dict[str, dict[str, Any]]:
    """Every route that follows a path, asked for one."""
    data = {"folder": str(folder), "resolution_px": 64}
    inner = {"folder": str(site.pictures), "resolution_px": 64}
    kept = {"folder": str(folder), "prompts": ["1girl"], "count": 1}
    return {
        "/runs": site.run(data=data),
        "/runs/preflight": site.run(data={**inner, "cache_folder": str(folder)}),
        "/runs/class_pictures": site.run(regularisation=kept),
        "/scan": {"folder": str(folder)},
        "/plan": {"folder": str(folder)},
        "/captions/preview": {"folder": str(folder)},
        "/captions/write": {"folder": str(folder)},
        "/captions/take_back": {"folder": str(folder)},
        "/captions": {"folder": str(folder)},
        "/import": {"file": str(folder / "settings.toml")},
    }


ROUTES = (
    *("/runs", "/runs/preflight", "/runs/class_pictures", "/scan", "/plan", "/import"),
    *("/captions", "/captions/preview", "/captions/write", "/captions/take_back"),
)


@pytest.fixture
def settings_file(site: Site) -> None:
    text = 'network_module = "networks.lora"\nnetwork_dim = 8\nlearning_rate = 1e-4\nmax_train_steps = 10\n'
    (site.outside / "settings.toml").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("way", ["straight", "dots", "link"])
def test_without_a_login_no_route_leaves_the_folders(site: Site, settings_file: None, route: str, way: str) -> None:
    folder = site.outside
    if way == "dots":
        folder = site.data / ".." / "private"
    elif way == "link":
        folder = site.data / "link"
        folder.symlink_to(site.outside)
    before = site.tree()
    answer = site.post(route, requests_for(site, folder)[route])
    assert answer.status_code == 403, answer.text
    assert "pivotal_api_folders" in answer.json()["detail"] and str(folder) in answer.json()["detail"]
    assert site.tree() == before and site.manager.current is None


@pytest.mark.parametrize("route", ROUTES)
def test_a_folder_of_the_setting_may_be_used(site: Site, settings_file: None, route: str) -> None:
    site.options.data["pivotal_api_folders"] = f"\n  {site.outside}  \n/nowhere\n"
    answer = site.post(route, requests_for(site, site.outside)[route])
    assert answer.status_code != 403, answer.text
    reasons = ("no checkpoint", "nothing to take back", "interrogators are only in the web UI")
    assert answer.status_code == 200 or any(reason in answer.text for reason in reasons), answer.text


@pytest.mark.parametrize("route", ROUTES)
def test_the_web_uis_own_folders_may_be_used(site: Site, route: str) -> None:
    assert site.post(route, requests_for(site, site.pictures)[route]).status_code != 403


@pytest.mark.parametrize("route", ROUTES)
def test_behind_a_login_every_folder_may_be_used(site: Site, settings_file: None, route: str) -> None:
    site.cmd_opts.api_auth = "user:secret"
    with served(site):
        body = requests_for(site, site.outside)[route]
        assert site.post(route, body).status_code == 401
        site.client.auth = ("user", "secret")
        assert site.post(route, body).status_code not in (401, 403)


def test_an_embedding_that_begins_with_a_file_outside(site: Site) -> None:
    embeddings = [{"name": "aoi", "init_file": str(site.outside / "secret.pt")}]
    assert site.post("/runs", site.run(embeddings=embeddings)).status_code == 403


def test_settings_that_were_sent_look_at_nothing_outside(site: Site) -> None:
    text = (
        'network_module = "networks.lora"\nnetwork_dim = 8\nlearning_rate = 1e-4\nmax_train_epochs = 10\n'
        f'train_batch_size = 1\ntrain_data_dir = "{site.outside}"\n'
    )
    body = {"name": "config.toml", "text": text}
    blind = site.post("/import", body).json()["run"]
    site.options.data["pivotal_api_folders"] = str(site.outside)
    seeing = site.post("/import", body).json()["run"]
    assert blind["schedule"]["epochs"] == 10, "pictures outside are not counted"
    assert (seeing["schedule"]["max_steps"], seeing["schedule"]["epochs"]) == (20, 0)


def test_bases_of_a_settings_file_stay_below_it(site: Site) -> None:
    (site.data / "base.yaml").write_text("train: {train_steps: 77}\n", encoding="utf-8")
    folder = site.data / "sent"
    folder.mkdir()
    text = "_base_: [%s]\ntrain: {train_steps: 5}\nlora_unet: []\ndata: {}\n"
    for base in ("base.yaml", "../base.yaml", str(site.data / "base.yaml")):
        (folder / "run.yaml").write_text(text % base, encoding="utf-8")
        answer = site.post("/import", {"file": str(folder / "run.yaml")})
        assert answer.is_success and "is not on this computer" in answer.text, base


def test_a_folder_that_cannot_be_is_told(site: Site) -> None:
    for folder in ("\x00", "n" * 300, "\ud800", "~nobody-of-this-name/x"):
        answer = site.post("/scan", {"folder": f"{site.data}/{folder}" if folder[0] != "~" else folder})
        assert 400 <= answer.status_code < 500, (folder, answer.text)
